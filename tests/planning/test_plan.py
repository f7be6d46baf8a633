import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits

import lsi
from lsi.planning.plan import choose_solver, estimate, refuse_oversize
from lsi.system.machine import available_memory


def test_more_of_anything_costs_more():
    base = {"n_samples": 2000, "n_features": 60, "n_classes": 5, "posterior": "diag", "method": lsi.Newton()}
    least = estimate(**base)
    for name, value in {"n_samples": 9000, "n_features": 400, "n_classes": 40}.items():
        more = estimate(**{**base, name: value})
        assert more.seconds > least.seconds and more.bytes > least.bytes
    assert estimate(**{**base, "method": lsi.Newton(tol=None)}).seconds < least.seconds
    assert estimate(**base, n_scored=10).seconds < least.seconds


def test_the_text_says_time_and_memory():
    text = estimate(50_000, 512, 10, "diag", lsi.Newton()).text
    assert text.startswith("about ") and text.endswith(" of memory")


def test_what_cannot_fit_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: 1 << 28)
    monkeypatch.setattr(
        "lsi.tasks.classification.fit_blocks_once", lambda *_: pytest.fail("the fit was started")
    )
    X = np.random.default_rng(0).normal(size=(600, 500)).astype(np.float32)
    with pytest.raises(lsi.InputError, match=r"500 features × 60 classes .*PCA"):
        lsi.score(X, np.arange(600) % 60)


@pytest.mark.parametrize("have", [1 << 29, 1 << 31, 1 << 40, None])
def test_the_solver_is_the_same_on_every_machine(have, monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: have)
    wide = 50_000, 257, 40, "diag", lsi.Newton()
    assert choose_solver(*wide) == "dense"
    assert choose_solver(*wide, memory=8 << 30) == "dense"
    assert choose_solver(*wide, memory=1 << 30) == "blocks"
    assert choose_solver(50_000, 513, 100, "diag", lsi.Newton()) == "blocks"
    assert lsi.make_plan(50_000, 256, 40).chosen.solver == "dense"


def test_a_machine_that_is_too_small_says_what_would_fit(monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: 1 << 30)
    with pytest.raises(lsi.InputError, match=r"Reduce the features .*PCA.*solver='blocks'"):
        refuse_oversize(50_000, 256, 40, "diag", lsi.Newton(), torch.device("cpu"))
    refuse_oversize(50_000, 256, 40, "diag", lsi.Newton(solver="blocks"), torch.device("cpu"))


def test_a_run_that_fits_is_not_refused(monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: 1 << 30)
    refuse_oversize(1000, 64, 10, "full", lsi.Newton(), torch.device("cpu"))


def test_available_memory_is_plausible():
    have = available_memory()
    assert have is None or 1 << 20 < have < 1 << 50


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_an_unusable_device_is_named(device):
    X, y = load_digits(return_X_y=True)
    with pytest.raises(lsi.InputError, match=device):
        lsi.score(X[:50], y[:50], device=device)


def test_early_stopping_ranks_like_its_ridge():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    stopped = lsi.Retrain(epochs=200, lr=0.1)
    settings = {"lr": stopped.lr, "momentum": stopped.momentum, "epochs": stopped.epochs}
    retrained = lsi.score(X, y, method=stopped, audit=False).lsi
    optimal = lsi.score(X, y, method=lsi.Newton.from_early_stopping(**settings), audit=False).lsi
    plain = lsi.score(X, y, audit=False).lsi
    agreement = scipy.stats.spearmanr(retrained, optimal).statistic
    # Measured: 0.978 with the conversion and 0.865 without it; it must close most of that gap.
    assert agreement >= 0.96
    assert 1 - agreement < 0.5 * (1 - scipy.stats.spearmanr(retrained, plain).statistic)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"momentum": 1.0}, {"epochs": 0}])
def test_early_stopping_checks_its_input(wrong):
    with pytest.raises(lsi.InputError, match="lr > 0"):
        lsi.Newton.from_early_stopping(**{"lr": 0.1, "momentum": 0.9, "epochs": 100, **wrong})
