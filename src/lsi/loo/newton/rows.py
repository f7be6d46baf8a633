r"""Which rows a correction reads: nested draws in proportion to what a row could add at most.

With :math:`Q_j = E_j^\top \bar H^{-1} E_j`, a change δ of the weights moves the logits of row j by at most
:math:`\zeta_j = \sqrt{Q_j}\,\|\delta\|_{\bar H}`, and what the row adds to a removal's correction is at most
proportional to :math:`(\mathrm{tr}\,S_jQ_j + \ell^P_j)\,\sqrt{Q_j}`, where :math:`\ell^P_j` is the row's
share of the posterior's curvature (docs/explanation/method.md). Rows are drawn by that bound, so that no
row can hide much; rows that would be drawn more than once are always taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.posterior.base import Posterior
from lsi.probes.softmax.model import ROWS, SoftmaxModel


@dataclass
class Reach:
    """How far each row of the data is within reach of a removal.

    Attributes:
        probes: Draws of N(0, H̄⁻¹), `(R, C', D)`.
        leverage: `tr S_j Q_j` and the row's share of the posterior's curvature, added up, `(N,)`.
        length: `√Q_j` of the class that is moved most, `(N,)`.
    """

    probes: Tensor
    leverage: Tensor
    length: Tensor

    @classmethod
    def of(cls, model: SoftmaxModel, posterior: Posterior, probes: Tensor) -> Reach:
        """Return the reach of every row, one pass over the data. Shapes: probes `(R, C', D)`."""
        leverage, length = [], []
        for rows, x in model.design.blocks(ROWS):
            p = model.probabilities(x)
            image = centred(probe_logits(model, x, probes), p)
            square = image.square().mean(2)  # of each class, (n, C)
            own = (p * square).sum(1) * model.weight[rows].to(p.dtype)
            leverage.append((own + posterior.row_leverage(x, model.weight[rows], p)).to(torch.float64))
            length.append(square.amax(1).sqrt().to(torch.float64))
        return cls(probes, torch.cat(leverage), torch.cat(length))


def probe_logits(model: SoftmaxModel, x: Tensor, probes: Tensor) -> Tensor:
    """Return what each probe adds to the logits of rows, `(n, C, R)`. Shapes: x `(n, D)`."""
    r, k, d = probes.shape
    inner = (x @ probes.reshape(r * k, d).T).view(len(x), r, k)
    return (inner @ model.contrasts.T.to(x.dtype)).mT


def centred(logits: Tensor, p: Tensor) -> Tensor:
    """Return logits `(n, C, B)` less their mean under p `(n, C)`."""
    return logits - torch.bmm(p[:, None, :], logits)


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
