"""Which training samples made single answers: those whose removal changes a query's loss the most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsi.loo.attribution.queries import Queries
from lsi.loo.attribution.steps import Steps
from lsi.loo.attribution.walks import Walker
from lsi.loo.newton.engine import NewtonEngine
from lsi.probes.softmax.math import residuals

# Certificate of a walk. Errors of answers are 0.6 % in the median then, 2.5 % in the 95th percentile; true
# ones are 0.004 and 0.015 % (800 answers, 50,000 × 512 × 10). A fiftieth of it takes half as long again.
PRECISION = 5e-3


@dataclass
class Effects:
    """What removals do to single queries, `(P,)` float64 for P pairs of a query and a sample.

    Attributes:
        loss: Loss without the sample minus with it, nats.
        odds: Log-odds of the label without the sample minus with it.
        changed: Whether the prediction is another one without the sample.
        error: Upper estimate of the absolute error of `loss`, nats.
    """

    loss: Tensor
    odds: Tensor
    changed: Tensor
    error: Tensor

    @classmethod
    def none(cls, n: int) -> Effects:
        """Return no effect of n pairs."""
        loss, odds, error = torch.zeros((3, n), dtype=torch.float64)
        return cls(loss, odds, torch.zeros(n, dtype=torch.bool), error)

    def __add__(self, other: Effects) -> Effects:
        """Return the effects on two heads together, which share no weights."""
        return Effects(
            self.loss + other.loss,
            self.odds + other.odds,
            self.changed | other.changed,
            self.error + other.error,
        )


def first_order_changes(steps: Steps, queries: Queries) -> Tensor:
    """Return how the loss of each query, in the order given, changes without each sample, `(M, N)`."""
    out = torch.empty((len(queries), steps.solver.model.n_samples), dtype=queries.x.dtype)
    place = queries.place.cpu()
    for rows, shift in steps.shifts(queries):
        out[place, rows] = queries.loss_change(slice(0, len(queries)), shift).cpu()
    return out


def extremes(changes: Tensor, k: int) -> Tensor:
    """Return the k samples that raise each query's loss most, then the k that lower it, `(M, 2k)`."""
    k = min(k, changes.shape[1])
    return torch.cat([changes.topk(k, 1).indices, changes.topk(k, 1, largest=False).indices], 1)


def exact_effects(engine: NewtonEngine, steps: Steps, queries: Queries, pairs: Tensor) -> Effects:
    """Return the effects of pairs, each sample walked to its optimum once.

    Shapes: pairs `(P, 2)`: a query by its place in the order given, and a sample.
    """
    order = torch.empty_like(queries.place)
    order[queries.place] = torch.arange(len(order), device=order.device)
    asked = order[pairs[:, 0].to(order.device)]
    samples, which = pairs[:, 1].unique(return_inverse=True)
    found = Effects.none(len(pairs))
    gram = _own_grams(steps, queries.x)
    for part, delta, error in Walker(engine, PRECISION).walk(samples.to(queries.x.device)):
        mine = ((which >= part.start) & (which < part.stop)).nonzero()[:, 0]
        local = (which[mine] - part.start).to(delta.device)
        put = _changes(queries, asked[mine], gram, delta[local], error[local])
        for name in Effects.__dataclass_fields__:
            getattr(found, name)[mine] = getattr(put, name).cpu()
    return found


def _own_grams(steps: Steps, x: Tensor) -> Tensor:
    """Return `Q_q = E_qᵀ H̄⁻¹ E_q` of rows, `(M, C', C')`. Shapes: x `(M, D)`."""
    return (steps.reach(x) @ x[:, None, :, None])[:, :, :, 0].to(torch.float64)


def _changes(queries: Queries, asked: Tensor, gram: Tensor, delta: Tensor, error: Tensor) -> Effects:
    """Return the effects of one change of the weights on one query each.

    Shapes: asked, places among the queries, `(P,)`, gram `(M, C', C')`, delta `(P, C', D)`, error `(P,)`.
    """
    contrasts = queries.model.contrasts
    x, target = queries.x[asked].to(torch.float64), queries.target[asked]
    shift = ((delta.to(torch.float64) @ x[:, :, None])[:, :, 0] @ contrasts.T)[:, :, None]
    part = replace(queries.select(asked), x=x)
    every = slice(0, len(x))
    loss = part.loss_change(every, shift)[:, 0]
    before, after = (
        residuals(torch.softmax(part.log_p + moved, 1), target) @ contrasts
        for moved in (torch.zeros_like(shift[:, :, 0]), shift[:, :, 0])
    )
    # A further change of the weights moves the loss by at most the length of its gradient, here or there.
    slope = torch.maximum(*(torch.einsum("pk,pkl,pl->p", g, gram[asked], g) for g in (before, after)))
    changed = part.prediction(every, shift)[:, 0] != part.log_p.argmax(1)
    return Effects(loss, part.odds_change(every, shift)[:, 0], changed, error * slope.clamp_min(0).sqrt())
