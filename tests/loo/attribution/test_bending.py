"""The derivative of the curvature against differences of curvatures."""

import numpy as np
import torch
from tests.fitted.data import CASES

import lsi
from lsi.loo.attribution.bending import bending


def test_it_is_the_derivative_of_the_curvature():
    model = next(CASES["weights"].fitted.engines()).model
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=tuple(model.theta.shape)))
    found = bending(model, direction)
    step = 1e-4
    ahead, behind = (model.hessian_change(sign * step * direction) for sign in (1, -1))
    weight = float(model.weight[0])
    assert weight != 1.0
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


def test_a_sigmoid_bends_by_its_third_derivative():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 3))
    fitted = lsi.fit(x, (x[:, 0] + rng.normal(size=30) > 0).astype(int), probe=lsi.SigmoidProbe(1e-2))
    model = next(fitted.engines()).model
    u = rng.normal(size=4)
    rows = np.column_stack([x, np.ones(30)])
    p = 1 / (1 + np.exp(-rows @ model.theta[0].numpy()))
    slope = p * (1 - p) * (1 - 2 * p) * (rows @ u)
    found = bending(model, torch.from_numpy(u)[None])
    np.testing.assert_allclose(found.numpy(), (rows.T * slope) @ rows, rtol=1e-9)
