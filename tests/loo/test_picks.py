"""An audit that attacks: whom it picks."""

import numpy as np
import pytest

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


def test_the_highest_of_every_kind_are_among_them():
    result, random = made(), np.random.default_rng(1)
    first = result.lsi * random.uniform(0.99, 1.01, 1000)
    first[123] = 0.2 * result.lsi[123]
    alike = random.random(1000)
    picks = attack_picks(result, 24, 0, first=first, alike=alike)
    for reason in (result.lsi, result.leverage, np.abs(first / result.lsi - 1.0), alike):
        assert np.isin(np.argsort(-reason)[:3], picks).all()
    assert 123 in picks


def test_half_are_random_over_all_ranks():
    result = made()
    ranks = np.argsort(np.argsort(result.lsi))
    middle = [np.sum(ranks[attack_picks(result, 24, seed)] < 500) for seed in range(20)]
    assert min(middle) >= 6
    assert attack_picks(result, 24, 0).tolist() == attack_picks(result, 24, 0).tolist()
    assert attack_picks(result, 24, 0).tolist() != attack_picks(result, 24, 1).tolist()


def test_forty_wrong_scores_among_many_are_hit():
    """What strata alone miss: twins whose scores moved far from their first-order values."""
    result = made(20_000)
    first = result.lsi * 1.001
    wrong = np.random.default_rng(2).permutation(20_000)[:40]
    first[wrong] *= 3.0
    assert np.isin(attack_picks(result, 24, 0, first=first), wrong).sum() >= 4


def test_what_is_not_done_or_not_finite_is_passed_over():
    result = made(50)
    result.done[:25] = False
    result.leverage[30:] = np.nan
    result.mean_term[40] = np.nan
    picks = attack_picks(result, 20, 0, first=np.full(50, np.nan))
    assert len(picks) == 20
    assert (picks >= 25).all()
    assert attack_picks(result, 30, 0).tolist() == list(range(25, 50))
