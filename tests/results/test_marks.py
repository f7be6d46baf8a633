"""Marks: what is written is read back, from every kind of file, and damage makes no other kind of it."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsi.decisions.guarded import write_guarded_csv
from lsi.decisions.selection_file import write_selection
from lsi.errors import InputError
from lsi.results.marks import (
    NOUNS,
    REPORT,
    SELECTION,
    SUSPECTS,
    Mark,
    from_fields,
    from_line,
    marked_table,
    meta_element,
    read_mark,
)

FULL = Mark(SELECTION, run="r" * 64, fingerprint="f" * 64, dataset_fingerprint="d" * 64, scores="my scores/",
            columns={"id_column": 'a,"b"\n=c', "label_columns": ["x", "y z"]})  # fmt: skip
KEPT = pd.DataFrame({"sample_id": ["=a", "b\nc"], "position": [0, 1], "label": [1, 0], "lsi": [0.5, 1.0]})


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "npy"])
def test_a_selection_says_what_it_is(suffix, tmp_path):
    path = tmp_path / f"k.{suffix}"
    write_selection(path, KEPT, FULL, {"keep": 0.5})
    assert read_mark(path) == FULL
    path.rename(tmp_path / "renamed.txt")
    if suffix != "json":  # by its content, not by its name
        assert read_mark(tmp_path / "renamed.txt") == FULL


def test_programs_that_read_such_files_still_do(tmp_path):
    for suffix in ("csv", "parquet", "npy", "json"):
        write_selection(tmp_path / f"k.{suffix}", KEPT, FULL, {})
    assert pd.read_csv(tmp_path / "k.csv")["position"].tolist() == [0, 1]
    assert list(pd.read_parquet(tmp_path / "k.parquet")) == list(KEPT)
    assert np.load(tmp_path / "k.npy").tolist() == [0, 1]
    assert np.load(tmp_path / "k.npy", mmap_mode="r").tolist() == [0, 1]
    write_selection(tmp_path / "k.txt", KEPT.assign(sample_id=["7", "8"]), FULL, {})
    assert np.loadtxt(tmp_path / "k.txt", dtype=int).tolist() == [7, 8]


def test_sorting_and_editing_a_csv_in_a_spreadsheet_keeps_the_mark(tmp_path):
    write_guarded_csv(KEPT, tmp_path / "k.csv", FULL)
    frame = pd.read_csv(tmp_path / "k.csv").iloc[::-1][:1]
    frame.to_csv(tmp_path / "edited.csv", index=False, quoting=1, encoding="utf-8-sig", sep=";")
    assert read_mark(tmp_path / "edited.csv") == FULL


def test_json_beyond_the_budget_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "k.json"
    write_selection(path, KEPT, FULL, {})
    with path.open("ab") as file:
        file.truncate(1 << 36)  # sparse: it takes no room on the disk
    monkeypatch.setenv("LSI_MEMORY", "64MiB")
    with pytest.raises(InputError, match="LSI_MEMORY"):
        read_mark(path)
    path.rename(tmp_path / "k.jsonl")  # lines of a table may be as many as there are
    assert read_mark(tmp_path / "k.jsonl") is None


def test_an_empty_list_has_a_mark_too(tmp_path):
    write_guarded_csv(KEPT[:0], tmp_path / "k.csv", FULL)
    assert read_mark(tmp_path / "k.csv") == FULL


def test_pages_and_tables(tmp_path):
    mark = Mark(REPORT, run="<&\">'")
    (tmp_path / "r.html").write_text(f"<!doctype html>\n<head>{meta_element(mark)}</head>")
    assert read_mark(tmp_path / "r.html") == mark
    pq.write_table(marked_table(pa.table({"x": [1]}), FULL), tmp_path / "t.parquet")
    assert read_mark(tmp_path / "t.parquet") == FULL


NAMES = st.text(min_size=1, max_size=20)


@settings(max_examples=40)
@given(st.sampled_from(sorted(NOUNS)), NAMES, st.dictionaries(st.just("id_column"), NAMES))
def test_fields_and_lines_come_back(kind, text, columns):
    mark = Mark(kind, run=text, scores=text, columns=columns)
    assert from_fields(json.loads(json.dumps(mark.fields()))) == mark
    if kind.startswith("lsi-") and not any("\ud800" <= character <= "\udfff" for character in text):
        assert from_line(f"a,b,{mark.line()}") == mark
        assert not set(mark.line()) & set(", \t\r\n\"';<>")


@given(st.text(max_size=80))
def test_other_text_is_no_mark(text):
    found = from_line(text)
    assert found is None or "#lsi-" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{", b"PAR1", b"\x93NUMPY", b"[]", b"null", b'{"format": 7}', b'{"format": "other"}',
     b"<!doctype html>", b"\xff\xfe", b"[" * 100_000,
     b'{"format": "lsi-selection", "version": ' + b"9" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_files_without_a_mark(content, suffix, tmp_path):
    (tmp_path / f"x.{suffix}").write_bytes(content)
    assert read_mark(tmp_path / f"x.{suffix}") is None
    assert read_mark(tmp_path / "missing") is None


def test_keys_in_another_order_are_the_same_mark(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"rows": [], **Mark(SUSPECTS).fields()}, sort_keys=True))
    assert read_mark(tmp_path / "s.json") == Mark(SUSPECTS)


@pytest.mark.parametrize("version", [2, "1", None, True, 0])
def test_another_version_is_refused(version, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"format": "lsi-suspects", "version": version}))
    if version is not True:
        with pytest.raises(InputError, match="reads version 1"):
            read_mark(tmp_path / "s.json").checked(tmp_path / "s.json")
