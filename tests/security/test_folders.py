"""Folders of scores and files of decisions that were tampered with."""

import json
import os

import pytest
from tests.score_cases import make

import lsi
from lsi.decisions.files import read_decisions
from lsi.decisions.rows import by_row
from lsi.errors import InputError, OutputError


@pytest.fixture
def folder(tmp_path):
    return make().save(tmp_path / "scores")


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"task": 7},
        {"task": "<script>"},
        {"classes": {"a": 1}},
        {"classes": [["a"]]},
        {"class_names": {"cat": ["x"]}},
        {"data": []},
        {"data": {"n_samples": -1}},
        {"data": {"n_samples": 10**400}},
        {"data": {"n_samples": 2}},  # fewer than the positions say
        {"data": {"n_samples": "many"}},
        {"data": {"fingerprint": 7}},
        {"timings": {"fit": "long"}},
        {"timings": {"fit": 1e301}},
        {"fit": {"train_accuracy": "<b>"}},
        {"source": "x"},
        {"source": {"options": {"label_column": 7}}},
        {"label_noise": {"n_wrong": 1, "noise_matrix": [[1.0]]}},
        {"label_noise": {"n_wrong": "x", "noise_matrix": []}},
        {"curation": {"curves": {"LSI": {"mean": ["x"]}}}},
        {"corruption": {"kind": 7}},
        {"config": {"probe": [1]}},
        {"audit": [1]},
        {"audit": {"positions": [1], "exact": [1.0, 2.0]}},
        {"versions": {"lsi": 1}},
    ],
)
def test_a_manifest_with_wrong_types_is_refused(folder, changes):
    edit(folder, **changes)
    with pytest.raises(InputError, match=r"damaged|audit cannot be read"):
        lsi.load(folder)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_manifest_with_numbers_that_json_lacks(folder, word):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"config"', f'"timings": {{"fit": {word}}}, "config"'))
    with pytest.raises(InputError, match="damaged"):
        lsi.load(folder)


def test_a_manifest_nested_without_end(folder):
    (folder / "manifest.json").write_text('{"format": ' + "[" * 200_000)
    with pytest.raises(InputError, match="damaged"):
        lsi.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "scores.parquet"])
def test_a_file_that_is_a_device(folder, name):
    (folder / name).unlink()
    os.symlink("/dev/zero", folder / name)
    with pytest.raises(InputError, match="no plain file"):
        lsi.load(folder)


def test_replacing_scores_never_writes_through_a_link(folder, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    os.symlink(precious, folder / "manifest.json")
    before = precious.read_text()
    make().save(folder, overwrite=True)
    assert precious.read_text() == before
    assert not (folder / "manifest.json").is_symlink()


def test_a_folder_that_is_a_link_to_other_files(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").write_text("x")
    os.symlink(tmp_path / "home", tmp_path / "scores")
    with pytest.raises(OutputError, match="no scores"):
        make().save(tmp_path / "scores", overwrite=True)
    assert (tmp_path / "home" / "diary.txt").read_text() == "x"


@pytest.mark.parametrize(
    "decisions",
    [
        [{"sample_id": "nobody", "decision": "remove", "label": "", "suggested_label": ""}],
        [{"sample_id": "../../x", "decision": "remove"}],
        [{"sample_id": ["id-1"], "decision": "remove"}],
        [{"sample_id": "id-1", "decision": "accept", "label": "dog", "suggested_label": None}],
        [{"sample_id": "id-1", "decision": "remove", "label": "not its label"}],
        ["id-1"],
        {"id-1": "remove"},
        None,
        7,
    ],
)
def test_decisions_that_do_not_fit_are_refused(tmp_path, decisions):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"format": "lsi-decisions", "version": 1, "decisions": decisions}))
    scores = make()
    with pytest.raises(InputError):
        by_row(read_decisions(path)[0], scores.sample_id, scores.to_frame()["label"].to_numpy(), None)


@pytest.mark.parametrize("bomb", ["dictionary", "rows", "pages"])
def test_small_parquet_files_that_become_gigabytes(folder, tmp_path, bomb, monkeypatch):
    import hashlib

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = {"dictionary": 3000, "rows": 20_000_000, "pages": 40}[bomb]
    ids = {
        "dictionary": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["x" * (1 << 20)]),
        "rows": np.zeros(n, np.int8),
        "pages": [" " * (4 << 20)] * n if bomb == "pages" else None,
    }[bomb]
    path = folder / "scores.parquet"
    pq.write_table(pa.table({"sample_id": ids}), path, compression="zstd", use_dictionary=bomb != "pages")
    content = path.read_bytes()
    assert len(content) < 100_000
    table = json.loads((folder / "manifest.json").read_text())["table"]
    edit(folder, table={**table, "rows": n, "sha256": hashlib.sha256(content).hexdigest()})
    monkeypatch.setenv("LSI_MEMORY", "256MiB")
    for use in (lambda: lsi.load(folder), lambda: read_decisions(path, "keep")):
        with pytest.raises(InputError, match=r"would take .* are allowed"):
            use()
