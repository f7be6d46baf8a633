"""Numerical hardship: never a NaN, never a wrong score without a flag, or a clear refusal."""

import numpy as np
import pytest
from tests.cases import clusters
from tests.oracles.brute_force import LeaveOneOut
from tests.oracles.exact_logistic import ExactLogistic

import lsi
from lsi.errors import InputError, LsiError

GROUND = clusters(3, (12, 10), 4)
X, Y = GROUND
SPLIT = clusters(5, (10, 10), 4, spread=0.1, distance=4.0)
HALVES = np.arange(20) % 2


def case(x, y, weight_decay=1e-3):
    return np.asarray(x), np.asarray(y), weight_decay


CASES = {
    "duplicated columns": case(np.column_stack([X, X, X[:, :1]]), Y),
    "near-constant columns": case(1 + 1e-7 * X, Y),
    "constant features": case(np.ones((20, 3)), HALVES),
    "features of zero": case(np.zeros((20, 3)), HALVES),
    "tiny features": case(1e-30 * X, Y),
    "identical rows with two labels": case(np.repeat(X[:2], 10, axis=0), HALVES),
    "separable": case(*SPLIT, 1e-6),
    "separable, hardly any decay": case(*SPLIT, 1e-10),
    "N = 3, D = 1": case([[0.0], [1.0], [2.0]], [0, 1, 1], 1e-4),
    "N = 3, three classes": case([[0.0], [1.0], [2.0]], [0, 1, 2], 1e-4),
    "K > N": case(*clusters(8, (4, 4, 4), 40), 1e-4),
    "float16": case(X.astype(np.float16), Y),
    "huge decay": case(X, Y, 1e6),
    "1 : 60": case(*clusters(11, (60, 1), 3), 1e-4),
    "a class for each sample": case(np.random.default_rng(0).normal(size=(20, 4)), np.arange(20), 1e-4),
}


def oracle_of(x, y, weight_decay):
    design = np.column_stack([np.asarray(x, dtype=np.float64), np.ones(len(x))])
    return LeaveOneOut(design, y, int(y.max()) + 1, weight_decay, np.ones(len(x)))


def assert_right_or_flagged(scores, oracle, posterior, positions):
    """Every score is certified to the tolerance of 1e-3, and is within 0.2 % of brute force."""
    frame = scores.to_frame()
    assert np.isfinite(frame["lsi"]).all()
    assert np.isfinite(frame["loo_probability"]).all()
    assert (frame["relative_error"] <= 1e-3).all()
    exact = oracle.lsi(posterior, 1.0, positions)
    assert (np.abs(scores.lsi[positions] / exact - 1) <= 2e-3).all()


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("name", CASES)
def test_hardship(name, posterior):
    x, y, decay = CASES[name]
    scores = lsi.score(
        x, y, probe=lsi.LinearProbe(decay), posterior=posterior, method=lsi.Newton(tol=1e-3), audit=False
    )
    positions = np.unique(np.linspace(0, len(y) - 1, 4).astype(int)).tolist()
    assert_right_or_flagged(scores, oracle_of(x, y, decay), posterior, positions)


# Probabilities round to one here, so that double precision cannot tell what is right.
BEYOND_DOUBLE = {
    "scale 1e4": case(1e4 * X, Y),
    "scale 1e5": case(1e5 * X, Y),
    "one feature of scale 1e6": case(X * [1, 1, 1, 1e6], Y),
    "separable, decay of 1e-12": case(*SPLIT, 1e-12),
    "separable, decay of 1e-15": case(*SPLIT, 1e-15),
}
EXACT = {name: ExactLogistic(*BEYOND_DOUBLE[name]) for name in BEYOND_DOUBLE}


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("name", BEYOND_DOUBLE)
def test_certificates_hold_where_double_precision_does_not(name, posterior):
    x, y, decay = BEYOND_DOUBLE[name]
    probe, method = lsi.LinearProbe(decay), lsi.Newton(tol=1e-3)
    scores = lsi.score(x, y, probe=probe, posterior=posterior, method=method, subset=[0, 11], audit=False)
    exact = np.array([EXACT[name].lsi(posterior, position) for position in (0, 11)])
    error = np.abs(scores.lsi / exact - 1)
    certificate = scores.to_frame()["relative_error"]
    assert (error <= certificate).all()
    assert (certificate <= 1e-3).all()


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("powers", [(-8, -3, 3, 8), (-3, 0, 0, 6)])
def test_badly_scaled_features_give_certified_scores(posterior, powers):
    scores = lsi.score(X * 10.0 ** np.array(powers), Y, posterior=posterior, audit=False)
    assert np.isfinite(scores.lsi).all()
    assert (scores.lsi > 0).all()
    assert (scores.to_frame()["relative_error"] <= lsi.Newton().tol).all()


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize(
    "x", [1e160 * X, (1e25 * X).astype(np.float32), np.where(np.arange(22)[:, None], X, 1e155)]
)
def test_features_whose_squares_overflow_are_refused(x, posterior):
    with pytest.raises(InputError, match="squares are infinite as"):
        lsi.score(x, Y, posterior=posterior)


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("decay", [0.0, 1e-300])
def test_without_weight_decay_the_cure_is_named(posterior, decay):
    with pytest.raises(LsiError, match="weight_decay|Standardise"):
        lsi.score(*SPLIT, probe=lsi.LinearProbe(decay), posterior=posterior)


