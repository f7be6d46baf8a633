"""The refitted head against plain optimisation, and its leave-one-out logits against refits."""

import numpy as np
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris

from lsi.noisy_labels.soft_probe import SoftProbe


def features():
    X, y = load_iris(return_X_y=True)
    x = (X - X.mean(0)) / X.std(0)
    return torch.from_numpy(np.column_stack([x, np.ones(len(x))])).float(), torch.from_numpy(y)


def optimum(x, q, ridge):
    """Softmax regression on soft labels by Newton's method with the full Hessian, in float64."""
    x, q = x.double(), q.double()
    c, d = q.shape[1], x.shape[1]
    w = torch.zeros(c, d, dtype=torch.float64)
    for _ in range(60):
        p = torch.softmax(x @ w.T, 1)
        gradient = ((p - q).T @ x + ridge * w).reshape(-1)
        s = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        hessian = torch.einsum("ncd,ne,nf->cedf", s, x, x).reshape(c * d, c * d)
        w = w - torch.linalg.solve(hessian + ridge * torch.eye(c * d), gradient).view(c, d)
    return w


def soft_labels(y, seed=0):
    noise = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(3), len(y)))
    return (0.7 * torch.nn.functional.one_hot(y, 3) + 0.3 * noise).float()


def test_the_fit_reaches_the_optimum_for_soft_labels():
    x, y = features()
    q = soft_labels(y)
    probe = SoftProbe(x, 3, 2.0)
    found = torch.softmax(probe.fit(q, 200), 1)
    exact = torch.softmax(x.double() @ optimum(x, q, 2.0).T, 1)
    # The fit stops at a gradient of 3e-2 in coordinates of unit curvature, here with 150 samples.
    assert_allclose(found, exact, atol=5e-3)


def test_left_out_logits_are_near_those_of_refits():
    x, y = features()
    q = soft_labels(y)
    probe = SoftProbe(x, 3, 2.0)
    logits = probe.fit(q, 200)
    found = torch.softmax(probe.left_out(logits, q), 1)
    inside = torch.softmax(logits.double(), 1)
    rows = range(0, 150, 6)
    exact = torch.stack(
        [torch.softmax(x[i].double() @ optimum(_without(x, i), _without(q, i), 2.0).T, 0) for i in rows]
    )
    rows = list(rows)
    error, plain = (found[rows] - exact).abs().mean(), (inside[rows] - exact).abs().mean()
    assert error < 0.4 * plain  # one mean curvature for all samples is not exact, but far better than none
    assert error < 0.005


def _without(rows, i):
    return torch.cat([rows[:i], rows[i + 1 :]])


def test_many_classes_take_the_cheap_step():
    x, y = features()
    q = soft_labels(y)
    probe = SoftProbe(x, 3, 2.0)
    logits = probe.fit(q, 200)
    exact = probe.left_out(logits, q)
    cheap = probe.left_out(logits, q, many_classes=2)
    moved = (exact - logits).abs().mean()
    assert (cheap - exact).abs().mean() < 0.2 * moved
