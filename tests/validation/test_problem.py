"""Ids, subsets and the checks of settings."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from lsi.errors import InputError
from lsi.validation.problem import check_problem
from lsi.validation.settings import check_choice, check_positive

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = [0, 1, 0, 1, 0, 1]


def test_ids_are_positions_unless_given():
    assert_array_equal(check_problem(X, Y).sample_id, np.arange(6))
    assert_array_equal(check_problem(X, Y, sample_id=list("fedcba")).sample_id, list("fedcba"))


@pytest.mark.parametrize("index", [list("uvwxyz"), [9, 4, 3, 12, 1, 0], range(10, 16)])
def test_the_index_of_a_frame_becomes_the_ids(index):
    frame, labels = pd.DataFrame(X, index=index), pd.Series(Y, index=index)
    assert check_problem(frame, labels).sample_id.tolist() == list(index)
    assert check_problem(frame, labels.to_numpy()).sample_id.tolist() == list(index)
    assert check_problem(frame, labels, sample_id=range(6)).sample_id.tolist() == list(range(6))


def test_dates_may_be_ids():
    frame = pd.DataFrame(X, index=pd.date_range("2024-02-27", periods=6))
    assert_array_equal(check_problem(frame, Y).sample_id, frame.index.to_numpy())


def test_indexes_that_differ():
    frame = pd.DataFrame(X, index=list("uvwxyz"))
    with pytest.raises(
        InputError, match=r"different indexes \(first at row 1: 'v' and 'w'\).*y.loc\[X.index\]"
    ):
        check_problem(frame, pd.Series(Y, index=list("uwvxyz")))
    with pytest.raises(InputError, match="different indexes"):
        check_problem(pd.DataFrame(X), pd.Series(Y, index=range(1, 7)))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (list("abc"), "3 entries but X has 6 rows"),
        (list("abcabx"), r"not unique; repeated: 'a', 'b'.*reset_index"),
        ([1, 2, 3, 4, 5, None], "missing in rows 5"),
        (np.zeros((6, 1)), "1-D"),
        ([[1], [2], [3], [4], [5], [6]], "1-D"),
        ([{1}, {2}, {3}, {4}, {5}, {6}], "sample_id holds.*row 0 is a set"),
    ],
)
def test_ids_that_cannot_be_used(ids, message):
    with pytest.raises(InputError, match=message):
        check_problem(X, Y, sample_id=ids)


def test_indexes_that_cannot_be_ids():
    with pytest.raises(InputError, match="not unique; repeated: 3"):
        check_problem(pd.DataFrame(X, index=[1, 2, 3, 3, 4, 5]), Y)
    levels = pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]])
    with pytest.raises(InputError, match="several levels.*sample_id="):
        check_problem(pd.DataFrame(X, index=levels), Y)


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        ([4, 0, 2], [4, 0, 2]),
        (range(2, 5), [2, 3, 4]),
        (np.array([5, 1], dtype=np.uint8), [5, 1]),
        (torch.tensor([3]), [3]),
        (pd.Series([1, 2], index=[8, 9]), [1, 2]),
        ([True, False, False, True, False, False], [0, 3]),
        (pd.Series(Y, dtype="boolean"), [1, 3, 5]),
    ],
)
def test_subset(subset, expected):
    positions = check_problem(X, Y, subset=subset).subset
    assert positions.dtype == np.int64
    assert_array_equal(positions, expected)


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ([], "empty"),
        (np.zeros(6, dtype=bool), "empty"),
        ([0, 6, -1], r"outside of X: 6, -1.*between 0 and 5"),
        ([3, 1, 3, 1], r"repeats positions: 1, 3"),
        ([0.0, 1.0], "integer positions.*float64"),
        (["a"], "integer positions"),
        ([True, False], "mask of length 2 but X has 6 rows"),
        (3, "1-D"),
        (slice(3), "1-D"),
        ([[1, 2]], "1-D"),
    ],
)
def test_subsets_that_cannot_be_used(subset, message):
    with pytest.raises(InputError, match=message):
        check_problem(X, Y, subset=subset)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_positive_numbers(value):
    assert check_positive("weight_decay", value) == float(value)
    assert type(check_positive("weight_decay", value)) is float


@pytest.mark.parametrize("value", [-1, 0, np.nan, np.inf, "1", None, True, [1.0]])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(InputError, match="weight_decay must be a finite number greater than 0"):
        check_positive("weight_decay", value)


def test_zero_where_allowed():
    assert check_positive("weight_decay", 0, allow_zero=True) == 0.0
    with pytest.raises(InputError, match="0 or more, got -1"):
        check_positive("weight_decay", -1, allow_zero=True)


def test_choices():
    assert check_choice("posterior", "diag", ("diag", "kron")) == "diag"
    with pytest.raises(
        InputError, match=r"posterior='daig' is not known. Did you mean 'diag'\? Known: 'diag', 'kron'"
    ):
        check_choice("posterior", "daig", ("diag", "kron"))
    with pytest.raises(InputError, match="posterior=3 is not known"):
        check_choice("posterior", 3, ("diag", "kron"))
