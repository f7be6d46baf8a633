"""`Newton` against leave-one-out by brute force, for every case and posterior."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tests.build import untrained
from tests.cases import CASES, POSTERIORS, REAL, Case, cifar, clusters
from tests.oracles import softmax_probe

import lsi
from lsi.loo.newton.dense import Inverse, block_of, inverses
from lsi.probes.softmax.fit import fit

# The project's promise at tol=1e-3: twice the tolerance, or a billionth of a nat.
RELATIVE, ABSOLUTE = 2e-3, 1e-9
# The oracle's own error, as 50-digit optima of the hardest cases show: below it nothing can be judged.
ORACLE = 1e-10
VIOLATIONS = 0.02  # share of samples whose certificate may be too small

every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)
every_case = pytest.mark.parametrize("name", CASES)


def check_values(scores, case, left_out, posterior):
    """Hold the scores, and the promise that each sample's certificate makes, against brute force."""
    exact = case.oracle.lsi(posterior, case.prior_precision, left_out)
    error = np.abs(scores.lsi - exact)
    certificate = scores.to_frame()["relative_error"].to_numpy()
    assert_array_equal(error > np.maximum(RELATIVE * exact, ABSOLUTE), False)
    broken = error > np.maximum(certificate, ORACLE) * exact
    assert broken.mean() <= VIOLATIONS, (left_out[broken], error[broken] / exact[broken], certificate[broken])
    assert (certificate <= scores.manifest["config"]["method"]["tol"]).all()


@every_posterior
@every_case
def test_every_value_and_certificate(name, posterior):
    case = CASES[name]
    check_values(case.score(posterior), case, np.arange(len(case.target)), posterior)


@every_posterior
@pytest.mark.parametrize("name", REAL)
def test_real_data(name, posterior):
    case = REAL[name]
    left_out = np.arange(0, len(case.target), 5)
    check_values(case.score(posterior, subset=left_out), case, left_out, posterior)


@pytest.fixture(scope="module")
def cifar_case(shared_data):
    return cifar(shared_data)


@pytest.mark.slow
@every_posterior
def test_cifar(cifar_case, posterior):
    # One brute-force optimum of these 4,000 weights takes ten seconds.
    left_out = np.arange(0, 400, 40)
    check_values(cifar_case.score(posterior, subset=left_out), cifar_case, left_out, posterior)


@every_posterior
@pytest.mark.parametrize("name", ["multiclass", "separable", "outliers", "class weights", "N < D"])
def test_float32_products(name, posterior, monkeypatch):
    monkeypatch.setattr("lsi.loo.newton.cost.DOUBLE_LIMIT", 0)  # large problems run their products in float32
    case = CASES[name]
    scores = case.score(posterior)
    assert scores.manifest["fit"]["dtype"] == "float32"
    check_values(scores, case, np.arange(len(case.target)), posterior)


@every_posterior
@pytest.mark.parametrize("name", ["multiclass", "separable", "outliers", "class weights", "N < D"])
def test_many_classes_hold_no_reach(name, posterior, monkeypatch):
    # What no block of a small problem would do: leverages by slabs of one class's rows, steps by a product.
    monkeypatch.setattr("lsi.loo.newton.dense.NARROW", 10**9)
    monkeypatch.setattr("lsi.loo.newton.dense.SLAB", 7)
    case = CASES[name]
    check_values(case.score(posterior), case, np.arange(len(case.target)), posterior)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("contrasts", "features", "holds"),
    [(1, 5, True), (9, 513, True), (29, 513, None), (99, 65, False), (299, 65, False), (999, 3, False)],
)
def test_blocks_fit_their_room(contrasts, features, holds, dtype):
    room = 96 << 20
    size, reach = block_of(contrasts, features, dtype, room)
    assert holds is None or reach == holds
    rows = size * contrasts * features * dtype.itemsize
    assert (rows * contrasts if reach else max(rows, 8 * size * contrasts**2)) <= room
    assert block_of(contrasts, features, dtype, 1)[0] == 1


@cache
def many_rows(spread):
    """Return a case of 9,000 rows, and which of them are left out; its brute force is kept for all tests."""
    case = Case("many", *clusters(15, (4000, 3000, 2000), 40, spread, 0.6), weight_decay=1e-3)
    probable = softmax_probe.probabilities(case.oracle.head(), case.design)
    order = np.argsort(probable[np.arange(9000), case.target])
    return case, np.concatenate([order[:15], order[25::180]])  # the hardest, and some of every kind


