"""`Retrain` against the published protocol run plainly, and against the published implementation's values."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from tests.cases import CASES, POSTERIORS
from tests.oracles import plain_sgd, softmax_probe
from tests.oracles.brute_force import LeaveOneOut

import lsi

# Heads are trained in float32 in another order of sums: 1e-7 of the weights, more of their differences.
RELATIVE, ABSOLUTE = 1e-3, 1e-6
SHORT = lsi.Retrain(epochs=120, lr=0.05)

every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


HEADS = {}  # trained once for all posteriors


def plainly(case, settings, seed, left_out):
    """Return the leave-one-out oracle whose heads are those of stopped training."""
    training = {"epochs": settings.epochs, "lr": settings.lr, "momentum": settings.momentum}
    key = case.name, settings, seed, tuple(left_out)
    heads = HEADS[key] = HEADS.get(key) or {
        i: plain_sgd.train(
            case.features,
            case.target,
            case.n_classes,
            weight_decay=case.weight_decay,
            weight=case.weight,
            left_out=i,
            fit_intercept=case.fit_intercept,
            seed=seed,
            nesterov=settings.nesterov,
            **training,
        )
        for i in [None, *left_out]
    }
    return LeaveOneOut(case.design, case.target, case.n_classes, case.weight_decay, case.weight, heads)


def exact_lsi(case, settings, posterior, left_out):
    """Return the LSI as the mean over the seeds."""
    seeds = range(settings.seed, settings.seed + settings.n_seeds)
    runs = [plainly(case, settings, seed, left_out) for seed in seeds]
    return np.mean([run.lsi(posterior, case.prior_precision, left_out) for run in runs], axis=0)


@every_posterior
@pytest.mark.parametrize(
    "name",
    ["binary", "multiclass", "duplicates", "separable", "N < D", "single-sample class", "no intercept"]
    + ["class weights", "balanced", "strong decay", "constant column", "three samples", "strong prior"],
)
def test_every_value(name, posterior):
    case = CASES[name]
    left_out = np.arange(0, len(case.target), 3)
    scores = case.score(posterior, SHORT, subset=left_out)
    assert_allclose(scores.lsi, exact_lsi(case, SHORT, posterior, left_out), rtol=RELATIVE, atol=ABSOLUTE)


@pytest.mark.parametrize(
    "settings",
    [
        lsi.Retrain(epochs=50, lr=0.1, momentum=0.0, nesterov=False),
        lsi.Retrain(epochs=50, lr=0.1, momentum=0.5, nesterov=False),
        lsi.Retrain(epochs=50, lr=0.1, seed=11),
        lsi.Retrain(epochs=50, lr=0.1, n_seeds=2),
        lsi.Retrain(epochs=1, lr=0.1),
        lsi.Retrain(epochs=2, lr=0.1),
    ],
    ids=["plain", "momentum", "another seed", "two seeds", "one epoch", "two epochs"],
)
def test_every_setting(settings):
    case, left_out = CASES["multiclass"], np.arange(0, 35, 4)
    scores = case.score("diag", settings, subset=left_out)
    assert_allclose(scores.lsi, exact_lsi(case, settings, "diag", left_out), rtol=RELATIVE, atol=ABSOLUTE)


def test_prediction_without_the_sample():
    case = CASES["multiclass"]
    table = case.score("diag", SHORT).to_frame()
    left_out = range(len(case.target))
    heads = plainly(case, SHORT, SHORT.seed, left_out)
    exact = np.array([heads.probability(i) for i in left_out])
    assert_allclose(table["loo_probability"], exact[left_out, case.target], atol=1e-5)
    assert_array_equal(table["loo_prediction"], exact.argmax(1))
    assert table[["leverage", "relative_error"]].isna().all(axis=None)


def test_long_training_reaches_the_optimum():
    # Strong decay makes the optimum attainable by gradient descent, so that both methods must agree.
    case = CASES["strong decay"]
    retrained = case.score("full", lsi.Retrain(epochs=3000, lr=0.05))
    assert_allclose(retrained.lsi, case.score("full").lsi, rtol=5e-3)


def test_training_that_diverges_says_so():
    case = CASES["multiclass"]
    with pytest.raises(lsi.ConvergenceError, match="lr"):
        lsi.score(1e30 * case.features, case.target, method=lsi.Retrain(epochs=20, lr=10.0), audit=False)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    CASES["binary"].score("diag", lsi.Retrain(epochs=1), subset=[0])
    torch.testing.assert_close(torch.rand(2), expected)


def test_plain_training_approaches_the_oracles_optimum():
    # The two oracles stand on different definitions of the objective; this ties them together.
    case = CASES["strong decay"]
    stopped = plain_sgd.train(
        case.features,
        case.target,
        case.n_classes,
        weight_decay=1.0,
        epochs=2000,
        lr=0.05,
        dtype=torch.float64,
    )
    optimum = softmax_probe.fit(case.design, case.target, case.n_classes, 1.0)
    assert_allclose(stopped, optimum, atol=1e-10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"n_seeds": 0},
        {"lr": 0},
        {"lr": np.inf},
        {"momentum": 1},
        {"momentum": 0.0},
        {"lr": -1},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(lsi.InputError):
        lsi.Retrain(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_diag", "linear_full"])
def test_published_values(shared_data, name):
    with np.load(shared_data / f"golden/golden_{name}_n200.npz") as stored:
        golden = {key: stored[key] for key in stored.files}
    method = lsi.Retrain(
        epochs=int(golden["epochs"]),
        lr=float(golden["lr"]),
        momentum=float(golden["mom"]),
        n_seeds=int(golden["n_seeds"]),
    )
    scores = lsi.score(
        golden["X"],
        golden["y"],
        probe=lsi.LinearProbe(weight_decay=float(golden["wd"])),
        posterior=str(golden["laptype"]),
        method=method,
        subset=golden["idx"][0],
        audit=False,
    )
    published = golden["kl"][:, :, 0].mean(0)
    assert spearmanr(scores.lsi, published).statistic >= 0.9999
    error = np.abs(scores.lsi - published)
    assert_array_equal(error > np.maximum(RELATIVE * published, ABSOLUTE), False)


@pytest.mark.parametrize(
    "settings", [{"method": SHORT}, {"probe": lsi.MLPProbe(hidden=(3,)), "method": SHORT}]
)
def test_a_data_frame_is_learnt_from_without_a_warning(settings):
    """From version 3 on, pandas gives its values as read-only arrays, of which torch warns, once."""
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), np.arange(20) % 2
    frame = pd.DataFrame(X, columns=list("abc"), copy=False)
    found = lsi.score(frame, y, subset=[1], audit=False, **settings)
    assert_array_equal(found.lsi, lsi.score(X, y, subset=[1], audit=False, **settings).lsi)
