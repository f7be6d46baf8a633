import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsi.data import parse_subset, stratified_subset
from lsi.errors import InputError

LABELS = np.array(list("aaaaaabbbc"))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data())
def test_stratified_subset_keeps_every_share_to_within_one(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(1, len(labels)))
    positions = stratified_subset(labels, count, seed=0)
    assert len(set(positions.tolist())) == len(positions) == count
    for label in np.unique(labels):
        share = (labels == label).sum() * count / len(labels)
        assert abs((labels[positions] == label).sum() - share) < 1


@pytest.mark.parametrize(
    ("text", "positions"),
    [("0,7,2", [0, 7, 2]), ("2:5", [2, 3, 4]), ("8:", [8, 9]), (":2, 9", [0, 1, 9]), ("10", list(range(10)))],
)
def test_what_a_value_means(text, positions):
    assert parse_subset(text, LABELS, seed=0).tolist() == positions


def test_a_number_is_drawn_by_seed():
    drawn = [parse_subset("3", LABELS, seed).tolist() for seed in range(8)]
    assert drawn[0] == parse_subset("3", LABELS, 0).tolist()
    assert len({tuple(positions) for positions in drawn}) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "Ask for 1 to 10"),
        ("11", "there are 10 samples"),
        ("3,11", "position 11 is outside"),
        ("-1,2", "position -1 is outside"),
        ("5:99", "goes beyond the data"),
        ("4,4", "position 4 more than once"),
        ("1:4,2", "position 2 more than once"),
        ("5:5", "names no sample"),
        (",", "names no sample"),
        ("first", "cannot be understood"),
        ("", "names no sample"),
    ],
)
def test_values_that_mean_nothing(text, message):
    with pytest.raises(InputError, match=message):
        parse_subset(text, LABELS, seed=0)
