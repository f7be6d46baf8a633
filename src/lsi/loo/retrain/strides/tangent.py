r"""Gradients of left-out heads from the curvature along the full-data path, without a pass over the data.

To first order in :math:`\delta_i` the other samples' part of the difference of gradients is a product with
the curvature :math:`H_t = \sum_j w_j S_j \otimes x_j x_j^\top` at the full-data weights after t epochs,

.. math:: \sum_{j \ne i} w_j (p_j(\theta_t + \delta_i) - p_j(\theta_t)) \otimes x_j
          \approx H_t \delta_i - w_i S_i x_i^\top \delta_i \otimes x_i,

while the sample's own removal stays exact. What is neglected is measured for every head at some epochs, on
rows drawn once: its share along δ, where it changes the score,

.. math:: \rho_i = \frac{\bigl|\sum_j w_j z_j^\top (\Delta p_j - S_j z_j)\bigr|}{\sum_j w_j z_j^\top S_j z_j},
          \qquad z_j = x_j^\top \delta_i.

Where training has converged, the squared length of δ in the metric of the curvature is off by :math:`2 \rho`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lsi.loo.newton.rows import draw_rows
from lsi.probes.softmax.math import probability_shift, variances
from lsi.probes.softmax.model import ROWS, SoftmaxModel

CHECKED = 2048  # rows that tell what the tangent neglects
TILE = 192  # of them at a time


@dataclass(frozen=True)
class Tangent:
    """The full-data problem to first order around its weights at one epoch.

    Attributes:
        model: Data and these weights.
        curvature: `H_t` of the summed loss, `(K, K)`, feature-major.
        gradient: Of the summed loss, in contrasts, `(R, C − 1)`.
    """

    model: SoftmaxModel
    curvature: Tensor
    gradient: Tensor


@dataclass
class Tangents:
    """The tangents along the training of the full-data head.

    Attributes:
        model: Data in principal coordinates, `(N, R)`.
        weights: Weights of all classes, `(R, C)`, by epoch.
    """

    model: SoftmaxModel
    weights: dict[int, Tensor]
    _found: dict[int, Tangent] = field(default_factory=dict)
    _rows: tuple[Tensor, Tensor, Tensor] | None = None

    def at(self, epoch: int) -> Tangent:
        """Return the tangent at an epoch, found once and kept."""
        if epoch not in self._found:
            self._found[epoch] = self._tangent(self.weights[epoch])
        return self._found[epoch]

    def gradient(self, epoch: int, index: Tensor, change: Tensor) -> Tensor:
        """Return the difference of the gradients of the mean loss, `(K, B)`, as `StrideTrainer` needs it.

        Shapes: index `(B,)`, change `(K, B)`.
        """
        model, tangent, b = self.model, self.at(epoch), len(index)
        n, r = model.n_samples, model.design.n_features
        x, residual, curvature = tangent.model.curvature_at(index)
        moved = torch.einsum("br,rkb->bk", x, change.view(r, -1, b))
        own = residual + (curvature @ moved[:, :, None])[:, :, 0]
        total = (tangent.curvature @ change).view(r, -1, b)
        total.add_(tangent.gradient[:, :, None], alpha=1.0 / n)
        total.sub_(x.T[:, None, :] * own.T[None]).mul_(1.0 / (n - 1))
        return total.view(-1, b).add_(change, alpha=model.weight_decay)

    def neglected(self, epoch: int, index: Tensor, change: Tensor) -> Tensor:
        """Return ρ of each head, `(B,)`. Shapes: index `(B,)`, change `(K, B)`."""
        model, (rows, x, scale), b = self.model, self._sample(), len(index)
        c, r = model.n_classes, model.design.n_features
        step = (model.contrasts.to(change.dtype) @ change.view(r, c - 1, b)).view(r, c * b)
        beyond = torch.zeros(b, dtype=torch.float64, device=change.device)
        along = torch.zeros_like(beyond)
        for start in range(0, len(rows), TILE):
            part = slice(start, start + TILE)
            p = torch.softmax(x[part] @ self.weights[epoch], 1)
            z = (x[part] @ step).view(-1, c, b)
            others = scale[part, None] * (rows[part, None] != index[None, :])
            linear = (z - torch.bmm(p[:, None, :], z)) * p[:, :, None]
            along += ((z * linear).sum(1) * others).sum(0, dtype=torch.float64)
            rest = probability_shift(p, z) - linear
            beyond += ((z * rest).sum(1) * others).sum(0, dtype=torch.float64)
        return beyond.abs() / along.clamp_min(torch.finfo(torch.float64).tiny)

    def _tangent(self, whole: Tensor) -> Tangent:
        model, dtype = self.model, whole.dtype
        r, k = whole.shape[0], whole.shape[1] - 1
        there = replace(model, theta=(whole.to(torch.float64) @ model.contrasts).T)
        hessian = there.hessian().view(k, r, k, r)
        gradient = there.objective_and_gradient(there.theta, dtype)[1] - there.ridge * there.theta
        curvature = torch.empty((r, k, r, k), dtype=dtype, device=whole.device)
        curvature.copy_(hessian.permute(1, 0, 3, 2))
        return Tangent(there, curvature.view(r * k, r * k), gradient.T.to(dtype))

    def _sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows that are checked: their positions, features and weights in the sums."""
        if self._rows is None:
            model, whole = self.model, self.weights[max(self.weights)]
            spread = (
                torch.cat(
                    [variances(torch.softmax(x @ whole, 1)).sum(1) for _, x in model.design.blocks(ROWS)]
                ).to(torch.float64)
                * model.weight
            )
            if model.n_samples <= CHECKED:
                rows, scale = torch.arange(model.n_samples, device=whole.device), model.weight
            else:
                rows, expected = draw_rows(spread, CHECKED, seed=0)
                scale = model.weight[rows] / expected
            self._rows = rows, model.design.take(rows), scale.to(whole.dtype)
        return self._rows
