"""Wrong targets: bumps are counted, clean residuals of any tail are not accused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lsi
from lsi.analysis.targets import _log_parts, _Mixture, any_of, target_noise
from lsi.data.corruption.labels import corrupt_targets

CLEAN = {
    "normal": lambda random, n: random.normal(size=n),
    "t3": lambda random, n: random.standard_t(3, n),
    "cauchy": lambda random, n: random.standard_cauchy(n),
    "laplace": lambda random, n: random.laplace(size=n),
    "skewed": lambda random, n: random.lognormal(0, 0.7, n) - 1.0,
    "uneven": lambda random, n: random.normal(size=n) * random.choice([1.0, 4.0], n),
    "flat": lambda random, n: random.uniform(-1, 1, n),
}


@pytest.mark.parametrize("n", [60, 1000, 8000])
@pytest.mark.parametrize("kind", CLEAN)
def test_clean_residuals_are_not_accused(kind, n):
    found = target_noise(CLEAN[kind](np.random.default_rng(5), n))
    assert found.wrong.mean() <= 0.03
    assert (found.wrong > 0.5).mean() <= 0.01
    assert found.low == 0
    assert not found.at_least.any()
    assert 0 <= found.wrong.sum() <= found.high <= n


@pytest.mark.parametrize(("share", "shift"), [(0.05, 6.0), (0.02, 9.0), (0.2, 5.0)])
def test_targets_that_were_moved_are_counted(share, shift):
    random = np.random.default_rng(1)
    truth = random.random(4000) < share
    z = random.normal(size=4000) + shift * truth * random.choice([-1, 1], 4000)
    found = target_noise(7.0 * z)  # whatever the unit
    assert_allclose(found.wrong.sum(), truth.sum(), rtol=0.05)
    assert 0 < found.low <= truth.sum() <= found.high
    assert (found.at_least <= found.wrong).all()
    assert (found.wrong <= found.at_most).all()
    assert (np.diff(found.wrong[np.argsort(np.abs(z))]) >= 0).all()
    assert truth[found.wrong > 0.5].mean() > 0.95


def test_a_heavy_tail_is_possible_but_not_certain():
    random = np.random.default_rng(2)
    truth = random.random(4000) < 0.1
    found = target_noise(random.normal(size=4000) * np.where(truth, 6.0, 1.0))
    assert found.low == 0
    assert found.wrong.sum() < 0.03 * 4000
    assert found.high >= truth.sum()  # if right residuals were normal


def test_densities_by_scipy():
    free, x = np.array([0.3, 1.5, -1.0, 0.2, 1.1]), np.linspace(0, 9, 7)
    sigma, nu, share, width = np.exp(0.3), np.exp(1.5), 0.5 / (1 + np.e), 1 + np.exp(0.2)
    place = sigma * np.sqrt(max(0, 4 - width**2) + np.exp(1.1))
    right, wrong = _log_parts(x, free)
    assert_allclose(np.exp(right), (1 - share) * stats.t.pdf(x, nu, 0, sigma))
    both = sum(stats.t.pdf(x, nu, at, sigma * width) for at in (place, -place))
    assert_allclose(np.exp(wrong), share / 2 * both)


def test_mass_of_a_bump_by_hand():
    # Two narrow normals, far apart: nothing of the second one falls.
    far = np.array([np.log(0.1), np.log(1e3), np.log(0.3 / 0.7), -8.0, np.log(60.0**2)])
    size = np.array([0.1] * 85 + [6.0] * 15)
    gain, mass, share = _Mixture(size).bump(far, size)
    assert_allclose(mass, 0.15, atol=0.01)
    assert_allclose(share, size > 1, atol=1e-6)
    assert gain > 10
    size = np.linspace(0, 3, 50)
    gain, mass, share = _Mixture(size).bump(np.array([0.0, 1.0, -18.0, 0.0, 0.0]), size)
    assert_allclose([gain, mass, *share], 0, atol=1e-4)


def test_few_equal_or_no_residuals():
    for z in (np.zeros(50), np.ones(5), np.empty(0)):
        found = target_noise(z)
        assert found.wrong.sum() == found.low == 0
        assert found.high == len(z)


def test_one_of_several():
    assert_allclose(any_of([np.array([0.5, 0.0]), np.array([0.5, 1.0])]), [0.75, 1.0])


@pytest.mark.parametrize("several", [False, True])
def test_a_run_lists_and_counts(several):
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 3))
    y = X @ random.normal(size=(3, 2 if several else 1)) + 0.2 * random.normal(size=(400, 1))
    change = corrupt_targets(y if several else y[:, 0], 0.08, seed=1)
    scores = lsi.score(X, change.labels, probe=lsi.RidgeProbe(), audit=False)
    found = scores.label_noise
    assert_allclose(found.n_wrong, change.mask.sum(), rtol=0.1)
    assert found.interval[0] <= change.mask.sum() <= found.interval[1]
    assert "targets are estimated to be wrong" in str(found)
    assert found.noise_matrix.empty
    listed = scores.mislabeled(fdr=0.1)
    assert change.mask[listed["sample_id"]].mean() > 0.85
    assert len(scores.mislabeled()) == 400
    assert len(scores.mislabeled(top=7)) == 7