@every_posterior
@pytest.mark.parametrize("spread", [2.0, 6.0], ids=["nearly separable", "overlapping"])
@pytest.mark.parametrize("levels", [((2048, True),), ((128, True), (2048, False))], ids=["one level", "two"])
def test_values_from_sampled_rows(posterior, spread, levels, monkeypatch):
    # Where a sweep for every sample is dear, a loose tolerance is met from a few thousand rows.
    monkeypatch.setattr("lsi.loo.newton.engine.SAMPLED_WORK", 0)
    monkeypatch.setattr("lsi.loo.newton.sampled.LEVELS", levels)
    case, left_out = many_rows(spread)
    scores = case.score(posterior, lsi.Newton(tol=1e-2), subset=left_out)
    exact = case.oracle.lsi(posterior, 1.0, left_out)
    error = np.abs(scores.lsi / exact - 1)
    certificate = scores.to_frame()["relative_error"].to_numpy()
    assert (error > np.maximum(certificate, ORACLE)).mean() <= VIOLATIONS
    assert (certificate <= 1e-2).all()
    assert error.max() <= 1e-2


# Mean and covariance term by Newton's method in 50-digit arithmetic.
HUGE_AND_SEPARABLE = {
    "diag": {0: (2.50366e-14, 0.0021635), 2: (1.66145e-11, 0.00517067), 3: (2.30389e-9, 0.229485)},
    "kron": {0: (6.71323e-14, 0.0170965), 2: (4.54062e-11, 0.0164942), 3: (2.45334e-9, 0.290334)},
    "full": {0: (6.64569e-15, 0.00115516), 2: (9.5135e-12, 0.00463389), 3: (1.21303e-9, 0.278751)},
}


@every_posterior
def test_what_rounding_spoils_is_flagged(posterior):
    # Separable features of size 1e6: the whole objective is 1e-12 nats, and curvatures span 1e-86 to 1e12.
    features, target = clusters(6, (12, 10, 8), 4)
    exact = HUGE_AND_SEPARABLE[posterior]
    table = Case("huge and separable", features * 1e6, target).score(posterior, subset=list(exact)).to_frame()
    error = np.abs(table["lsi"].to_numpy() / np.sum(list(exact.values()), axis=1) - 1)
    assert np.isfinite(table["lsi"]).all()
    assert error[0] < 1e-2
    assert (table["relative_error"][error > 1e-2] > 1e-2).all()


@every_case
def test_the_terms_apart(name):
    case = CASES[name]
    scores, left_out = case.score("full"), range(len(case.target))
    exact = np.array([case.oracle.terms("full", case.prior_precision, i) for i in left_out])
    slack = {"rtol": RELATIVE, "atol": RELATIVE * exact.sum(1).max()}
    assert_allclose(scores.mean_term, exact[:, 0], **slack)
    assert_allclose(scores.covariance_term, exact[:, 1], **slack)
    assert_array_equal(scores.lsi, scores.mean_term + scores.covariance_term)


@every_case
def test_prediction_without_the_sample(name):
    case = CASES[name]
    table = case.score("diag").to_frame()
    exact = np.array([case.oracle.probability(i) for i in range(len(case.target))])
    own = exact[np.arange(len(exact)), case.target]
    # A probability follows the weights; those are within half of the LSI's tolerance.
    assert_allclose(table["loo_probability"], own, rtol=1e-3, atol=1e-5)
    top = np.sort(exact, 1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    assert_array_equal(table["loo_prediction"][clear], exact.argmax(1)[clear])


@every_case
def test_leverage(name):
    case = CASES[name]
    leverage = case.score("diag").to_frame()["leverage"]
    exact = [case.oracle.leverage(i) for i in range(len(case.target))]
    # The factor that solves for all samples may be that of the fit's last step but one or two, within
    # about 1 % of the curvature at the optimum (REUSE_RATE of the fit).
    assert_allclose(leverage, exact, rtol=2e-2, atol=1e-12)
    assert ((leverage >= 0) & (leverage < case.n_classes - 1)).all()


@every_posterior
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-5, 1e-7])
def test_every_tolerance_is_kept(tol, posterior):
    case = CASES["outliers"]
    scores = case.score(posterior, lsi.Newton(tol=tol))
    exact = case.oracle.lsi(posterior, case.prior_precision, range(len(case.target)))
    assert_allclose(scores.lsi, exact, rtol=tol)
    assert (scores.to_frame()["relative_error"] <= tol).all()


