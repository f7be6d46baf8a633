"""Regression in closed form against refitting without the sample."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes
from tests.oracles import ridge

import lsi
from lsi.probes import ridge as ridge_probe

POSTERIORS = ("diag", "kron", "full")
RNG = np.random.default_rng(0)


def made(n, d, t=1, scale=1.0):
    """Return features and targets of a noisy linear relation."""
    rng = np.random.default_rng(n + d + t)
    x = rng.normal(size=(n, d)) * scale
    return x, x @ rng.normal(size=(d, t)) / np.sqrt(d) + rng.normal(size=(n, t))


def diabetes():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    return (x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None]


CASES = {
    "one target": (*made(30, 4), 1e-2, 1.0),
    "three targets": (*made(30, 4, 3), 1e-2, (0.5, 2.0, 10.0)),
    "N < D": (*made(10, 25), 1e-2, 1.0),
    "strong decay": (*made(30, 4), 10.0, 1.0),
    "no decay": (*made(30, 4), 0.0, 1.0),
    "ill-conditioned": (*made(25, 4, scale=10.0 ** np.array([-3.0, 0.0, 1.0, 3.0])), 1e-4, 1.0),
    "precise": (*made(30, 4), 1e-2, 1e4),
}


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


@pytest.mark.parametrize("posterior", ["diag", "full"])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_forty_digit_arithmetic(case, posterior):
    x, y, weight_decay, noise = CASES[case]
    probe = lsi.RidgeProbe(weight_decay=weight_decay, fit_intercept=False, noise_precision=noise)
    picks = [0, 7, 9]
    frame = lsi.score(x, y, probe=probe, posterior=posterior, subset=picks, audit=False).to_frame()
    betas = np.broadcast_to(noise, y.shape[1])
    for row, left_out in zip(frame.itertuples(), picks, strict=True):
        mean, covariance = ridge.exact_terms(x, y, weight_decay, betas, 1.0, posterior, left_out)
        assert_allclose(row.mean_term, float(mean), rtol=1e-9)
        assert_allclose(row.covariance_term, float(covariance), rtol=1e-9)
        error = abs(row.lsi - float(mean + covariance)) / float(mean + covariance)
        assert error <= row.relative_error < 1e-6


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_diabetes_equals_brute_force(posterior):
    x, y = diabetes()
    probe = lsi.RidgeProbe(weight_decay=1e-3, noise_precision=2.0)
    scores = lsi.score(x, y, probe=probe, posterior=posterior, prior_precision=0.3)
    ones, noise = with_ones(x), np.array([2.0])
    picks = range(0, len(x), 5)
    exact = [sum(ridge.terms(ones, y, 1e-3, noise, 0.3, posterior, i)) for i in picks]
    assert_allclose(scores.lsi[picks], exact, rtol=1e-8)
    assert scores.audit.max_relative_error < 1e-8
    assert scores.audit.certificate_coverage == 1.0
    assert scores.to_frame()["relative_error"].max() < 1e-8


@pytest.mark.parametrize("posterior", ["diag", "full"])
def test_five_thousand_rows_equal_brute_force(posterior):
    x, y = made(5000, 12, 2)
    picks = np.arange(0, 5000, 100)
    scores = lsi.score(x, y, probe=lsi.RidgeProbe(), posterior=posterior, subset=picks, audit=False)
    ones = with_ones(x)
    exact = [sum(ridge.terms(ones, y, 1e-4, np.ones(2), 1.0, posterior, i)) for i in picks]
    assert_allclose(scores.lsi, exact, rtol=1e-8)


def test_the_fast_factorisation_equals_the_careful_one(monkeypatch):
    x, y = made(200, 6, 2)
    careful = lsi.score(x, y, probe=lsi.RidgeProbe(noise_precision="estimate"), audit=3)
    monkeypatch.setattr(ridge_probe, "LARGE", 0.0)
    fast = lsi.score(x, y, probe=lsi.RidgeProbe(noise_precision="estimate"), audit=3)
    assert_allclose(fast.lsi, careful.lsi, rtol=1e-10)
    assert fast.audit.max_relative_error < 1e-8


def test_ill_conditioned_features_never_take_the_fast_way(monkeypatch):
    x, y, weight_decay, _ = CASES["ill-conditioned"]
    probe = lsi.RidgeProbe(weight_decay=weight_decay)
    careful = lsi.score(x, y, probe=probe, audit=False).lsi
    monkeypatch.setattr(ridge_probe, "LARGE", 0.0)
    assert_array_equal(lsi.score(x, y, probe=probe, audit=False).lsi, careful)


def test_prediction_residual_and_leverage_are_those_without_the_sample():
    x, y = made(30, 4)
    frame = lsi.score(x, y[:, 0], probe=lsi.RidgeProbe(weight_decay=1e-2), audit=False).to_frame()
    ones, keep = with_ones(x), np.arange(30) != 3
    predicted = ridge.fit(ones[keep], y[keep], 1e-2) @ ones[3]
    assert_allclose(frame["loo_prediction"][3], predicted[0], rtol=1e-10)
    assert_allclose(frame["loo_residual"], y[:, 0] - frame["loo_prediction"], rtol=1e-12)
    hat = np.linalg.solve(ones.T @ ones + 29 * 1e-2 * np.eye(5), ones[3]) @ ones[3]
    assert_allclose(frame["leverage"][3], hat, rtol=1e-10)


def test_the_noise_is_estimated_from_the_residuals():
    x, y = made(400, 5, 2)
    y[:, 1] *= 7.0
    fit = lsi.score(
        x, y, probe=lsi.RidgeProbe(weight_decay=1e-2, noise_precision="estimate"), audit=False
    ).manifest["fit"]
    ones = with_ones(x)
    residual = y - ones @ ridge.fit(ones, y, 1e-2).T
    hat = ones @ np.linalg.solve(ones.T @ ones + 400 * 1e-2 * np.eye(6), ones.T)
    assert_allclose(fit["noise_precision"], (400 - np.trace(hat)) / (residual**2).sum(0), rtol=1e-10)
    assert_allclose(fit["r_squared"], 1 - (residual**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0), rtol=1e-10)


def test_estimated_noise_equals_the_same_noise_given():
    x, y = made(60, 4, 2)
    estimated = lsi.score(x, y, probe=lsi.RidgeProbe(noise_precision="estimate"), audit=False)
    noise = estimated.manifest["fit"]["noise_precision"]
    given = lsi.score(x, y, probe=lsi.RidgeProbe(noise_precision=noise), audit=False)
    assert_allclose(given.lsi, estimated.lsi, rtol=1e-12)


def test_residuals_have_the_spread_that_is_claimed():
    x, y = made(2000, 10)
    frame = lsi.score(x, y, probe=lsi.RidgeProbe(), audit=False).to_frame()
    assert abs(frame["loo_z"].std() - 1) < 0.05
    # Under the model itself the probabilities are uniform; 2,000 of them have a mean within 0.5 ± 0.03.
    assert abs(frame["loo_probability"].mean() - 0.5) < 0.03


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_corrupted_targets_of_diabetes_are_found(posterior, sign):
    from lsi.analysis.detection import detection_quality

    x, y = diabetes()
    wrong = np.zeros(len(x), dtype=bool)
    wrong[np.random.default_rng(1).choice(len(x), round(0.1 * len(x)), replace=False)] = True
    scores = lsi.score(x, y + sign * 3.0 * wrong[:, None], probe=lsi.RidgeProbe(), posterior=posterior)
    assert detection_quality(scores.lsi, wrong)["auroc"] >= 0.9


def test_blocks_do_not_change_a_result(monkeypatch):
    x, y = made(90, 5, 2)
    whole = lsi.score(x, y, probe=lsi.RidgeProbe(), audit=False).lsi
    monkeypatch.setattr("lsi.loo.ridge.ELEMENTS", 1)
    assert_allclose(lsi.score(x, y, probe=lsi.RidgeProbe(), audit=False).lsi, whole, rtol=1e-12)


def test_a_sample_that_alone_holds_a_direction_is_named():
    x = np.vstack([np.zeros((5, 2)), [[0.0, 1.0]], RNG.normal(size=(6, 1)) * [[1.0, 0.0]]])
    probe = lsi.RidgeProbe(weight_decay=0, fit_intercept=False)
    with pytest.raises(lsi.InputError, match="row 5"):
        lsi.score(x, np.arange(12.0), probe=probe)


def test_weights_that_are_not_determined_are_refused():
    x, y = made(10, 25)
    with pytest.raises(lsi.InputError, match="fewer samples than features"):
        lsi.score(x, y, probe=lsi.RidgeProbe(weight_decay=0))


def test_a_perfect_fit_has_no_noise_to_estimate():
    x = RNG.normal(size=(20, 3))
    with pytest.raises(lsi.InputError, match="fits the targets exactly"):
        lsi.score(x, np.zeros(20), probe=lsi.RidgeProbe(noise_precision="estimate"))
    scores = lsi.score(x, np.zeros(20), probe=lsi.RidgeProbe())
    assert np.isfinite(scores.to_frame().select_dtypes("number")).all(axis=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": -1}, "weight_decay"),
        ({"noise_precision": 0.0}, "positive"),
        ({"noise_precision": "estimat"}, "estimate"),
        ({"noise_precision": [1.0, np.nan]}, "positive"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(lsi.InputError, match=message):
        lsi.RidgeProbe(**settings)


def test_as_many_precisions_as_targets():
    x, y = made(20, 3, 2)
    with pytest.raises(lsi.InputError, match="2 targets"):
        lsi.score(x, y, probe=lsi.RidgeProbe(noise_precision=[1.0, 2.0, 3.0]))


def test_stopped_training_is_refused_and_its_ridge_is_not():
    x, y = made(20, 3)
    with pytest.raises(lsi.InputError, match="closed form"):
        lsi.score(x, y, probe=lsi.RidgeProbe(), method="retrain")
    stopped = lsi.Newton.from_early_stopping(lr=0.01, momentum=0.9, epochs=100)
    same = lsi.RidgeProbe(weight_decay=1e-4 + stopped.added_weight_decay)
    direct = lsi.score(x, y, probe=same, audit=False).lsi
    assert_allclose(lsi.score(x, y, probe=lsi.RidgeProbe(), method=stopped, audit=False).lsi, direct)


@pytest.mark.parametrize("posterior", ["diag", "kron"])
def test_features_far_from_zero_with_a_duplicated_column(posterior):
    random = np.random.default_rng(0)
    X = 1e4 + random.normal(size=(60, 4))
    X, y = np.c_[X, X[:, 0]], X[:, 1] - 1e4 + random.normal(size=60)
    scores = lsi.score(X, y, probe=lsi.RidgeProbe(weight_decay=1e-4), posterior=posterior, audit=6)
    assert scores.audit.certificate_coverage == 1.0
    assert scores.to_frame()["relative_error"].max() < 1e-8
    for place in scores.audit.positions[::3]:
        exact = ridge.exact_terms(np.c_[X, np.ones(60)], y[:, None], 1e-4, np.ones(1), 1.0, posterior, place)
        assert_allclose(scores.lsi[place], float(sum(exact)), rtol=1e-8)
