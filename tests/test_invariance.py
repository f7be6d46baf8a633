"""What must not change the scores: order, names, copies, coordinates, precision of storage, block sizes."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import ortho_group
from tests.build import retrain_engine
from tests.cases import CASES, POSTERIORS, Case, clusters

import lsi
from lsi.loo.newton.engine import NewtonEngine

# Sums in another order differ by 1e-15 each; the optimum's distance from rounding by less than 1e-10 nats.
SAME = {"rtol": 1e-6, "atol": 1e-12}
# Where one run may take a pass more than the other, both are within the tolerance asked for.
TOL = 1e-6
CERTIFIED = {"rtol": 2 * TOL, "atol": 1e-12}
METHODS = [lsi.Newton(tol=TOL), lsi.Retrain(epochs=40, lr=0.05)]

every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
every_method = pytest.mark.parametrize("method", METHODS, ids=["newton", "retrain"])
small_problems = st.builds(
    lambda seed, classes, columns: Case("random", *clusters(seed, (5,) * classes, columns)),
    st.integers(0, 10_000),
    st.integers(2, 3),
    st.integers(1, 4),
)


def tolerance(method):
    """Return how far two runs may lie apart: training in float32 rounds to 1e-7 of weights of size one."""
    return CERTIFIED if isinstance(method, lsi.Newton) else {"rtol": 1e-4, "atol": 1e-7}


def score(case, posterior, method, **changes):
    """Return the scores of a case with some of its data replaced."""
    given = {"features": case.features, "target": case.target, "probe": case.probe} | changes
    return lsi.score(
        given.pop("features"), given.pop("target"), posterior=posterior, method=method, audit=False, **given
    )


@cache
def in_a_column(posterior):
    """Return the scores of the same case with its intercept as a column of ones."""
    case = CASES["multiclass"]
    return score(case, posterior, METHODS[0], features=case.design, probe=lsi.LinearProbe(1e-3, False))


@cache
def plain_scores(posterior, method):
    """Return the scores of the case that is looked at from several sides."""
    return score(CASES["multiclass"], posterior, method)


@every_posterior
@every_method
@given(case=small_problems, seed=st.integers(0, 100))
@settings(max_examples=8)
def test_sample_permutation(posterior, method, case, seed):
    order = np.random.default_rng(seed).permutation(len(case.target))
    plain = score(case, posterior, method)
    shuffled = score(case, posterior, method, features=case.features[order], target=case.target[order])
    assert_allclose(shuffled.lsi, plain.lsi[order], **tolerance(method))


@every_posterior
@every_method
def test_exact_duplicates_get_equal_scores(posterior, method):
    case = CASES["duplicates"]
    values = score(case, posterior, method).lsi
    _, group = np.unique(np.column_stack([case.features, case.target]), axis=0, return_inverse=True)
    counts = np.bincount(group.ravel())
    assert (counts > 1).any()
    for which in np.flatnonzero(counts > 1):
        same = values[group.ravel() == which]
        assert_allclose(same, same[0], **tolerance(method))


@every_posterior
@every_method
@given(seed=st.integers(0, 1000), size=st.integers(1, 35))
@settings(max_examples=6)
def test_subset_and_its_order(posterior, method, seed, size):
    case = CASES["multiclass"]
    subset = np.random.default_rng(seed).permutation(35)[:size]
    part = score(case, posterior, method, subset=subset)
    assert_array_equal(part.to_frame()["position"], subset)
    assert_allclose(part.lsi, plain_scores(posterior, method).lsi[subset], **tolerance(method))


@every_posterior
@given(case=small_problems, seed=st.integers(0, 100))
@settings(max_examples=8)
def test_relabelling_of_classes(posterior, case, seed):
    # Stopped training starts class by class from random weights, so that only the optimum is invariant.
    names = np.random.default_rng(seed).permutation(["owl", "cat", "dog", "ant"])[: case.n_classes]
    plain, named = (
        score(case, posterior, METHODS[0], target=target) for target in (case.target, names[case.target])
    )
    assert_allclose(named.lsi, plain.lsi, **CERTIFIED)
    assert_allclose(named.to_frame()["loo_probability"], plain.to_frame()["loo_probability"], rtol=1e-5)
    assert_array_equal(
        named.to_frame()["loo_prediction"], names[plain.to_frame()["loo_prediction"].to_numpy()]
    )


@every_posterior
@every_method
def test_a_column_of_ones_is_an_intercept(posterior, method):
    case = CASES["multiclass"]
    intercept = plain_scores(posterior, method)
    column = score(
        case, posterior, method, features=case.design, probe=lsi.LinearProbe(case.weight_decay, False)
    )
    if isinstance(method, lsi.Retrain):
        # torch.nn.Linear draws a weight column and a bias from different places of the random stream:
        # the heads start elsewhere, and stopped training remembers where it started.
        assert not np.allclose(column.lsi, intercept.lsi, rtol=1e-3)
    else:
        assert_allclose(column.lsi, intercept.lsi, **SAME)


@pytest.mark.parametrize("posterior", ["kron", "full"])
@given(case=small_problems, seed=st.integers(0, 100))
@settings(max_examples=8)
def test_rotation_of_features(posterior, case, seed):
    size = case.features.shape[1]
    rotation = ortho_group.rvs(size, random_state=seed) if size > 1 else -np.eye(1)
    rotated = score(case, posterior, METHODS[0], features=case.features @ rotation)
    assert_allclose(rotated.lsi, score(case, posterior, METHODS[0]).lsi, **CERTIFIED)


def test_rotation_of_features_changes_a_diagonal():
    # Otherwise the test above could not fail.
    case, rotation = CASES["multiclass"], ortho_group.rvs(5, random_state=0)
    rotated = score(case, "diag", METHODS[0], features=case.features @ rotation)
    assert not np.allclose(rotated.lsi, plain_scores("diag", METHODS[0]).lsi, rtol=1e-2)


@every_posterior
@every_method
def test_type_of_the_features(posterior, method):
    case = CASES["multiclass"]
    half = case.features.astype(np.float16)
    plain = score(case, posterior, method, features=half)
    for dtype in (np.float32, np.float64):
        assert_allclose(
            score(case, posterior, method, features=half.astype(dtype)).lsi, plain.lsi, **tolerance(method)
        )
    fortran = np.asfortranarray(half.astype(np.float32))
    assert_array_equal(score(case, posterior, method, features=fortran).lsi, plain.lsi)


@every_posterior
def test_integers(posterior):
    case = CASES["multiclass"]
    whole = np.round(10 * case.features).astype(np.int32)
    values = [
        score(case, posterior, METHODS[0], features=given).lsi for given in (whole, whole.astype(float))
    ]
    assert_allclose(*values, **CERTIFIED)


@every_posterior
@pytest.mark.parametrize("size", [1, 3, 34, 1000])
def test_block_size(posterior, size, monkeypatch):
    case, method = CASES["multiclass"], METHODS[0]
    plain = plain_scores(posterior, method)
    monkeypatch.setattr(NewtonEngine, "block_size", lambda self: size)
    assert_allclose(score(case, posterior, method).lsi, plain.lsi, **tolerance(method))


@every_posterior
@pytest.mark.parametrize("size", [1, 3, 34, 1000])
def test_block_size_of_retraining(posterior, size):
    case, method = CASES["multiclass"], METHODS[1]
    plain = plain_scores(posterior, method)
    found = retrain_engine(case, posterior, method, block=size).run(torch.arange(len(case.target)))
    assert_allclose(found.lsi, plain.lsi, **tolerance(method))


@every_posterior
@given(power=st.integers(-8, 8))
@settings(max_examples=6)
def test_units_of_the_features(posterior, power):
    # Features times s with weight decay and prior precision times s² describe the same weights times 1/s.
    # The intercept's column is scaled too, so it has to be given as a column.
    case, factor = CASES["multiclass"], 2.0**power
    second = score(
        case,
        posterior,
        METHODS[0],
        features=factor * case.design,
        probe=lsi.LinearProbe(1e-3 * factor**2, False),
        prior_precision=factor**2,
    )
    assert_allclose(second.lsi, in_a_column(posterior).lsi, **CERTIFIED)


@every_posterior
@given(case=small_problems)
@settings(max_examples=8)
def test_both_terms_are_nats_and_not_negative(posterior, case):
    table = score(case, posterior, lsi.Newton()).to_frame()
    assert (table[["mean_term", "covariance_term"]] >= 0).all(axis=None)
    assert np.isfinite(table["lsi"]).all()


def test_an_optimum_without_weight_decay_is_refused():
    case = CASES["separable"]
    with pytest.raises(lsi.InputError, match="weight_decay"):
        score(case, "diag", "newton", probe=lsi.LinearProbe(weight_decay=0.0))
    stopped = score(case, "diag", METHODS[1], probe=lsi.LinearProbe(weight_decay=0.0))
    assert np.isfinite(stopped.lsi).all()