@pytest.mark.parametrize("posterior", ["diag", "kron"])
def test_one_sample_among_ten_thousand(posterior):
    generator = np.random.default_rng(1)
    x = np.concatenate([generator.normal(size=(10_000, 3)), [[2.0, 2.0, 0.0]]])
    y = np.r_[np.zeros(10_000, dtype=int), 1]
    positions = [0, 5_000, 10_000]
    scores = lsi.score(x, y, posterior=posterior, subset=positions, audit=False, method=lsi.Newton(tol=1e-3))
    exact = oracle_of(x, y, 1e-4).lsi(posterior, 1.0, positions)
    assert (np.abs(scores.lsi / exact - 1) <= 2e-3).all()
    assert (scores.to_frame()["relative_error"] <= 1e-3).all()
    assert np.argmax(scores.lsi) == 2


@pytest.mark.parametrize("solver", ["auto", "blocks"])
def test_three_hundred_classes_with_one_sample_each(solver):
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(300, 4)), np.arange(300)
    method = lsi.Newton(tol=1e-2, solver=solver)
    scores = lsi.score(x, y, method=method, subset=range(0, 300, 60), audit=2)
    assert np.isfinite(scores.lsi).all()
    assert (scores.lsi > 0).all()
    assert np.isfinite(scores.to_frame()["relative_error"]).all()
    assert scores.audit.max_relative_error < 0.02


def test_mixed_subnormal_and_negative_zero_features():
    x = X.copy()
    x[::2, 0], x[1::2, 0] = 5e-324, -0.0
    scores = lsi.score(x, Y, audit=False)
    np.testing.assert_allclose(scores.lsi, lsi.score(X * [0, 1, 1, 1], Y, audit=False).lsi, rtol=1e-9)


def test_a_regression_of_huge_targets_is_right():
    scores = lsi.score(X, 1e12 * X[:, 0], probe=lsi.RidgeProbe(weight_decay=1e-3), audit=5)
    assert np.isfinite(scores.lsi).all()
    assert (scores.to_frame()["relative_error"] < 1e-6).all()
    assert scores.audit.certificate_coverage == 1.0


@pytest.mark.parametrize("x", [1e-200 * X, (1e-30 * X).astype(np.float32)])
def test_features_whose_squares_vanish_are_refused(x):
    with pytest.raises(InputError, match="their squares are zero as float"):
        lsi.score(x, Y)


def with_a_long_row(length):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 6)), random.integers(0, 3, 300)
    x[7] *= length
    return x, y


# LSI of the long row in 80-bit floating point.
LONG_ROWS = {1e4: 13.8998292707290, 1e5: 18.5049970893323, 1e6: 23.1101670988193, 1e7: 27.7153374434972}


@pytest.mark.parametrize("length", LONG_ROWS)
def test_a_long_row_is_right_within_its_certificate(length):
    """Without a row of 1e7, 5e-13 of the Kronecker factor A remain, and the logarithm of that lost digits."""
    x, y = with_a_long_row(length)
    scores = lsi.score(x, y, posterior="kron", subset=[7], audit=False)
    assert abs(scores.lsi[0] / LONG_ROWS[length] - 1) <= scores.to_frame()["relative_error"][0] <= 1e-2


def test_a_row_that_double_precision_cannot_do_without_is_refused():
    x, y = with_a_long_row(1e8)
    with pytest.raises(InputError, match="a row of X is as long as .*Standardise the features, clip"):
        lsi.score(x, y, posterior="kron")
