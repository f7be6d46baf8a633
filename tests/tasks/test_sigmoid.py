"""Sigmoid heads, one or several, against refitting without the sample."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tests.oracles import sigmoid_probe

import lsi

POSTERIORS = ("diag", "kron", "full")


def made(n=40, d=4, labels=3, seed=0, spread=1.0):
    """Return features and labels that a noisy linear relation gives."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, (x @ rng.normal(size=(d, labels)) * spread + rng.normal(size=(n, labels)) > 0.3).astype(int)


def _rare():
    x, y = made(seed=2)
    y[:, 0] = 0
    y[5, 0] = 1
    return x, y


def _empty():
    x, y = made(seed=4)
    y[:, 1] = 0
    return x, y


def _separable():
    x, _ = made(seed=3, labels=1)
    return x, (x[:, :2] > 0).astype(int)


CASES = {
    "plain": (*made(), 1e-2),
    "strong decay": (*made(), 1.0),
    "separable": (*_separable(), 1e-4),
    "a rare label": (*_rare(), 1e-2),
    "a label that no sample has": (*_empty(), 1e-2),
    "N < D": (*made(n=14, d=25), 1e-2),
}
PICKS = [5, 0, 13]


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("case", CASES)
def test_every_head_equals_brute_force(case, posterior):
    x, y, weight_decay = CASES[case]
    probe, method = lsi.SigmoidProbe(weight_decay=weight_decay), lsi.Newton(tol=1e-3)
    frame = lsi.score(
        x, y, probe=probe, posterior=posterior, method=method, subset=PICKS, prior_precision=0.7, audit=False
    ).to_frame()
    for row, left_out in enumerate(PICKS):
        exact = sigmoid_probe.lsi(with_ones(x), y, weight_decay, 0.7, posterior, left_out)
        heads = frame.loc[row, [f"lsi_{k}" for k in range(y.shape[1])]].to_numpy(dtype=float)
        assert_allclose(heads, exact, rtol=1e-3)
        error = abs(frame["lsi"][row] - exact.sum()) / exact.sum()
        assert error <= frame["relative_error"][row] <= 1e-3


def test_probabilities_and_predictions_are_those_without_the_sample():
    x, y, weight_decay = CASES["plain"]
    probe = lsi.SigmoidProbe(weight_decay=weight_decay)
    frame = lsi.score(x, y, probe=probe, method=lsi.Newton(tol=1e-4), subset=PICKS, audit=False).to_frame()
    for row, left_out in enumerate(PICKS):
        exact = sigmoid_probe.probability(with_ones(x), y, weight_decay, left_out)
        found = frame.loc[row, [f"loo_probability_{k}" for k in range(3)]].to_numpy(dtype=float)
        assert_allclose(found, exact, atol=1e-4)
        assert_allclose(frame["loo_probability"][row], exact.prod(), atol=1e-4)
        likely = np.where(exact >= 0.5, y[left_out], 1 - y[left_out])
        assert frame["loo_prediction"][row] == (", ".join(str(k) for k in np.flatnonzero(likely)) or "(none)")


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_two_classes_are_one_head(posterior):
    x, y = made(labels=1)
    words = np.array(["no", "yes"])[y[:, 0]]
    scores = lsi.score(
        x, words, probe=lsi.SigmoidProbe(weight_decay=1e-2), posterior=posterior, method=lsi.Newton(tol=1e-3)
    )
    exact = [sigmoid_probe.lsi(with_ones(x), y, 1e-2, 1.0, posterior, i)[0] for i in PICKS]
    assert_allclose(scores.lsi[PICKS], exact, rtol=1e-3)
    assert scores.manifest["classes"] == ["no", "yes"]
    assert set(scores.to_frame()["loo_prediction"]) == {"no", "yes"}
    assert scores.audit.spearman > 0.9999 and scores.audit.max_relative_error <= 1e-3
    assert scores.audit.certificate_coverage == 1.0


