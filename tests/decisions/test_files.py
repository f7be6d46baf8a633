import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsi.decisions.files import Decisions, read_decisions
from lsi.decisions.guarded import guard_text, unguard_text
from lsi.decisions.rows import by_row
from lsi.errors import InputError

IDS = np.array(["a", "b", "c", "d"])
LABELS = np.array([0, 1, 2, 1])
RECORDS = [
    {"sample_id": "a", "decision": "accept", "label": "0", "suggested_label": "2"},
    {"sample_id": "b", "decision": "remove", "label": "1", "suggested_label": ""},
    {"sample_id": "c", "decision": "reject", "label": "2", "suggested_label": "0"},
]


def write_json(path, records=RECORDS, **more):
    content = {"format": "lsi-decisions", "version": 1, "fingerprint": "f", "decisions": records, **more}
    path.write_text(json.dumps(content))
    return path


def write_csv(path, records=RECORDS):
    lines = ["sample_id,decision,label,suggested_label"]
    lines += [",".join(guard_text(value) for value in record.values()) for record in records]
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


@pytest.mark.parametrize("write", [write_json, write_csv])
def test_decisions_of_the_report(tmp_path, write):
    found, _ = read_decisions(write(tmp_path / f"d.{write.__name__[6:]}"), "decisions")
    keep, labels = by_row(found, IDS, LABELS, None)
    assert keep.tolist() == [True, False, True, True]
    assert labels == {0: 2}
    assert isinstance(labels[0], int)


@given(st.text(max_size=12))
def test_a_guarded_cell_is_no_formula_and_comes_back(text):
    guarded = guard_text(text)
    assert not guarded.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unguard_text(guarded) == text


def test_numbers_are_not_guarded():
    assert guard_text(-1.5) == "-1.5"


def test_class_names_stand_for_labels():
    decided = Decisions(relabel={"a": "dog"}, given={"a": "cat"})
    _, labels = by_row(decided, IDS, LABELS, {0: "cat", 1: "dog"})
    assert labels == {0: 1}


def test_a_new_class_must_be_meant():
    number, text = Decisions(relabel={"a": "99999"}), Decisions(relabel={"a": "new"})
    letters = np.array(list("wxyz"))
    for decided, labels in ((number, LABELS), (text, letters)):
        with pytest.raises(InputError, match="of the sample 'a' is not a class of the dataset"):
            by_row(decided, IDS, labels, None)
    assert by_row(number, IDS, LABELS, None, new_classes=True)[1] == {0: 99999}
    assert by_row(text, IDS, letters, None, new_classes=True)[1] == {0: "new"}
    with pytest.raises(InputError, match="is no number"):
        by_row(text, IDS, LABELS, None, new_classes=True)


@pytest.mark.parametrize("write", [write_json, write_csv])
@pytest.mark.parametrize(
    "second",
    [
        {"sample_id": "a", "decision": "reject", "label": "0", "suggested_label": "2"},
        {"sample_id": "a", "decision": "accept", "label": "0", "suggested_label": "1"},
        {"sample_id": "a", "decision": "accept", "label": "1", "suggested_label": "2"},
        {"sample_id": "a", "decision": "remove", "label": "0", "suggested_label": "2"},
    ],
)
def test_rows_that_contradict_each_other_are_refused_by_name(tmp_path, write, second):
    path = tmp_path / f"d.{write.__name__[6:]}"
    with pytest.raises(InputError, match="rows 1 and 4 contradict each other about the sample 'a'"):
        read_decisions(write(path, [*RECORDS, second]), "decisions")
    read_decisions(write(path, [*RECORDS, RECORDS[0]]), "decisions")  # saying it twice is no contradiction


def test_a_sample_stays_if_both_files_keep_it():
    both = Decisions(keep=frozenset("abc")).and_then(Decisions(remove=frozenset("b"), relabel={"a": "1"}))
    keep, labels = by_row(both, IDS, LABELS, None)
    assert keep.tolist() == [True, False, True, False]
    assert labels == {0: 1}
    crossed = Decisions(keep=frozenset("ab")).and_then(Decisions(keep=frozenset("bc")))
    assert by_row(crossed, IDS, LABELS, None)[0].tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("decided", "message"),
    [
        (Decisions(remove=frozenset(["zz"])), "1 ids are not in the dataset: 'zz'"),
        (Decisions(given={"a": "1"}), "another version of the dataset"),
        (Decisions(relabel={"a": "dog"}), "is not a class of the dataset"),
        (Decisions(rows=np.array([9])), "names row 9"),
        (Decisions(rows=np.array([0.5])), "whole numbers"),
    ],
)
def test_decisions_that_do_not_fit_the_data(decided, message):
    with pytest.raises(InputError, match=message):
        by_row(decided, IDS, LABELS, None)


def test_ids_must_be_unique():
    with pytest.raises(InputError, match="not unique"):
        by_row(Decisions(), np.array(["a", "a"]), np.array([0, 1]), None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", "{", "cannot be read"),
        ("d.json", '{"format": "other"}', "does not hold the list"),
        ("d.json", '{"format": "lsi-decisions", "version": 2}', "reads version 1"),
        ("d.json", '[1, {"sample_id": 2}]', "does not hold the list"),
        ("d.csv", "id,decision\nx,remove\n", "no column sample_id"),
        ("d.csv", "sample_id,decision\nx,delete\n", "'delete'"),
        ("d.csv", "sample_id,decision\nx,accept\n", "suggests none"),
        ("d.npy", "no array", "cannot be read"),
        ("d.xlsx", "", "decisions are read from .json"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_decisions(tmp_path / name, "keep" if name.endswith("npy") else "decisions")
    with pytest.raises(InputError, match="is not a file"):
        read_decisions(tmp_path / "missing.json")
