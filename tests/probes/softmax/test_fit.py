"""The fit reaches the optimum, says how well, and says what is wrong where it cannot."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.build import untrained
from tests.cases import CASES, REAL, Case, clusters
from tests.oracles import softmax_probe

import lsi
from lsi.probes.softmax.fit import fit

ALL = CASES | REAL


def distance(case, theta):
    """Return how far weights lie from the oracle's optimum, squared, in nats: twice what it costs."""
    best = case.oracle.head()
    gap = (theta - best).ravel()
    hessian = softmax_probe.curvature(best, case.design, case.weight)
    return gap @ hessian @ gap + len(case.target) * case.weight_decay * gap @ gap


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_optimum(name, dtype):
    case = ALL[name]
    model, _, report = fit(untrained(case, dtype))
    theta = (model.contrasts @ model.theta).numpy()
    best = case.oracle.head()
    size = len(case.target) * softmax_probe.objective(
        best, case.design, case.target, case.weight, case.weight_decay
    )
    # Squared distance in nats, so that 1e-16 is eight digits of every weight that the loss can tell.
    # A float32 design rounds the features themselves by 6e-8, and logits of size 10 by ten times that.
    assert distance(case, theta) <= (1e-16 if dtype == torch.float64 else 1e-10 + 1e-6) * size
    assert_allclose(theta.sum(0), 0, atol=1e-9 * np.abs(theta).max())
    assert report.decrement <= 1e-10


@pytest.mark.parametrize("name", ALL)
def test_report(name):
    case = ALL[name]
    report = case.score(subset=[0]).manifest["fit"]
    losses = -np.log(softmax_probe.probabilities(case.oracle.head(), case.design))
    losses = losses[np.arange(len(losses)), case.target]
    hits = softmax_probe.probabilities(case.oracle.head(), case.design).argmax(1) == case.target
    assert_allclose(report["mean_loss"], np.mean(case.weight * losses), rtol=1e-6, atol=1e-12)
    assert_allclose(report["train_accuracy"], hits.mean())
    # Gradients are as large as the features.
    assert report["gradient_norm"] <= 1e-10 * max(1, np.abs(case.features).max())
    assert report["iterations"] >= 1


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("weight_decay", [1e-8, 1e-4, 1.0])
def test_scales(scale, weight_decay):
    features, target = clusters(2, (10, 9, 8), 4, distance=0.7)
    case = Case("scaled", features * scale, target, weight_decay)
    model, _, report = fit(untrained(case))
    theta = (model.contrasts @ model.theta).numpy()
    assert distance(case, theta) <= 1e-15
    assert report.train_accuracy > 0.5 or scale < 1 or weight_decay == 1.0


def test_separable_features_of_a_huge_scale():
    # The optimum's loss is 1e-13 nats a sample: what counts as converged has to shrink with it.
    features, target = clusters(6, (12, 10, 8), 4)
    case = Case("huge and separable", features * 1e6, target)
    model, _, _ = fit(untrained(case))
    theta = (model.contrasts @ model.theta).numpy()
    assert_allclose(theta[:, :4], case.oracle.head()[:, :4], rtol=1e-3)
    p = softmax_probe.probabilities(case.oracle.head(), case.design)[np.arange(30), target]
    assert p.min() > 1 - 1e-11


def test_class_weights_count_like_copies():
    case = CASES["binary"]
    weights = {0: 1.0, 1: 3.0}
    copies = np.repeat(np.arange(len(case.target)), np.where(case.target == 1, 3, 1))
    weighted = Case("weighted", case.features, case.target, 1e-3, class_weight=weights)
    # The mean loss divides by the number of rows, weighted or not.
    decay = 1e-3 * len(case.target) / len(copies)
    copied = Case("copied", case.features[copies], case.target[copies], decay)
    heads = [fit(untrained(one))[0].theta for one in (weighted, copied)]
    torch.testing.assert_close(*heads, rtol=1e-8, atol=1e-10)


def test_large_problems_start_from_lbfgs(monkeypatch):
    called = []
    from lsi.probes.softmax import fit as module

    def remember(model, *args, **kwargs):
        called.append(True)
        return torch.zeros_like(model.theta)

    monkeypatch.setattr(module, "warm_start", remember)
    case = CASES["multiclass"]
    fit(untrained(case))
    assert not called


def test_progress():
    seen = []
    fit(untrained(CASES["multiclass"]), lambda *what: seen.append(what))
    assert [stage for stage, _, _ in seen] == ["fit"] * len(seen)
    assert [done for _, done, _ in seen] == list(range(1, len(seen) + 1))


def test_it_says_when_it_did_not_converge():
    with pytest.raises(lsi.ConvergenceError, match="weight_decay"):
        fit(untrained(CASES["outliers"]), max_iterations=1)


def test_it_says_when_the_decay_is_too_small():
    features, target = clusters(1, (10, 10), 3)
    features = np.column_stack([features, features]) * 1e8  # every direction twice: only the decay holds it
    with pytest.raises(lsi.InputError, match="weight_decay"):
        lsi.score(features, target, probe=lsi.LinearProbe(weight_decay=1e-12), audit=False)
