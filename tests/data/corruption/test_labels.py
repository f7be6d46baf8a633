import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsi.data import corrupt_labels
from lsi.errors import InputError


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=60).filter(lambda labels: len(set(labels)) > 1),
    st.floats(0, 0.999),
    st.integers(0, 2**32),
)
def test_exactly_the_rounded_share_changes_and_always_to_another_class(labels, rate, seed):
    labels = np.array(labels)
    result = corrupt_labels(labels, rate, seed)
    assert result.n_corrupted == round(rate * len(labels))
    np.testing.assert_array_equal(result.labels != labels, result.mask)
    np.testing.assert_array_equal(result.original_labels, labels)
    assert set(result.labels) <= set(labels)


def test_the_input_stays_and_the_seed_decides():
    labels = np.arange(100) % 5
    first, again, other = (corrupt_labels(labels, 0.3, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(labels, np.arange(100) % 5)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).any()
    assert first.describe() == {"kind": "symmetric", "rate": 0.3, "seed": 7, "n_corrupted": 30}


def test_every_other_class_is_reached_about_equally():
    labels = np.zeros(40_000, dtype=int)
    labels[:4] = [1, 2, 3, 4]
    result = corrupt_labels(labels, 0.5, seed=1)
    changed = result.labels[result.mask & (labels == 0)]
    counts = np.bincount(changed, minlength=5)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), 0.25, atol=0.02)


def test_labels_of_any_type():
    labels = np.empty(4, dtype=object)
    labels[:] = [("a", 1), 2, ("a", 1), "x"]
    result = corrupt_labels(labels, 0.5, seed=0)
    changed = [before != after for before, after in zip(labels, result.labels, strict=True)]
    assert changed == result.mask.tolist()
    assert sum(changed) == 2


def test_rate_zero_changes_nothing():
    labels = np.array([1, 1, 1])
    assert corrupt_labels(labels, 0.0).n_corrupted == 0


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_rate_out_of_range(rate):
    with pytest.raises(InputError, match="at least 0 and less than 1"):
        corrupt_labels(np.array([0, 1]), rate)


@pytest.mark.parametrize(
    ("labels", "seed", "message"),
    [
        ([1, 1, 1], 0, "only one class"),
        ([0.0, np.nan, 1.0], 0, "1 labels are missing"),
        ([0, 1], -1, "negative"),
    ],
)
def test_labels_that_cannot_be_changed(labels, seed, message):
    with pytest.raises(InputError, match=message):
        corrupt_labels(np.array(labels), 0.5, seed)