@every_posterior
def test_without_refinement_the_downdate_ranks_well(posterior):
    # Separable data with weak decay is where a first-order step is at its worst.
    case = REAL["wine"]
    left_out = np.arange(0, len(case.target), 5)
    scores = case.score(posterior, lsi.Newton(tol=None), subset=left_out)
    exact = case.oracle.lsi(posterior, case.prior_precision, left_out)
    assert scores.to_frame()["relative_error"].isna().all()
    ranks = np.corrcoef(scores.lsi.argsort().argsort(), exact.argsort().argsort())[0, 1]
    assert ranks > 0.98
    assert np.median(np.abs(scores.lsi / exact - 1)) < 0.2


@every_posterior
def test_one_pass_falls_back_on_the_slow_solver(posterior):
    case = CASES["outliers"]
    scores = case.score(posterior, lsi.Newton(tol=1e-4, max_passes=1))
    exact = case.oracle.lsi(posterior, case.prior_precision, range(len(case.target)))
    assert_allclose(scores.lsi, exact, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"tol": 0}, {"tol": 1.0}, {"tol": np.nan}, {"max_passes": 0}, {"solver": "x"}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(lsi.InputError):
        lsi.Newton(**wrong)


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize("c", [3, 64, 65, 170, 299])
def test_inverses_are_inverses_in_two_threads(threads, c):
    torch.manual_seed(0)
    root = torch.randn(4, c, c, dtype=torch.float64)
    matrices = torch.eye(c, dtype=torch.float64) + root @ root.mT / c
    found = inverses(matrices)
    # The condition is about five: what is left is rounding.
    np.testing.assert_allclose((matrices @ found).numpy(), np.broadcast_to(np.eye(c), (4, c, c)), atol=1e-12)


# In two threads beside other processes this takes minutes, waiting; that they invert rightly is tested above.
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)], indirect=True)
def test_hundreds_of_classes(threads):
    random, c = np.random.default_rng(0), 180
    y = np.concatenate([np.arange(c), random.integers(0, c, 420)])
    X = random.normal(size=(c, 3))[y] + 0.5 * random.normal(size=(len(y), 3))
    scores = lsi.score(X, y, method=lsi.Newton(solver="dense"), audit=12, subset=range(64))
    assert scores.audit.spearman > 0.999
    assert scores.audit.max_relative_error < 1e-2
    assert scores.audit.certificate_coverage == 1


def test_a_full_posterior_of_features_far_from_zero(monkeypatch):
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 5))
    y = (X[:, 0] + random.logistic(size=400) > 0).astype(int)
    settings = {"posterior": "full", "subset": range(0, 400, 20), "audit": False, "label_noise": False}
    exact = lsi.score(X + 100.0, y, method=lsi.Newton(tol=1e-5), **settings)
    monkeypatch.setattr("lsi.loo.newton.cost.DOUBLE_LIMIT", 0)
    scores = lsi.score(X + 100.0, y, **settings)
    error = np.abs(scores.lsi / exact.lsi - 1.0)
    assert (error <= scores.to_frame()["relative_error"]).all()
    assert lsi.score(X, y, **settings).manifest["fit"]["dtype"] == "float32"


@every_posterior
def test_a_prior_that_double_precision_loses_is_refused(posterior):
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 4))
    X[:, 3] = 0.0
    X[7, 3] = 3.0
    y = np.arange(60) % 2
    settings = {"posterior": posterior, "subset": [7], "audit": False, "label_noise": False}
    with pytest.raises(lsi.InputError, match=r"prior_precision=1e-17 is lost .* at least"):
        lsi.score(X, y, prior_precision=1e-17, **settings)
    assert np.isfinite(lsi.score(X, y, prior_precision=1e-9, **settings).lsi).all()
    X[:, 3] = random.normal(size=60)  # a column that others hold too needs no prior
    assert np.isfinite(lsi.score(X, y, prior_precision=1e-17, **settings).lsi).all()


def test_the_step_of_the_penalty_keeps_its_digits_in_single_precision():
    """It is part of every δ, and nearly all of the lowest scores."""
    features, target = clusters(0, [133, 133, 133], 60, distance=4.0)
    case = Case("apart", features, target, weight_decay=1e-6)
    model, curvature, _ = fit(untrained(case, torch.float32))
    step, against = Inverse.of(model, curvature).decay_step.to(torch.float64), 1e-6 * model.theta
    left = against - model.hessian_product(step) - model.loo_ridge * step
    assert float(left.norm() / against.norm()) < 5e-8  # 5e-7 from the inverse alone
