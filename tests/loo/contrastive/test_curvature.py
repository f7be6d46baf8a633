import pytest
import torch
from tests.oracles import info_nce

import lsi
from lsi.loo.contrastive import curvature
from lsi.loo.contrastive.model import PairModel

CASES = {
    "all pairs": {},
    "batches": {"batch_size": 5},
    "strict norm": {"norm_floor": 0.0},
    "cold": {"temperature": 0.05, "dim": 2},
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    left, right = info_nce.pairs()
    probe = lsi.ContrastiveProbe(**{"dim": 3, "weight_decay": 0.3, "temperature": 0.3, **request.param})
    oracle, model = info_nce.build(left, right, probe), PairModel.build(left, right, probe)
    torch.manual_seed(1)
    return oracle, model, oracle.start + 0.2 * torch.randn(len(oracle.start), dtype=torch.float64)


@pytest.mark.parametrize("out", [None, 0, 11])
def test_value_and_gradient_are_those_of_the_definition(case, out):
    oracle, model, theta = case
    model = model if out is None else model.without(out)
    value, gradient = model.value_gradient(theta)
    torch.testing.assert_close(value, oracle.objective(theta, out), rtol=1e-12, atol=1e-12)
    expected = torch.func.grad(lambda t: oracle.objective(t, out))(theta)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("out", [None, 4])
def test_dense_curvature_is_the_gauss_newton_matrix_and_the_hessian(case, out):
    oracle, model, theta = case
    model = model if out is None else model.without(out)
    found = curvature.dense_curvature(model, theta, newton=False, dtype=torch.float64)
    torch.testing.assert_close(found, oracle.ggn(theta, out), rtol=1e-9, atol=1e-9)
    found = curvature.dense_curvature(model, theta, newton=True, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(lambda t: oracle.data_loss(t, out), theta)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("out", [None, 4])
def test_diagonal_and_output_blocks_are_those_of_the_gauss_newton_matrix(case, out):
    oracle, model, theta = case
    reduced = model if out is None else model.without(out)
    dense = oracle.ggn(theta, out)
    diagonal = curvature.diagonal(reduced, theta, torch.float64)
    torch.testing.assert_close(diagonal, dense.diagonal(), rtol=1e-9, atol=1e-10)
    assert torch.linalg.eigvalsh(dense)[0] > -1e-10


def test_output_blocks_are_what_moving_one_projection_alone_costs(case):
    oracle, model, theta = case
    rows = model.batches[0]
    left = oracle.heads(theta)[0]
    expected = torch.zeros(model.dim, model.dim, dtype=torch.float64)
    for batch in model.batches:
        z = model.x[batch] @ left.T
        right = model.embed(theta, batch)[1].unit
        for j in range(len(batch)):

            def logits(own, j=j, z=z, right=right):
                moved = torch.cat([z[:j], own[None], z[j + 1 :]])
                unit = moved / (moved.square().sum(1, keepdim=True) + model.floor**2).sqrt()
                return unit @ right.T / model.temperature

            jacobian, s = torch.func.jacrev(logits)(z[j]), logits(z[j])
            for view, jac in ((s, jacobian), (s.T, jacobian.transpose(0, 1))):
                for anchor in range(len(batch)):
                    p = torch.softmax(view[anchor], 0)
                    expected += 0.5 * jac[anchor].T @ (torch.diag(p) - torch.outer(p, p)) @ jac[anchor]
    found = curvature.output_curvature(model, theta, torch.float64)[0]
    torch.testing.assert_close(found, expected / model.n_pairs, rtol=1e-9, atol=1e-10)
    assert len(rows) >= 4
