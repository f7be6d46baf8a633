"""Predictions that hang on a single training sample: without it, another class is the likeliest."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.loo.attribution.queries import Queries
from lsi.loo.attribution.steps import TOGETHER, Steps
from lsi.loo.newton.rows import probe_logits

CLOSE = 0.1  # share of a lead that a first-order step may leave where the whole step may yet turn it
PROBE_MARGIN = 1.5  # of lengths measured with 64 random vectors, which are good to a twelfth


def hinges(steps: Steps, queries: Queries) -> tuple[Tensor, Tensor]:
    """Return queries by their places in the order given, and for each the sample it hangs on, if on any.

    Only pairs whose first-order step turns the prediction, or nearly so, are returned: `(P,)` each.
    """
    open_ = _within_reach(steps, queries).nonzero()[:, 0]
    places, samples = [queries.place[:0]], [queries.place[:0]]
    for part in open_.split(TOGETHER):
        some = queries.select(part)
        left, sample = _least_leads(steps, some)
        turns = left < CLOSE * some.lead
        places.append(queries.place[part[turns]])
        samples.append(sample[turns])
    return torch.cat(places), torch.cat(samples)


def _least_leads(steps: Steps, queries: Queries) -> tuple[Tensor, Tensor]:
    """Return the least lead that removing one sample leaves to each prediction, and that sample."""
    predicted = queries.log_p.argmax(1)[:, None, None]
    least = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=queries.x.device)
    sample = torch.zeros_like(queries.place)
    for rows, shift in steps.shifts(queries):
        logits = shift.to(torch.float64) + queries.log_p[:, :, None]
        where = predicted.expand(-1, 1, logits.shape[2])
        own = logits.gather(1, where)[:, 0]
        low, index = (own - logits.scatter(1, where, -torch.inf).amax(1)).min(1)
        sample = torch.where(low < least, index + rows.start, sample)
        least = torch.minimum(low, least)
    return least, sample


def _within_reach(steps: Steps, queries: Queries) -> Tensor:
    """Return which predictions the longest of all steps could turn, `(M,)`.

    A step moves the lead of class a over class c by at most `‖v ⊗ x_q‖` in the metric of H⁻¹ times its own
    length in that of H.
    """
    image = probe_logits(steps.solver.model, queries.x, steps.solver.probes)
    predicted = queries.log_p.argmax(1)[:, None]
    apart = image.gather(1, predicted[:, :, None].expand(-1, 1, image.shape[2])) - image
    length = apart.square().mean(2).sqrt().to(torch.float64)
    lead = queries.log_p.gather(1, predicted) - queries.log_p
    turned = lead <= PROBE_MARGIN * length * float(steps.longest)
    return turned.scatter(1, predicted, False).any(1)
