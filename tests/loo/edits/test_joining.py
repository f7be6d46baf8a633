"""A row that joins: its own equations, and the coordinate that it may need for itself."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax

import lsi
from lsi.loo.edits.joining import facing, outside_of, own_pull, with_room

RNG = np.random.default_rng(1)


def engine_of(n, d, posterior="diag", c=3):
    X = RNG.standard_normal((n, d))
    y = np.r_[np.arange(c), RNG.integers(0, c, n - c)]
    (engine,) = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2, False), posterior=posterior).engines()
    return engine, X


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e8])
def test_the_pull_of_a_row_solves_its_equations(scale):
    engine, _ = engine_of(30, 4)
    v = engine.model.contrasts
    root = torch.from_numpy(RNG.standard_normal((6, 2, 2)))
    gram, weight = scale * root @ root.mT, torch.tensor([1.0, 1, 0.1, 10, 1, 1], dtype=torch.float64)
    z, target = torch.from_numpy(5 * RNG.standard_normal((6, 2))), torch.tensor([0, 1, 2, 0, 1, 2])
    m = own_pull(engine.model, z, target, weight, gram)
    left = torch.softmax((z - (gram @ m[:, :, None])[:, :, 0]) @ v.T, -1) - torch.eye(3)[target]
    # m to ten digits: what is off in it comes back multiplied by S Q.
    assert_allclose(m, weight[:, None] * (left @ v), atol=1e-9 * max(1.0, scale) * float(m.abs().max()))

    def objective(m, k):
        logits = v.numpy() @ (z[k].numpy() - gram[k].numpy() @ m)
        return 0.5 * m @ gram[k].numpy() @ m - float(weight[k]) * log_softmax(logits)[int(target[k])]

    for k in range(6) if scale == 1.0 else ():
        best = minimize(objective, np.zeros(2), args=(k,), tol=1e-12)
        assert objective(m[k].numpy(), k) <= best.fun + 1e-10


def test_a_block_of_one_row_has_the_grams_of_a_larger_one(monkeypatch):
    engine, X = engine_of(30, 4)
    rows = torch.from_numpy(X[:5])
    together = engine.solver.own_grams(rows)
    monkeypatch.setattr("lsi.loo.newton.dense.MOST", 1)
    assert_allclose(engine.solver.own_grams(rows), together)
    k, d = engine.model.theta.shape
    spread = torch.kron(torch.eye(k, dtype=torch.float64), rows[0][:, None])
    assert_allclose(together[0], spread.T @ engine.solver.inverse.matrix @ spread)


def test_only_rows_out_of_the_span_have_a_part_outside():
    engine, X = engine_of(6, 10)
    inside = torch.from_numpy(RNG.standard_normal((2, 6)) @ X)
    length, _ = outside_of(engine, inside)
    assert_allclose(length, 0)
    length, direction = outside_of(engine, torch.from_numpy(RNG.standard_normal((3, 10))))
    assert (length > 0.1).all()
    assert_allclose(direction.norm(dim=1), 1)
    assert_allclose(direction @ torch.from_numpy(X).T, 0, atol=1e-12)
    whole, X = engine_of(30, 4, "kron")
    assert_allclose(outside_of(whole, torch.from_numpy(X))[0], 0)


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
def test_room_changes_nothing_for_the_rows_of_the_data(posterior):
    engine, _ = engine_of(6, 10, posterior)
    index, wide = torch.arange(6), with_room(engine)
    turned = facing(wide, outside_of(engine, torch.from_numpy(RNG.standard_normal((1, 10))))[1][0])
    for other in (wide, turned):
        assert_allclose(other.run(index).lsi, engine.run(index).lsi, rtol=1e-9)
