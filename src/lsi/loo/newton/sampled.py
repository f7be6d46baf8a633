r"""Second-order correction of first-order removals from a sample of rows, with its standard error.

To second order in δ, what the others' changed curvature does to the divergence is a sum over rows,

.. math:: \Delta_i = \sum_{j \ne i} w_j \Bigl[ -\tfrac12 \sum_c p_{jc}\,
          (y_{jc} - \bar y_j)(z_{jc} - \bar z_j)^2 + e_j(\delta_i) \Bigr],
          \qquad z_j = x_j\delta_i,\quad y_j = x_j H_{-i}^{-1} P_2 \delta_i,

where the first part is the shift of the optimum (the third derivative of the loss) and :math:`e_j` the effect
of row j's changed curvature on the posterior. A few thousand rows, drawn in proportion to how uncertain their
prediction is, estimate the sum far more cheaply than a sweep over all rows, and their spread gives the error
of the estimate. Most samples of a large dataset need nothing else.

Neglected are the third order, and the second-order effect of the others' changed curvature on the covariance
term; the engine calibrates certificates for both on swept samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.model import ROWS, SoftmaxModel

SAMPLED_ROWS = 2048
TILE = 192  # rows handled at a time: their logits for a block of removals stay in the cache
UNIFORM = 0.2  # share of the draw that ignores the rows' uncertainty, which bounds the weights


@dataclass
class Correction:
    """Corrections of B divergences, each `(B,)` float64, in nats.

    Attributes:
        value: Estimate of Δ_i.
        error: Its standard error.
        size: Sum of the rows' absolute contributions: the scale of the neglected orders.
    """

    value: Tensor
    error: Tensor
    size: Tensor


class SampledCorrector:
    """Estimates second-order corrections from rows drawn once.

    Args:
        model: The full-data model.
        solver: First-order solver.
        posterior: The posterior whose divergence is the score.
        n_rows: Rows to draw, with replacement.
        seed: Seed of the draw.
    """

    def __init__(
        self, model: SoftmaxModel, solver: DenseSolver, posterior: Posterior, n_rows: int, seed: int = 0
    ) -> None:
        self.model, self.solver, self.posterior = model, solver, posterior
        spread = torch.cat([_uncertainty(model, rows, x) for rows, x in model.design.blocks(ROWS)])
        self.rows, expected = draw_rows(spread, n_rows, seed)
        self.x = model.design.take(self.rows)
        self.p = model.probabilities(self.x)
        dtype = self.x.dtype
        self.scale = (model.weight[self.rows] / expected).to(dtype)

    def correct(self, first: FirstOrder) -> Correction:
        """Return the correction of each removal in `first`."""
        sensitivity = self.posterior.sensitivity(
            Removal(first.index, first.x, first.curvature, first.delta, residual=first.residual)
        )
        pull = self.solver.solve(first, sensitivity.gradient)  # H₋ᵢ⁻¹P₂δ_i
        step, force = self._class_first(first.delta), self._class_first(pull)
        price = self.posterior.price(sensitivity)
        b, zero = len(first.index), torch.zeros(len(first.index), dtype=torch.float64, device=pull.device)
        value, square, size = zero, zero.clone(), zero.clone()
        for start in range(0, len(self.rows), TILE):
            part = slice(start, start + TILE)
            x, p = self.x[part], self.p[part]
            z = self._centred(x, p, step)  # z − z̄
            effect = self._centred(x, p, force).mul_(z).mul_(-0.5)  # −½ (y − ȳ)(z − z̄)
            effect += self.posterior.row_price(price, x, p, z)
            effect = torch.bmm(p[:, None, :], effect.mul_(z)).view(-1, b).mul_(self.scale[part, None])
            effect[self.rows[part, None] == first.index[None, :]] = 0.0
            value = value + effect.sum(0, dtype=torch.float64)
            size = size + effect.abs().sum(0, dtype=torch.float64)
            square = square + effect.square_().sum(0, dtype=torch.float64)
        n = len(self.rows)
        error = (square - value.square() / n).clamp_min(0).mul(n / (n - 1.0)).sqrt()
        return Correction(value, error, size)

    def _class_first(self, weights: Tensor) -> Tensor:
        """Return weights `(B, C', D)` in all classes, `(C·B, D)`."""
        b, k, d = weights.shape
        flat = weights.transpose(0, 1).reshape(k, b * d)
        return (self.model.contrasts.to(flat.dtype) @ flat).view(-1, d)

    def _centred(self, x: Tensor, p: Tensor, weights: Tensor) -> Tensor:
        """Return the logits `(n, C, B)` less their mean under p."""
        z = (x @ weights.T).view(len(x), p.shape[1], -1)
        return z.sub_(torch.bmm(p[:, None, :], z))


def draw_rows(spread: Tensor, n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return rows drawn with replacement, and the expected number of draws of each, both `(n_rows,)`.

    Shapes: spread `(N,)`.
    """
    chance = UNIFORM / len(spread) + (1.0 - UNIFORM) * spread / spread.sum().clamp_min(1e-300)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(chance.cpu(), n_rows, replacement=True, generator=generator).to(spread.device)
    return rows, n_rows * chance[rows]


def _uncertainty(model: SoftmaxModel, rows: slice, x: Tensor) -> Tensor:
    """Return `w_j tr S_j` of some rows, `(n,)` float64."""
    p = model.probabilities(x)
    return model.weight[rows] * (p * (1.0 - p)).sum(1).to(torch.float64)
