"""One sweep over all rows at the weights of B left-out models: gradient and shift of curvature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.posterior.base import Posterior
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel

ELEMENTS = 1 << 20  # numbers in one (rows, C, B) block: a few MiB, so that it stays in the cache


@dataclass
class RowBlock:
    """Rows seen by B left-out models.

    Attributes:
        rows: Their positions.
        x: `(n, D)`.
        weight: Sample weights, `(n,)`.
        probabilities: At the full-data weights, `(n, C)`.
        logit_shift: Change of the logits, `(n, C, B)`.
        change: Change of the probabilities, zero where the row is the left-out sample, `(n, C, B)`.
        own: Index `(row in block, :, b)` of the left-out samples found in this block.
    """

    rows: slice
    x: Tensor
    weight: Tensor
    probabilities: Tensor
    logit_shift: Tensor
    change: Tensor
    own: tuple[Tensor, slice, Tensor]


def own_entries(index: Tensor, rows: slice) -> tuple[Tensor, slice, Tensor]:
    """Return the index of the left-out samples' own entries in a `(rows, C, B)` block."""
    which = ((index >= rows.start) & (index < rows.stop)).nonzero()[:, 0]
    return index[which] - rows.start, slice(None), which


def row_blocks(model: SoftmaxModel, index: Tensor, delta: Tensor) -> Iterator[RowBlock]:
    """Yield the rows as seen by the models at `θ + δ_b`, b = 1 … B.

    Shapes: index `(B,)`, delta `(B, C', D)`.
    """
    b, c = len(index), model.n_classes
    where = index.cpu()  # asking a GPU in every block would wait for it
    dtype = model.design.dtype
    # Classes before models: sums over classes then run along whole vectors of models.
    step = (model.contrasts.to(dtype) @ delta.to(dtype)).transpose(0, 1).reshape(c * b, -1)
    for rows, x in model.design.blocks(max(64, ELEMENTS // (b * c))):
        shift = (x @ step.T).view(len(x), c, b)
        p = model.probabilities(x)
        change = probability_shift(p, shift)
        own = own_entries(where, rows)
        change[own] = 0.0
        yield RowBlock(rows, x, model.weight[rows].to(dtype), p, shift, change, own)


@dataclass
class Sweep:
    """Result of a sweep: gradient `(B, C', D)` of each leave-one-out objective, and the shift."""

    gradient: Tensor
    shift: Any


def sweep(
    model: SoftmaxModel,
    index: Tensor,
    delta: Tensor,
    residual: Tensor,
    x: Tensor,
    posterior: Posterior | None,
) -> Sweep:
    r"""Return the gradient of each leave-one-out objective at :math:`\theta + \delta_i`, as differences.

    .. math:: r_i = \sum_{j \ne i} w_j (p_j(\theta + \delta_i) - p_j(\theta)) \otimes x_j
              + (n-1)\,\mathrm{wd}\,\delta_i - g_i \otimes x_i - \mathrm{wd}\,\theta

    What the fit left of its gradient would count in full in every δ, however small its score. Left out, it
    only moves the point that δ is measured from.

    Shapes: index `(B,)`, delta `(B, C', D)`, residual `(B, C')`, x `(B, D)`.
    """
    b, _, d = delta.shape
    contrasts = model.contrasts.to(delta.dtype)
    shift = None if posterior is None else posterior.new_shift(b)
    moved = torch.zeros((model.n_classes * b, d), dtype=delta.dtype, device=delta.device)
    for block in row_blocks(model, index, delta):
        weighted = block.change if model.unweighted else block.change * block.weight[:, None, None]
        moved.addmm_(weighted.view(len(block.x), -1).T, block.x)
        if posterior is not None:
            posterior.add_shift(shift, block.x, block.weight, block.probabilities, block.change)
    gradient = (contrasts.T @ moved.view(model.n_classes, b * d)).view(-1, b, d).transpose(0, 1)
    gradient = gradient + model.loo_ridge * delta - residual[:, :, None] * x[:, None, :]
    return Sweep(gradient - (model.weight_decay * model.theta).to(delta.dtype), shift)
