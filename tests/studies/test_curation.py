import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import lsi
from lsi.errors import InputError
from lsi.probes.softmax.quick_fit import probe_of, quick_fit
from lsi.studies.curves import el2n, logit_margin

PROBE = lsi.LinearProbe(weight_decay=1e-3)


@pytest.fixture(scope="module")
def noisy():
    """Digits with 30 % random labels, and their scores."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)
    train = np.arange(len(y)) % 3 == 0
    X = X / 16.0
    scores = lsi.score(X[train], given[train], probe=PROBE, method=lsi.Newton(tol=None), audit=False)
    test = ~train & (np.arange(len(y)) % 2 == 0)
    return X[train], given[train], X[test], y[test], y[train], scores


def test_the_quick_fit_is_the_optimum_for_practical_purposes():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16.0, y[:300]
    fitted = quick_fit(X, y, np.arange(10), lsi.LinearProbe(weight_decay=1e-2, fit_intercept=False))
    # C is 1 / (N · weight_decay) in scikit-learn's sum form.
    known = LogisticRegression(C=1 / 3.0, fit_intercept=False, tol=1e-8, max_iter=2000).fit(X, y)
    np.testing.assert_allclose(fitted.weight, known.coef_, atol=0.02)
    assert (fitted.predict(X) == known.predict(X)).mean() > 0.99


def test_baselines_by_their_definitions():
    logits = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 1.0]])
    np.testing.assert_allclose(logit_margin(logits, np.array([0, 2])), [1.0, -2.0])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = p - np.eye(3)[[0, 2]]
    np.testing.assert_allclose(el2n(logits, np.array([0, 2])), np.sqrt((error**2).sum(1)))


def test_half_the_samples_chosen_beat_half_at_random(noisy):
    X, y, X_test, y_test, clean, scores = noisy
    shares = (0.3, 0.5)
    curves = lsi.curation_curves(X, y, X_test, y_test, scores, shares=shares, n_seeds=2)
    figures = curves.table.set_index(["order", "share"])
    assert figures.loc[("lsi", 0.5), "gain_low"] > 0
    assert figures.loc[("lsi", 0.5), "mean"] > figures.loc[("random", 0.5), "mean"] + 0.02
    assert (figures["low"] <= figures["mean"]).all()
    assert (figures["mean"] <= figures["high"]).all()
    assert (figures.loc["random", ["gain", "gain_low", "gain_high"]] == 0).all(axis=None)
    assert set(curves.table["order"]) == {"lsi", "random", "margin", "el2n"}
    stored = curves.to_manifest()
    assert stored["metric"] == "accuracy"
    assert stored["shares"] == [0.3, 0.5]
    assert set(stored["curves"]["lsi"]) >= {"mean", "low", "high"}
    assert stored["n_seeds"] == 2
    assert json.loads(json.dumps(stored)) == stored
    wrong = y != clean
    assert wrong[scores.select(0.5)].mean() < 0.3 * wrong.mean()


def test_curves_are_those_of_training_on_what_select_keeps(noisy):
    X, y, X_test, y_test, _, scores = noisy
    curves = lsi.curation_curves(
        X, y, X_test, y_test, scores, shares=(0.4,), n_seeds=2, pool=1.0, orders={"mine": {"order": "right"}}
    )
    kept = scores.select(0.4, order="right")
    model = quick_fit(X[kept], y[kept], np.arange(10), PROBE)
    accuracy = (model.predict(X_test) == y_test).mean()
    mine = curves.table.query("order == 'mine'")["mean"].item()
    np.testing.assert_allclose(mine, accuracy, atol=0.005)  # float32 sums in another order of rows


def test_rounds_score_what_is_left_and_end_where_asked(noisy):
    X, y, _, _, clean, _ = noisy
    settings = {"probe": PROBE, "audit": False, "method": lsi.Newton(tol=None)}
    kept, history = lsi.curate(X, y, keep=0.5, rounds=2, **settings)
    assert len(kept) == round(0.5 * len(X))
    assert [len(scores) for scores in history] == [599, round(599 * (len(kept) / 599) ** 0.5)]
    middle = history[1].to_frame()["position"].to_numpy()
    assert set(kept) <= set(middle)
    again = lsi.score(X[middle], y[middle], **settings)
    np.testing.assert_allclose(history[1].lsi, again.lsi, rtol=1e-6)
    one, _ = lsi.curate(X, y, keep=0.5, rounds=1, **settings)
    direct = lsi.score(X, y, **settings).select(0.5)
    np.testing.assert_array_equal(one, direct)
    assert (y[kept] != clean[kept]).mean() < 0.1


def test_the_probe_comes_from_the_manifest(noisy):
    scores = noisy[-1]
    assert probe_of(scores.manifest) == PROBE
    assert probe_of({}) == lsi.LinearProbe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": (0.5, 1.0)}, "shares must lie"),
        ({"n_seeds": 1}, "at least 2"),
        ({"pool": 0.0}, "pool must lie"),
        ({"baselines": ("marginal",)}, "Did you mean 'margin'"),
        ({"orders": {"random": {}}}, "a baseline has this name"),
        ({"X_test": np.ones((3, 5)), "y_test": [1, 2, 3]}, "X_test has 5 features"),
        ({"y_test": np.full(599, 11)}, "classes that y lacks"),
        ({"y_test": [1]}, "has 1 labels"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(noisy, change, message):
    X, y, X_test, y_test, _, scores = noisy
    arguments = {"X_test": X_test, "y_test": y_test, **change}
    with pytest.raises(InputError, match=message):
        lsi.curation_curves(X, y, scores=scores, **arguments)


def test_scores_of_other_data_are_refused(noisy):
    X, y, X_test, y_test, _, scores = noisy
    with pytest.raises(InputError, match="Score every"):
        lsi.curation_curves(X[:-1], y[:-1], X_test, y_test, scores)
    with pytest.raises(InputError, match="rounds"):
        lsi.curate(X, y, keep=0.5, rounds=0)
    with pytest.raises(InputError, match="keep must be"):
        lsi.curate(X, y, keep=2.0)
