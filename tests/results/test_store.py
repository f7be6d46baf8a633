"""What is saved is what is loaded, and damage is named."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tests.score_cases import LABELS, LSI, assert_equal, make

from lsi.errors import InputError
from lsi.scores import load


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        [0, 1, 0, 1, 2],
        np.array([0, 1, 0, 1, 2], dtype=np.uint8),
        [True, False, True, False, True],
        ["", "None", "nan", "\0", "\x1b[31m"],
    ],
)
def test_what_is_saved_is_loaded(tmp_path, labels):
    scores = make(
        labels=labels, predicted=labels, corrupted=[True, False, False, True, False], original_label=labels
    )
    folder = scores.save(tmp_path / "deep" / "scores")
    assert sorted(os.listdir(folder)) == ["manifest.json", "scores.parquet"]
    assert os.listdir(folder.parent) == ["scores"]
    assert_equal(load(folder), scores)


def test_without_audit_and_with_notes_added_later(tmp_path):
    scores = make(audit=None)
    scores.manifest["source"] = {"path": Path("a/b"), "rate": np.float64(0.1)}
    loaded = load(scores.save(tmp_path / "scores"))
    assert loaded.audit is None
    assert loaded.manifest["source"] == {"path": "a/b", "rate": 0.1}


def test_dates_and_mixed_labels(tmp_path):
    ids = pd.date_range("2024-02-27", periods=5, tz="UTC")
    labels = [(1, 2), 3, "3", uuid.UUID(int=5), frozenset({1})]
    scores = make(labels=labels, predicted=labels, ids=ids)
    loaded = load(scores.save(tmp_path / "scores"))
    assert_array_equal(loaded.sample_id, scores.sample_id)
    assert loaded.to_frame()["label"].tolist() == [repr(label) for label in labels]
    described = json.loads((tmp_path / "scores" / "manifest.json").read_text())["table"]
    assert described["repr_columns"] == ["label", "loo_prediction"]
    assert_equal(load(loaded.save(tmp_path / "again")), loaded)


numbers = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
label_lists = st.one_of(
    st.lists(texts, min_size=3, max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(lsi=st.lists(numbers, min_size=3, max_size=3), labels=label_lists, ids=label_lists)
def test_any_values_come_back(tmp_path_factory, lsi, labels, ids):
    scores = make(lsi=lsi, labels=labels, predicted=labels, ids=ids)
    assert_equal(load(scores.save(tmp_path_factory.mktemp("any") / "scores")), scores)


def test_other_programs_can_read_the_table(tmp_path):
    folder = make().save(tmp_path / "scores")
    table = pyarrow.parquet.read_table(folder / "scores.parquet")
    assert table.column("label").to_pylist() == LABELS
    assert table.column("lsi").to_pylist() == LSI


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(manifest))


def flip_a_byte(folder):
    content = bytearray((folder / "scores.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "scores.parquet").write_bytes(content)


def replace_table(folder, content):
    (folder / "scores.parquet").write_bytes(content)
    edit_manifest(folder, table={"sha256": hashlib.sha256(content).hexdigest(), "rows": 5})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist. Pass the folder"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "scores.parquet").unlink(), "has no scores.parquet"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"format'),
            "damaged: manifest.json is not JSON",
        ),
        (
            lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\xfd"),
            "damaged: manifest.json is not JSON",
        ),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not written by Scores.save"),
        (lambda folder: edit_manifest(folder, format="other"), "not written by Scores.save"),
        (
            lambda folder: edit_manifest(folder, format_version=2),
            "version 2; this installation reads version 1.*pip",
        ),
        (lambda folder: edit_manifest(folder, table=None), "does not describe the table"),
        (lambda folder: edit_manifest(folder, audit={"exact": []}), "audit cannot be read"),
        (flip_a_byte, "damaged: scores.parquet does not match the checksum"),
        (lambda folder: (folder / "scores.parquet").write_bytes(b""), "does not match the checksum"),
        (lambda folder: replace_table(folder, b"PAR1 no table PAR1"), "scores.parquet cannot be read"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    folder = make().save(tmp_path / "scores")
    damage(folder)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_table_of_other_length_or_columns(tmp_path):
    folder = make().save(tmp_path / "scores")
    content = (folder / "scores.parquet").read_bytes()
    short = tmp_path / "short.parquet"
    make().to_frame().head(4).to_parquet(short)
    replace_table(folder, short.read_bytes())
    with pytest.raises(InputError, match="has 4 rows, not 5"):
        load(folder)
    make().to_frame()[["lsi"]].to_parquet(short)
    replace_table(folder, short.read_bytes())
    with pytest.raises(InputError, match="lacks the columns"):
        load(folder)
    replace_table(folder, content)
    assert_equal(load(folder), make())


def test_a_file_is_not_a_folder_of_scores(tmp_path):
    folder = make().save(tmp_path / "scores")
    with pytest.raises(InputError, match="is a file. Pass the folder"):
        load(folder / "scores.parquet")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    folder = make().save(tmp_path / "scores")

    def fail(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(InputError, match="cannot be opened: Permission denied"):
        load(folder)
