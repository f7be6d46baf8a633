r"""What the first-order steps of removals lack, seen from a sample of rows, beyond what is summed exactly.

Row j adds :math:`(E_j^\top u_i)\cdot\rho_{ji}` to the correction of removal i, with
:math:`\rho = \Delta p - S z` and :math:`z = E_j^\top \delta_i`. Its lowest order with :math:`\bar u` in place
of :math:`u_i`, :math:`\tfrac12 \sum_c p_c (v_c - \bar v)(z_c - \bar z)^2` with :math:`v = E_j^\top\bar u`, is
summed over all rows elsewhere, so that only the difference is sampled. It is of third order, and at most

.. math:: |v|_S\, \sqrt{\mathrm{tr}\,S_jQ_j}\; Q_j\, \frac{d^3 e^{\zeta}}{6}, \qquad
          d = \|\delta_i\|_{\bar H},\quad \zeta = \sqrt{Q_j}\, d,

by which, and by :math:`Q_j\, \mathrm{tr}\, S_jQ_j`, rows are drawn. The rows most like a left-out sample,
which may hold more than their chance to be drawn suggests, are all read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.attribution.drawn import Drawn, Nearest, draw
from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.rows import centred, probe_logits
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import ROWS, SoftmaxModel

READ = 1024  # rows read for every removal: about as many as make their products worthwhile
TILE = 192  # rows priced at a time: their logits for a block of removals stay in cache
TINY = torch.finfo(torch.float64).tiny
SURPRISE = 6.0  # −ln of the chance that the sample misleads


@dataclass
class Beyond:
    """What a sample says about B corrections, `(B,)` float64 each.

    Attributes:
        rest: Sum of what the rows add beyond the lowest order.
        spread: Standard deviation of that sum.
        unseen: What rows that were not drawn may hold.
        length: Upper estimate of `‖ε‖`, what the first-order steps lack, in the metric of H₋ᵢ.
    """

    rest: Tensor
    spread: Tensor
    unseen: Tensor
    length: Tensor


class RowSample:
    """A sample of rows that corrections are completed from.

    Args:
        model: The trained model.
        probes: Draws of N(0, H̄⁻¹), `(R, C', D)`.
        adjoint: `ū`, `(C', D)`.
    """

    def __init__(self, model: SoftmaxModel, probes: Tensor, adjoint: Tensor) -> None:
        self.model, self.adjoint = model, adjoint
        hold, own, reach = _bounds(model, probes, adjoint)
        bound = hold / hold.sum().clamp_min(TINY) + own / own.sum().clamp_min(TINY)
        count = READ if READ < 0.5 * model.n_samples else model.n_samples
        self._drawn: Drawn = draw(bound, reach, [count], 0)[0]
        rows = self._drawn.rows
        self._left = (1.0 - 1.0 / self._drawn.weight).to(model.design.dtype)  # 1 − π
        self._scale = (self._drawn.weight * model.weight[rows]).to(model.design.dtype)
        self._x = model.design.take(rows)
        self._is_drawn = torch.zeros_like(bound, dtype=torch.bool).index_fill_(0, rows, True)
        self._chance = torch.ones_like(bound)
        if self._drawn.spacing > 0:
            self._chance = (bound / self._drawn.spacing).clamp(1e-30, 1.0)
            self._chance[rows[: self._drawn.n_certain]] = 1.0
            self._neighbours = Nearest(model)

    def beyond(self, first: FirstOrder, pull: Tensor) -> Beyond:
        """Return what the sample says. Shapes: pull `u_i`, `(B, C', D)`."""
        zero = torch.zeros(len(pull), dtype=torch.float64, device=pull.device)
        found, mean, square = Beyond(*(zero.clone() for _ in range(4))), zero.clone(), zero.clone()
        for low in range(0, len(self._x), TILE):
            part = slice(low, low + TILE)
            x = self._x[part]
            z, v = (self._logits(x, weights) for weights in (first.delta, pull))
            own = self._drawn.rows[part, None] == first.index[None, :]
            each, unexplained = self._each(x, z, v, own)
            scale, left = self._scale[part], self._left[part]
            weighted = each * scale[:, None]
            found.rest += weighted.sum(0)
            mean += left @ weighted
            square += left @ weighted.square()
            found.length += scale @ unexplained
        if self._drawn.spacing > 0:
            self._look(first, pull, found, mean, square)
        drawn = max(1, len(self._x) - self._drawn.n_certain)
        found.spread = (square - mean.square() / drawn).clamp_min(0).sqrt()
        found.length = found.length.clamp_min(0).sqrt()
        return found

    def _look(self, first: FirstOrder, pull: Tensor, found: Beyond, mean: Tensor, square: Tensor) -> None:
        """Count the rows most like each sample in full, and take the farther of them for what is unseen."""
        b = len(pull)
        rows = self._neighbours.nearest(first.index, self._chance < 1.0)
        m, flat = rows.shape[1], rows.flatten()
        x, contrasts = self.model.design.take(flat), self.model.contrasts.to(pull.dtype)
        z, v = (
            torch.bmm(x.view(b, m, -1), (contrasts @ weights).mT).view(b * m, -1, 1)
            for weights in (first.delta, pull)
        )
        own = (flat == first.index.repeat_interleave(m))[:, None]
        each, unexplained = (part.view(b, m) for part in self._each(x, z, v, own))
        chance = self._chance[rows].to(x.dtype)
        counted = torch.where(self._is_drawn[rows], 1.0 / chance, 0.0)  # as the sample counts it already
        weight = self.model.weight[rows].to(x.dtype)
        scale, weighted = weight * (1.0 - counted), each * weight * counted
        found.rest += (each * scale).sum(1)
        found.length += (unexplained * scale).sum(1)
        mean -= ((1.0 - chance) * weighted).sum(1)
        square -= ((1.0 - chance) * weighted.square()).sum(1)
        # Rows of total chance L stay undrawn together with probability e^(−L).
        farther = (each.abs() * weight / chance)[:, m // 2 :]
        found.unseen += SURPRISE * farther.amax(1)

    def _each(self, x: Tensor, z: Tensor, v: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return what rows add beyond the lowest order, and `|ρ|²` in the metric of S⁻, `(n, B)` each.

        Shapes: x `(n, D)`, changes of the logits along δ and along u `(n, C, B)`, own `(n, B)`.
        """
        p = self.model.probabilities(x)
        z, v = centred(z, p[:, :, None]), centred(v, p[:, :, None])
        lowest = centred(self._logits(x, self.adjoint[None].to(x.dtype)), p[:, :, None])
        rho = probability_shift(p, z) - p[:, :, None] * z
        known = 0.5 * torch.bmm((p[:, :, None] * lowest).mT, z.square())[:, 0]
        each = (v * rho).sum(1) - known
        unexplained = (rho.square() / p.clamp_min(1e-30)[:, :, None]).sum(1)
        return each.masked_fill_(own, 0.0), unexplained.masked_fill_(own, 0.0)

    def _logits(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return `V E_jᵀ a_b` of rows x, `(n, C, B)`. Shapes: weights `(B, C', D)`."""
        b, _, d = weights.shape
        flat = (self.model.contrasts.to(x.dtype) @ weights).transpose(0, 1).reshape(-1, d)
        return (x @ flat.T).view(len(x), -1, b)


def _bounds(model: SoftmaxModel, probes: Tensor, adjoint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return of every row the bound on what it adds, that on `|ρ|²`, and `√Q_j`, `(N,)` float64 each."""
    hold, own, reach = [], [], []
    step = adjoint[None].to(model.design.dtype)
    for rows, x in model.design.blocks(ROWS):
        p = model.probabilities(x)
        square = centred(probe_logits(model, x, probes), p[:, :, None]).square().mean(2)
        weight = model.weight[rows]
        leverage = (p * square).sum(1).to(torch.float64) * weight
        length = square.amax(1).to(torch.float64)  # Q_j
        v = centred(probe_logits(model, x, step), p[:, :, None])[:, :, 0]
        slope = ((p * v.square()).sum(1).to(torch.float64) * weight).sqrt()  # |v|_S
        hold.append(slope * leverage.sqrt() * length)
        own.append(leverage * length)
        reach.append(length.sqrt())
    return torch.cat(hold), torch.cat(own), torch.cat(reach)
