import pytest
import torch
from tests.oracles import info_nce

import lsi
from lsi.loo.contrastive import curvature
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.removal import diagonal_change, gradient_change
from lsi.loo.contrastive.state import both_sides


@pytest.fixture(params=[0.1, 0.5])
def model(request):
    left, right = info_nce.pairs(n=9, left=4, right=3)
    return PairModel.build(
        left, right, lsi.ContrastiveProbe(dim=2, temperature=request.param, weight_decay=0.0)
    )


@pytest.mark.parametrize("change", [gradient_change, diagonal_change])
def test_changes_are_those_of_deleting_the_rows(model, change):
    theta, at = model.initial, torch.tensor([0, 3, 8])
    sides = both_sides(model, theta, model.batches[0], torch.float64)
    parts = [change(side, side.candidate_means(), at).flatten(1) for side in sides]
    found = torch.cat(parts, 1)

    def evaluate(one):
        if change is gradient_change:
            return one.value_gradient(theta)[1]
        return curvature.diagonal(one, theta, torch.float64)

    expected = torch.stack([evaluate(model.without(int(i))) - evaluate(model) for i in at])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
