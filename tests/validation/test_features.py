"""Features at the gate: what is accepted, converted and refused."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal

from lsi.errors import InputError
from lsi.validation.features import check_finite
from lsi.validation.problem import check_problem

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fitting_arrays_are_not_copied(dtype):
    given_features = X.astype(dtype)
    features = check_problem(given_features, Y).features
    assert features is given_features


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float32),
        (np.longdouble, np.float64),
        (np.bool_, np.float32),
        (np.uint8, np.float32),
        (np.int64, np.float32),
        (">f4", np.float32),
        (">f8", np.float64),
    ],
)
def test_other_types_are_converted(dtype, expected):
    given_features = X.astype(dtype)
    features = check_problem(given_features, Y).features
    assert features.dtype == np.dtype(expected)
    assert_array_equal(features, given_features.astype(np.float64))


@pytest.mark.parametrize(
    ("largest", "expected"), [(2**24, np.float32), (2**24 + 1, np.float64), (2**40, np.float32)]
)
def test_integers_become_float32_only_where_exact(largest, expected):
    integers = X.astype(np.int64)
    integers[3, 1] = largest
    features = check_problem(integers, Y).features
    assert features.dtype == expected
    assert_array_equal(features, integers)


@pytest.mark.parametrize("view", [np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1]])
def test_other_layouts_become_contiguous(view):
    features = check_problem(view, Y).features
    assert features.flags.c_contiguous
    assert_array_equal(features, view)


def test_memory_mapped_features_stay_mapped_and_are_read_in_chunks(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.tile(X, (100, 1)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert check_problem(mapped, Y * 100).features is mapped
    sizes = []
    isfinite = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda chunk: sizes.append(chunk.nbytes) or isfinite(chunk))
    check_finite(mapped, chunk_bytes=80)
    assert max(sizes) <= 80
    assert sum(sizes) == mapped.nbytes


def test_bad_rows_are_counted_across_chunks():
    bad = X.copy()
    bad[1, 0], bad[4, 1], bad[5] = np.nan, -np.inf, np.inf
    with pytest.raises(InputError, match=r"3 of 6 rows \(first: 1, 4, 5\).*Remove.*SimpleImputer"):
        check_finite(bad, chunk_bytes=8)


def test_only_the_first_bad_rows_are_named():
    with pytest.raises(InputError, match=r"100 of 100 rows \(first: 0, 1, 2, 3, 4, …\)"):
        check_problem(np.full((100, 2), np.nan), [0, 1] * 50)


def test_overflow_of_wide_floats_is_reported():
    wide = X.astype(np.longdouble)
    wide[2, 0] = np.longdouble(10) ** 400
    if not np.isfinite(wide[2, 0]):
        pytest.skip("long double is no wider than double here")
    with pytest.raises(InputError, match=r"1 of 6 rows \(first: 2\)"):
        check_problem(wide, Y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_tensors(dtype):
    tensor = torch.tensor([[0, 1], [1, 0], [1, 1]]).to(dtype)
    checked = check_problem(tensor, torch.tensor([0, 1, 1]))
    assert checked.features.dtype == np.float32
    assert_array_equal(checked.features, [[0, 1], [1, 0], [1, 1]])
    assert_array_equal(checked.target, [0, 1, 1])


def test_tensor_memory_is_shared_and_gradients_are_dropped():
    tensor = torch.zeros(4, 2, requires_grad=True)
    assert np.shares_memory(check_problem(tensor, [0, 1, 0, 1]).features, tensor.detach().numpy())


def test_frames_of_numbers_and_booleans():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [True, False, True], "c": np.float32([0.5, 1.5, 2.5])})
    assert_array_equal(check_problem(frame, [0, 1, 0]).features, [[1, 1, 0.5], [2, 0, 1.5], [3, 1, 2.5]])


def test_frames_of_nullable_columns():
    frame = pd.DataFrame({"a": pd.array([1, 2, 3], dtype="Int64"), "b": pd.array([True, False, True])})
    features = check_problem(frame, [0, 1, 0]).features
    assert features.dtype == np.float32
    assert_array_equal(features, [[1, 1], [2, 0], [3, 1]])
    frame.loc[1, "a"] = pd.NA
    with pytest.raises(InputError, match=r"1 of 3 rows \(first: 1\)"):
        check_problem(frame, [0, 1, 0])


def test_constant_columns_duplicates_and_single_sample_classes_are_legal():
    checked = check_problem(np.ones((4, 3)), ["a", "a", "b", "c"])
    assert (checked.n_samples, checked.n_features, checked.n_classes) == (4, 3, 3)


MIXED = pd.DataFrame({"good": [1, 2, 3], "city": ["a", "b", "c"], "kind": pd.Categorical([1, 2, 1])})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.arange(6.0), r"2-D.*\(6,\).*reshape\(-1, 1\)"),
        (np.zeros((6, 2, 2)), r"2-D.*\(6, 2, 2\).*reshape\(len\(X\), -1\)"),
        (np.float64(3), r"2-D"),
        (None, r"2-D"),
        (np.zeros((6, 0)), r"0 feature\(s\) \(shape=\(6, 0\)\) while a minimum of 1 is required"),
        (pd.DataFrame(index=range(6)), r"0 feature\(s\)"),
        (np.zeros((0, 3)), r"empty.*\(0, 3\)"),
        ([], "empty"),
        (X + 1j, "Complex data not supported"),
        (X.astype(object), r"object array.*astype\(np.float32\)"),
        (np.array([[1, "a", 2, None]] * 3, dtype=object), r"not numbers.*columns 1, 3"),
        (np.array([["a", "b"]] * 3), r"not numbers.*columns 0, 1"),
        (MIXED, r"not numbers: 'city', 'kind'.*prepare_table"),
        (pd.DataFrame({"when": pd.date_range("2024-01-01", periods=3)}), r"'when'"),
        ([[1, 2], [3]], "same length"),
        (scipy.sparse.csr_matrix(X), r"sparse.*toarray\(\)"),
        (scipy.sparse.coo_array(X), r"sparse.*toarray\(\)"),
        (torch.eye(6).to_sparse(), r"sparse.*to_dense\(\)"),
        (np.ma.masked_less(X, 3), "masked"),
    ],
)
def test_features_that_cannot_be_used(features, message):
    with pytest.raises(InputError, match=message):
        check_problem(features, Y)