def test_a_softmax_of_twice_the_weight_decay_is_the_same_model_with_another_posterior():
    x, y = made(labels=1)
    method = {"method": lsi.Newton(tol=1e-5), "audit": False, "posterior": "full"}
    sigmoid = lsi.score(x, y[:, 0], probe=lsi.SigmoidProbe(weight_decay=1e-2), **method).to_frame()
    softmax = lsi.score(x, y[:, 0], probe=lsi.LinearProbe(weight_decay=2e-2), **method).to_frame()
    assert_allclose(sigmoid["loo_probability"], softmax["loo_probability"], rtol=1e-4)
    assert not np.allclose(sigmoid["lsi"], softmax["lsi"], rtol=1e-3)
    # The difference of two rows with prior precision 2 has prior precision 1.
    same = lsi.score(
        x, y[:, 0], probe=lsi.LinearProbe(weight_decay=2e-2), prior_precision=2.0, **method
    ).to_frame()
    assert_allclose(sigmoid["lsi"], same["lsi"], rtol=1e-4)


def test_the_audit_of_several_heads_leaves_out_by_brute_force():
    x, y, weight_decay = CASES["plain"]
    scores = lsi.score(x, y, probe=lsi.SigmoidProbe(weight_decay=weight_decay), posterior="kron", audit=6)
    audit = scores.audit
    exact = [sigmoid_probe.lsi(with_ones(x), y, weight_decay, 1.0, "kron", i).sum() for i in audit.positions]
    assert_allclose(audit.exact, exact, rtol=1e-6)
    assert_allclose(audit.approximate, scores.lsi[audit.positions])
    assert audit.certificate_coverage == 1.0


def test_a_sampled_correction_works_for_a_sigmoid_too(monkeypatch):
    x, y = made(n=300, d=6, labels=2, seed=7)
    exact = lsi.score(x, y, probe=lsi.SigmoidProbe(), method=lsi.Newton(tol=1e-5), audit=False).lsi
    monkeypatch.setattr("lsi.loo.newton.engine.SAMPLED_WORK", 0.0)
    for posterior in POSTERIORS:
        settings = {"probe": lsi.SigmoidProbe(), "posterior": posterior, "audit": False}
        sampled = lsi.score(x, y, method=lsi.Newton(tol=1e-2), **settings)
        exact = lsi.score(x, y, method=lsi.Newton(tol=1e-5), **settings).lsi
        error = np.abs(sampled.lsi - exact) / exact
        assert (error <= sampled.to_frame()["relative_error"]).mean() > 0.99
        assert error.max() < 2e-2


@pytest.mark.parametrize(
    "spell",
    [
        lambda y: y,
        lambda y: y.astype(bool),
        lambda y: y.astype(float),
        lambda y: y.tolist(),
        torch.from_numpy,
        lambda y: pd.DataFrame(y, columns=["0", "1", "2"]),
        lambda y: [[str(k) for k in np.flatnonzero(row)] for row in y],
        lambda y: [{str(k) for k in np.flatnonzero(row)} for row in y],
        lambda y: pd.Series([tuple(str(k) for k in np.flatnonzero(row)) for row in y]),
    ],
)
def test_labels_may_be_spelt_in_many_ways(spell):
    x, y = made()
    plain = lsi.score(x, y, probe=lsi.SigmoidProbe(), audit=False)
    other = lsi.score(x, spell(y), probe=lsi.SigmoidProbe(), audit=False)
    assert other.manifest["task"] == "multilabel"
    assert other.manifest["outputs"] == ["0", "1", "2"]
    assert_array_equal(other.lsi, plain.lsi)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[0, 2], [1, 0], [1, 1]]), "zeros and ones"),
        (np.array([[0, np.nan], [1, 0], [1, 1]]), "no entry"),
        ([[], [], []], "no sample of y has a label"),
        (["a", "b", "c"], "tells two apart"),
        (np.zeros((3, 0)), "column"),
        (["a", "a", "a"], "one class only"),
        ([[["nested"]], [], []], "cannot be told apart"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(y, message):
    with pytest.raises(lsi.InputError, match=message):
        lsi.score(np.arange(6.0).reshape(3, 2), y, probe=lsi.SigmoidProbe())


def test_settings_that_cannot_be_used_are_refused():
    x, y = made()
    with pytest.raises(lsi.InputError, match="weight_decay"):
        lsi.SigmoidProbe(weight_decay=-1)
    with pytest.raises(lsi.InputError, match="weight_decay=0"):
        lsi.score(x, y, probe=lsi.SigmoidProbe(weight_decay=0))
    with pytest.raises(lsi.InputError, match="'newton'"):
        lsi.score(x, y, probe=lsi.SigmoidProbe(), method="retrain")
