"""Which rows a sample for attributions holds: those drawn by a bound, and those most like each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.newton.neighbours import total_variance, whitened
from lsi.probes.softmax.model import ROWS, SoftmaxModel

NEAREST = 64  # rows looked at for each sample
GROUP = 32  # rows of which only the largest product is looked at first
ELEMENTS = 1 << 22  # products held at a time


@dataclass
class Drawn:
    """One level of the nested draw.

    Attributes:
        rows: Positions, those that are always taken first.
        weight: One over each row's chance to be drawn, `(n,)`.
        n_certain: How many are always taken.
        spacing: Bound over chance of the others: what the sum of all their bounds leaves for each row drawn.
        length: Largest `√Q_j` of the rows that may be missed.
    """

    rows: Tensor
    weight: Tensor
    n_certain: int
    spacing: float
    length: float


def draw(bound: Tensor, length: Tensor, counts: list[int], seed: int) -> list[Drawn]:
    """Return a draw of each size of `counts`, the larger ones holding the smaller ones but for chance.

    Sequential Poisson sampling (Ohlsson 1998): row j has one random number u_j for all levels, and the rows
    of smallest u_j / bound_j are taken.

    Shapes: bound `(N,)`, length `(N,)`.
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(len(bound), generator=generator, dtype=torch.float64).to(bound.device)
    order = bound.argsort(descending=True, stable=True)
    # Σ of the bounds from the k-th on: the first k rows are certain while the k-th alone fills its place.
    rest = bound[order].flip(0).cumsum(0).flip(0)
    key = random / bound.clamp_min(torch.finfo(torch.float64).tiny)
    place = torch.arange(len(bound), device=bound.device)
    found = []
    for count in counts:
        certain = int(((count - place).clamp_min(0) * bound[order] >= rest).to(torch.int8).cumprod(0).sum())
        others, n_drawn = order[certain:], min(count, len(bound)) - certain
        if n_drawn <= 0:
            found.append(Drawn(order[:certain], torch.ones_like(bound[:certain]), certain, 0.0, 0.0))
            continue
        drawn = others[key[others].argsort(stable=True)[:n_drawn]]
        spacing = float(rest[certain]) / n_drawn
        weight = torch.cat([torch.ones_like(bound[:certain]), spacing / bound[drawn]])
        rows = torch.cat([order[:certain], drawn])
        found.append(Drawn(rows, weight, certain, spacing, float(length[others].amax())))
    return found


class Nearest:
    """Finds the rows that the removal of a sample moves most, as `lsi.loo.newton.neighbours` compares rows.

    They are ranked by `w tr S` times the cube of the product of their coordinates: what a row adds to a
    correction, to lowest order.

    Args:
        model: The full-data model.
    """

    def __init__(self, model: SoftmaxModel) -> None:
        white = whitened(model)
        self._rows = torch.empty((model.n_samples, white.shape[1]), dtype=torch.float32, device=white.device)
        weight = []
        for rows, x in model.design.blocks(ROWS):
            self._rows[rows] = x @ white
            weight.append(total_variance(model, rows, x).to(torch.float64))
        self._weight = torch.cat(weight).pow(1.0 / 3.0).to(torch.float32)

    def nearest(self, index: Tensor, left: Tensor) -> Tensor:
        """Return the rows that each sample's removal moves most, the nearest first, `(B, m)`.

        The sample itself fills the places of samples with fewer rows near them: it counts for nothing.

        Shapes: index `(B,)`; left, which rows may be found, `(N,)`.
        """
        n, m = len(self._rows), min(NEAREST, len(self._rows))
        weight = self._weight * left
        found = []
        for part in index.split(max(1, ELEMENTS // n)):
            alike = (self._rows[part] @ self._rows.T).abs_().mul_(weight)
            alike.scatter_(1, part[:, None], 0.0)
            alike = torch.nn.functional.pad(alike, (0, -n % GROUP)).view(len(part), -1, GROUP)
            groups = alike.amax(2).topk(min(m, alike.shape[1]), 1).indices
            close = alike.gather(1, groups[:, :, None].expand(-1, -1, GROUP)).flatten(1)
            where = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=index.device)).flatten(1)
            best = close.topk(min(m, close.shape[1]), 1).indices
            picked = where.gather(1, best)
            found.append(torch.where(picked < n, picked, part[:, None]))
        return torch.cat(found)
