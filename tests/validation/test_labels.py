"""Labels at the gate: what is accepted, encoded and refused."""

import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from lsi.errors import InputError
from lsi.validation.problem import check_problem

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "codes", "classes"),
    [
        ([3, 1, 3, -2], [2, 1, 2, 0], [-2, 1, 3]),
        (np.array([3, 1, 3, 2], dtype=np.uint8), [2, 0, 2, 1], [1, 2, 3]),
        (np.array([1.0, 0.0, 2.0, 1.0]), [1, 0, 2, 1], [0, 1, 2]),
        ([True, False, True, True], [1, 0, 1, 1], [False, True]),
        (["b", "a", "b", "a"], [1, 0, 1, 0], ["a", "b"]),
        (np.array(["b", "a", "b", "a"]), [1, 0, 1, 0], ["a", "b"]),
        (pd.Series(["b", "a", "b", "a"], index=[7, 8, 9, 3]), [1, 0, 1, 0], ["a", "b"]),
        (pd.Categorical(["b", "a", "b", "a"], categories=["c", "b", "a"]), [1, 0, 1, 0], ["a", "b"]),
        (pd.Series(pd.array([5, 4, 5, 4], dtype="Int64")), [1, 0, 1, 0], [4, 5]),
        (torch.tensor([1, 0, 1, 0]), [1, 0, 1, 0], [0, 1]),
        ([torch.tensor(1), np.int64(0), 1, 0], [1, 0, 1, 0], [0, 1]),
        ([(1, 2), (0, 9), (1, 2), (0, 9)], [1, 0, 1, 0], [(0, 9), (1, 2)]),
        ([1, "a", "1", 1], [0, 1, 2, 0], [1, "a", "1"]),
        (np.array([1, 0, 1, 0], dtype=object), [1, 0, 1, 0], [0, 1]),
        ([2**70, 1, 1, 2**70], [1, 0, 0, 1], [1, 2**70]),
        ((1, 0, 1, 0), [1, 0, 1, 0], [0, 1]),
        ([datetime.date(2024, 1, 2), datetime.date(2024, 1, 1)] * 2, [1, 0, 1, 0], None),
    ],
)
def test_labels(labels, codes, classes):
    checked = check_problem(X[:4], labels)
    assert checked.target.dtype == np.int64
    assert_array_equal(checked.target, codes)
    assert checked.classes.dtype == object
    if classes is not None:
        assert checked.classes.tolist() == classes
        assert [type(label) for label in checked.classes] == [type(label) for label in classes]


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, dtype=object)])
def test_bytes_that_are_no_characters_are_escaped(kind):
    names = kind([b"a\xff".decode("utf-8", "surrogateescape"), "b", "ü"])
    checked = check_problem(X[:3], names, sample_id=names)
    assert checked.classes.tolist() == sorted(["a\\udcff", "b", "ü"])
    assert checked.sample_id.tolist() == ["a\\udcff", "b", "ü"]


texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(), texts, st.booleans(), st.tuples(st.integers())), min_size=3))
def test_codes_lead_back_to_the_labels(labels):
    if len(set(labels)) < 2:
        with pytest.raises(InputError, match="one class only"):
            check_problem(np.zeros((len(labels), 1)), labels)
        return
    checked = check_problem(np.zeros((len(labels), 1)), labels)
    assert checked.classes[checked.target].tolist() == labels
    assert len(set(checked.classes)) == checked.n_classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([0, 1, None, 0, 1, np.nan], r"no label.*2 of 6 rows \(first: 2, 5\).*Drop"),
        (np.array([0, 1, np.nan, 0, 1, 1]), r"no label.*1 of 6 rows \(first: 2\)"),
        (pd.Series(["a", None, "b", "a", "b", pd.NA]), r"no label.*2 of 6 rows \(first: 1, 5\)"),
        (pd.Categorical(["a", None, "b", "a", "b", "a"]), r"no label.*first: 1"),
        (np.ma.masked_equal(Y, 1), "masked"),
        (np.linspace(0, 1, 6), r"0\.2 in row 1.*regression.*RidgeProbe"),
        ([0.0, 1.0, np.inf, 0.0, 1.0, 0.0], r"inf in row 2.*regression"),
        (np.array(Y) + 1j, "Complex data not supported"),
        (np.eye(6), r"1-D.*\(6, 6\).*argmax"),
        ([[0, 1]] * 6, r"1-D.*\(6, 2\).*argmax"),
        (np.reshape(Y, (-1, 1)), r"1-D.*\(6, 1\).*ravel"),
        (pd.DataFrame({"y": Y}), r"1-D.*\(6, 1\).*squeeze"),
        ("abc", "1-D"),
        (scipy.sparse.csr_matrix([Y]), "1-D"),
        ([{1}, {2}, {1}, {2}, {1}, {2}], r"row 0 is a set"),
        ([0, 1, 0], r"X has 6 rows but y has 3 labels"),
        ([], r"X has 6 rows but y has 0 labels"),
        (["only"] * 6, r"one class only \('only'\)"),
    ],
)
def test_labels_that_cannot_be_used(labels, message):
    with pytest.raises(InputError, match=message):
        check_problem(X, labels)


@pytest.mark.parametrize(("rows", "message"), [(1, "X has 1 sample, "), (2, "X has 2 samples, ")])
def test_too_few_samples(rows, message):
    with pytest.raises(InputError, match=message):
        check_problem(X[:rows], Y[:rows])
