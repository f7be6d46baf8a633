"""The audit: which samples it leaves out again, and that what it calls exact is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tests.cases import CASES, POSTERIORS
from tests.loo.retrain.test_retrain import SHORT, exact_lsi

import lsi
from lsi.loo.picks import choose

every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 1000))
def test_one_sample_from_each_stratum_of_rank(size, count, seed):
    scores = np.random.default_rng(seed).standard_normal(size)
    picks = choose(scores, count, seed)
    assert_array_equal(picks, np.unique(picks))
    assert len(picks) == min(count, size)
    ranks = np.sort(scores.argsort().argsort()[picks])
    edges = np.linspace(0, size, len(picks) + 1).astype(int)
    assert ((edges[:-1] <= ranks) & (ranks < edges[1:])).all()


def test_the_seed_decides():
    scores = np.random.default_rng(0).standard_normal(100)
    assert_array_equal(choose(scores, 8, 1), choose(scores, 8, 1))
    assert (choose(scores, 8, 1) != choose(scores, 8, 2)).any()
    ties = np.zeros(100)
    assert_array_equal(choose(ties, 8, 1), choose(ties, 8, 1))


@every_posterior
@pytest.mark.parametrize("name", ["multiclass", "outliers", "N < D", "class weights", "separable"])
def test_exact_means_brute_force(name, posterior):
    case = CASES[name]
    # Without refinement the scores themselves are off, so that the audit cannot copy them.
    audit = case.score(posterior, lsi.Newton(tol=None), audit=8).audit
    exact = case.oracle.lsi(posterior, case.prior_precision, audit.positions)
    # Both are float64 optima; their gradients vanish to 1e-10 of the first step or better.
    assert_allclose(audit.exact, exact, rtol=1e-7)


@every_posterior
def test_it_lies_beside_the_scores(posterior):
    case, subset = CASES["multiclass"], np.arange(34, 3, -2)
    scores = case.score(posterior, audit=5, subset=subset, seed=3)
    table = scores.to_frame().set_index("position").loc[scores.audit.positions]
    assert len(table) == 5
    assert set(scores.audit.positions) <= set(subset)
    assert_array_equal(scores.audit.approximate, table["lsi"])
    assert_array_equal(scores.audit.certificate, table["relative_error"])
    assert scores.audit.max_relative_error < 1e-3
    assert case.score(posterior, audit=5, subset=subset, seed=3).audit.positions == scores.audit.positions
    assert case.score(posterior, audit=5, subset=subset, seed=4).audit.positions != scores.audit.positions


def test_it_sees_what_is_wrong():
    # One step cannot follow these outliers; the audit has to say so.
    audit = CASES["outliers"].score("diag", lsi.Newton(tol=None), audit=27).audit
    assert audit.max_relative_error > 0.05


@every_posterior
@pytest.mark.parametrize("n_seeds", [1, 2])
def test_retrained_heads_are_trained_again_plainly(posterior, n_seeds):
    case = CASES["class weights"]
    settings = lsi.Retrain(epochs=SHORT.epochs, lr=SHORT.lr, n_seeds=n_seeds)
    audit = case.score(posterior, settings, audit=3).audit
    exact = exact_lsi(case, settings, posterior, audit.positions)
    assert_allclose(audit.exact, exact, rtol=1e-3, atol=1e-6)
    assert np.isnan(audit.certificate).all()


def test_how_many():
    case = CASES["multiclass"]
    assert case.score(audit=False).audit is None
    assert case.score(audit=0).audit is None
    assert len(case.score(audit=True).audit.positions) == 24
    assert len(case.score(audit=100, subset=[3, 1, 2]).audit.positions) == 3
    assert len(case.score(method=SHORT, audit=True).audit.positions) == 4
