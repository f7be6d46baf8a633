import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.tables import random_table, scored, table

from lsi.analysis.selection import ORDERS, select, usefulness
from lsi.analysis.view import view
from lsi.errors import InputError


def slow_select(priority, codes, count, balanced):
    """One sample at a time, from the class whose turn it is."""
    held, size = np.zeros(codes.max() + 1), np.bincount(codes)
    left = {c: sorted(np.flatnonzero(codes == c), key=lambda i: -priority[i]) for c in range(len(size))}
    kept = []
    for _ in range(count):
        turn = {c: held[c] + 1 if balanced is True else (held[c] + 0.5) / size[c] for c in left if left[c]}
        first = min(turn.values())
        c = max((c for c in turn if turn[c] == first), key=lambda c: priority[left[c][0]])
        kept.append(left[c].pop(0))
        held[c] += 1
    return sorted(kept)


@pytest.mark.parametrize("balanced", [True, "proportional"])
@pytest.mark.parametrize("count", [1, 7, 20, 45, 60])
def test_classes_take_turns(balanced, count):
    rows = random_table(60, 4)
    rows["label"] = np.where(rows.index < 30, 0, rows["label"])  # one large class
    rows["loo_prediction"] = rows["label"]
    codes = view(scored(rows)).codes
    found = select(scored(rows), count, order="largest", balanced=balanced)
    assert found.tolist() == slow_select(rows["lsi"].to_numpy(), codes, count, balanced)


@given(
    keep=st.integers(1, 60),
    order=st.sampled_from(ORDERS),
    balanced=st.sampled_from([True, False, "proportional"]),
    drop=st.sampled_from([False, True, 7]),
)
def test_exactly_as_many_as_asked_for_and_every_budget_holds_the_smaller_ones(keep, order, balanced, drop):
    rows = random_table(60, 3)
    found = select(scored(rows), keep, order=order, balanced=balanced, drop_mislabeled=drop)
    assert len(found) == keep
    assert (np.diff(found) > 0).all()
    larger = select(scored(rows), min(60, keep + 1), order=order, balanced=balanced, drop_mislabeled=drop)
    assert set(found) <= set(larger)


def test_plain_orders():
    rows = table([0.4, 0.1, 0.3, 0.2], list("aaab"), probability=[0.1, 0.9, 0.8, 0.5])
    plain = {"balanced": False}
    assert select(scored(rows), 2, order="largest", **plain).tolist() == [0, 2]
    assert select(scored(rows), 2, order="smallest", **plain).tolist() == [1, 3]
    assert select(scored(rows), 2, order="right", **plain).tolist() == [1, 2]
    assert select(scored(rows), 0.5, order="largest", **plain).tolist() == [0, 2]
    seeds = {tuple(select(scored(rows), 2, order="random", seed=seed, **plain)) for seed in range(20)}
    assert len(seeds) > 2


def test_usefulness_is_what_it_says():
    rows = table([0.4, 0.1, 0.3, 0.2], list("aabb"), probability=[0.2, 0.9, 0.5, 0.6])
    np.testing.assert_allclose(
        usefulness(view(scored(rows))),
        [0.2 * np.sqrt(0.2 * 1.0), 0.9 * np.sqrt(0.9 * 0.5), 0.5 * np.sqrt(0.5), 0.6 * np.sqrt(0.6 * 0.5)],
    )
    calibrated = view(scored(rows.assign(wrong_probability=[0.4, 0.0, 0.9, 0.6])))
    expected = [0.2 * np.sqrt(0.2), np.sqrt(0.9 * 0.5), -0.8, -0.2]
    np.testing.assert_allclose(usefulness(calibrated), expected)


def test_suspected_labels_go_first_and_the_most_doubtful_before_them():
    wrong = [0.9, 0.0, 0.6, 0.1, 0.7, 0.2]
    rows = table([9, 1, 8, 2, 7, 3.0], list("ababab"), wrong_probability=wrong)
    assert select(scored(rows), drop_mislabeled=True).tolist() == [1, 3, 5]
    assert select(scored(rows), 4, order="largest", drop_mislabeled=True).tolist() == [1, 2, 3, 5]
    assert select(scored(rows), 5, order="largest", drop_mislabeled=True).tolist() == [1, 2, 3, 4, 5]
    assert select(scored(rows), drop_mislabeled=1).tolist() == [1, 2, 3, 4, 5]
    assert select(scored(rows), drop_mislabeled=0.34).tolist() == [1, 2, 3, 5]


def test_no_class_is_filled_up_with_labels_that_are_likely_wrong():
    rows = table(np.arange(8.0), list("aaaabbbb"), wrong_probability=[0, 0, 0, 0, 0, 0.9, 0.8, 0.9])
    assert select(scored(rows), 5).tolist() == [0, 1, 2, 3, 4]
    assert select(scored(rows), 6).tolist() == [0, 1, 2, 3, 4, 6]


def test_one_of_each_redundancy_group_stays():
    rows = table([1, 5, 3, 2, 4.0], list("aaabb"), redundancy_group=[0, 0, 1, 1, -1])
    assert select(scored(rows), drop_redundant=True).tolist() == [1, 2, 4]
    with pytest.raises(InputError, match="no redundancy groups"):
        select(scored(random_table()), 0.5, drop_redundant=True)


def test_mixed_budgets_take_from_both_ends():
    rows = table(np.arange(10.0), ["a"] * 10)
    found = select(scored(rows), 5, order={"largest": 0.6, "smallest": 0.4})
    assert found.tolist() == [0, 1, 7, 8, 9]
    everything = select(scored(rows), 10, order={"largest": 0.6, "smallest": 0.4})
    assert everything.tolist() == list(range(10))


def test_a_small_class_gives_all_it_has():
    rows = table(np.arange(12.0), ["a"] * 10 + ["b"] * 2)
    kept = select(scored(rows), 8)
    assert {10, 11} <= set(kept)
    assert len(kept) == 8


def test_other_tasks_have_no_classes_to_balance():
    rows = table(np.arange(6.0), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert select(scored(rows, task="regression"), 2, order="largest").tolist() == [4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "keep is missing and nothing else"),
        ({"keep": 0}, "keep must be a share"),
        ({"keep": 1.5}, "keep must be a share"),
        ({"keep": 61}, "whole number from 1 to 60"),
        ({"keep": True}, "keep must be a share"),
        ({"keep": 0.5, "order": "larges"}, "Did you mean 'largest'"),
        ({"keep": 0.5, "order": {"largest": 0.5}}, "add up to 1"),
        ({"keep": 0.5, "order": {"largest": 1.5, "smallest": -0.5}}, "between 0 and 1"),
        ({"keep": 0.5, "balanced": "equal"}, "balanced must be"),
        ({"keep": 0.5, "drop_mislabeled": 2.0}, "drop_mislabeled must be"),
    ],
)
def test_what_cannot_be_asked_for(arguments, message):
    with pytest.raises(InputError, match=message):
        select(scored(random_table(60)), **arguments)


def test_nothing_left_is_said():
    with pytest.raises(InputError, match="nothing would be left"):
        select(scored(table([1.0, 2.0], list("ab"), wrong_probability=[0.9, 0.9])), drop_mislabeled=True)
