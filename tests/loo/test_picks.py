"""An audit that attacks: whom it picks."""

import numpy as np
import pytest

from lsi.loo.likeness import distances
from lsi.loo.picks import attack_picks
from lsi.loo.result import LooResult


def made(n=1000, seed=0):
    """Return a result with random scores and leverages that have nothing to do with each other."""
    random, result = np.random.default_rng(seed), LooResult.empty(n)
    result.mean_term[:], result.covariance_term[:] = random.lognormal(size=n), 0.0
    result.leverage[:] = random.random(n)
    result.done[:] = True
    return result


@pytest.mark.parametrize("count", [1, 2, 7, 24, 999, 1000, 5000])
def test_as_many_as_asked_for_and_none_twice(count):
    picks = attack_picks(made(), count, 0)
    assert len(picks) == len(set(picks.tolist())) == min(count, 1000)
    assert (np.diff(picks) > 0).all()


def test_the_highest_scores_and_leverages_are_among_them():
    result = made()
    picks = attack_picks(result, 24, 0)
    for reason in (result.lsi, result.leverage):
        assert np.isin(np.argsort(-reason)[:6], picks).all()


def test_the_largest_corrections_and_nearest_neighbours_are_among_them():
    result, random = made(), np.random.default_rng(3)
    corrected, near = random.permutation(1000)[:6].reshape(2, 3)
    result.first_order[:] = result.lsi * random.uniform(0.99, 1.01, 1000)
    result.first_order[corrected] *= np.array([0.1, 3.0, 10.0])
    apart = random.uniform(0.5, 1.5, 1000)
    apart[near] = 1e-3
    picks = attack_picks(result, 24, 0, apart)
    assert np.isin(corrected, picks).all()
    assert np.isin(near, picks).all()


def test_twins_are_near_however_their_other_columns_differ():
    random = np.random.default_rng(4)
    X = random.normal(size=(3000, 30))
    X = np.concatenate([X, np.zeros((3000, 3))], axis=1)
    twins = random.permutation(3000)[:6].reshape(3, 2)
    X[twins[0], 30] = 1.0  # a rare category: alone in its column but otherwise unlike
    X[twins[1]] = X[twins[1][0]] + 1e-3 * random.normal(size=(2, 33))
    X[twins[2]] = X[twins[2][0]]
    X[:, 5] += 1e6  # an offset, a constant and an empty column change nothing
    X[:, 31] = 7.0
    apart = distances(X.astype(np.float32))
    nearest = np.argsort(apart, kind="stable")[:6]
    assert set(nearest) == set(twins.ravel())
    assert np.isfinite(apart).all()


def test_distances_of_few_rows():
    assert distances(np.ones((1, 3))).tolist() == [np.inf]
    assert distances(np.ones((2, 3))).tolist() == [0.0, 0.0]


def test_half_are_random_over_all_ranks():
    result = made()
    ranks = np.argsort(np.argsort(result.lsi))
    middle = [np.sum(ranks[attack_picks(result, 24, seed)] < 500) for seed in range(20)]
    assert min(middle) >= 6
    assert attack_picks(result, 24, 0).tolist() == attack_picks(result, 24, 0).tolist()
    assert attack_picks(result, 24, 0).tolist() != attack_picks(result, 24, 1).tolist()


def test_wrong_scores_of_high_leverage_are_hit():
    """What strata alone miss: twins and rare rows are few, and their scores need not be high."""
    result = made(20_000)
    wrong = np.random.default_rng(2).permutation(20_000)[:40]
    result.leverage[wrong] += 1.0
    assert np.isin(attack_picks(result, 24, 0), wrong).sum() >= 5


def test_what_is_not_done_or_not_finite_is_passed_over():
    result = made(50)
    result.done[:25] = False
    result.leverage[30:] = np.nan
    result.mean_term[40] = np.nan
    picks = attack_picks(result, 20, 0)
    assert len(picks) == 20
    assert (picks >= 25).all()
    assert attack_picks(result, 30, 0).tolist() == list(range(25, 50))


def test_without_leverages_the_highest_scores_attack():
    result = made()
    result.leverage[:] = np.nan
    assert np.isin(np.argsort(-result.lsi)[:12], attack_picks(result, 24, 0)).all()
    result.mean_term[:] = np.nan
    assert len(attack_picks(result, 24, 0)) == 24
