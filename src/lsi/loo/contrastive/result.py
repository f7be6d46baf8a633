"""Columns of a result of pairs: divergences of the heads, and whether partners still find each other."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.execution.work import Arrays
from lsi.loo.contrastive.model import Embeddings, PairModel
from lsi.loo.contrastive.precision import Divergences
from lsi.loo.result import LooResult

EXTRA = ("lsi_left", "lsi_right", "loo_rank")
"""Columns beside those of every `LooResult`: LSI of each head with the other held, in nats, and the rank of
the own partner among the candidates, 1 for the most likely one, averaged over both directions.

`loo_probability` is the InfoNCE probability of the own partner under heads that never saw the pair, averaged
over both directions, and `loo_prediction` the position of the left item's most likely partner. `leverage` is
the trace of the pair's own curvature in the metric of the inverse Hessian.
"""
MATCH_NUMBERS = 1 << 23
"""Most numbers in the embeddings of one block of left-out pairs."""


def empty(n: int) -> LooResult:
    """Return a result of n pairs to be filled block by block."""
    return LooResult.empty(n, *EXTRA)


def term_columns(divergences: Divergences) -> Arrays:
    """Return the columns that divergences of B pairs fill."""
    left, right, both = divergences
    return {
        "mean_term": both.mean.numpy(),
        "covariance_term": both.covariance.numpy(),
        "lsi_left": left.total.numpy(),
        "lsi_right": right.total.numpy(),
    }


def match_columns(model: PairModel, positions: Tensor, theta: Tensor) -> Arrays:
    """Return how well the own partner is found under the heads without each pair.

    Shapes: positions `(B,)` of one batch, theta `(B, K)`.
    """
    rows = model.batch_of(int(positions[0]))
    # Every left-out pair has its own embeddings of all candidates: n · d numbers.
    size = max(1, MATCH_NUMBERS // (len(rows) * model.dim))
    parts = [
        _match(model, rows, torch.searchsorted(rows, some), heads)
        for some, heads in zip(positions.split(size), theta.split(size), strict=True)
    ]
    probability, rank, best = (torch.cat(values) for values in zip(*parts, strict=True))
    return {
        "loo_probability": probability.numpy(),
        "loo_rank": rank.numpy(),
        "loo_prediction": rows[best].numpy(),
    }


def _match(model: PairModel, rows: Tensor, at: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probability and rank of the own partner, and the most likely one's place in the batch.

    Shapes: the three `(B,)`, rows `(n,)`, at `(B,)`, theta `(B, K)`.
    """
    heads = theta[:, : model.n_left], theta[:, model.n_left :]
    here = torch.arange(len(at))
    units = []
    for head, x in zip(heads, (model.x, model.y), strict=True):
        flat = head.reshape(len(at) * model.dim, -1).to(x.dtype)
        z = (x[rows] @ flat.T).view(len(rows), len(at), model.dim)
        units.append(Embeddings.of(z, model.floor).unit)
    probability = torch.zeros(len(at), dtype=torch.float64)
    rank, best = torch.zeros_like(probability), at
    for direction, (own, others) in enumerate((units, units[::-1])):
        s = torch.einsum("bd,nbd->bn", own[at, here], others)  # s_ik = u_iᵀv_k of the left-out pair i
        partner = s[here, at]
        probability += 0.5 * torch.softmax(s / model.temperature, 1)[here, at]
        rank += 0.5 * (1 + (s > partner[:, None]).sum(1))
        if direction == 0:
            best = s.argmax(1)
    return probability, rank, best
