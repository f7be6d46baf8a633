r"""Terms that all derivatives of the InfoNCE loss share, for one batch at given heads.

Formulas are written once, for the left head; `both_sides` also returns the batch with the roles of left and
right exchanged. The gradient of logit (j, k) by the left projection :math:`z_j` is

.. math:: a_{jk} = \frac{v_k - s_{jk} u_j}{\rho_j T}, \qquad s_{jk} = u_j^\top v_k .

P is the row softmax (anchors on the left), Q the column softmax (anchors on the right), and
:math:`\omega = (P + Q) / 2` their mean. The gradient of the loss by the logits is :math:`\omega - I`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsi.loo.contrastive.model import PairModel


@dataclass(frozen=True)
class Side:
    """One batch seen from one head.

    Attributes:
        x: Features of this side, `(n, D)`.
        unit: Its embeddings u, `(n, d)`.
        scale: `1 / (ρ T)`, `(n, 1)`.
        other: Embeddings v of the other side, `(n, d)`.
        cosine: s, `(n, n)`.
        rows: P, softmax of a row over its candidates, `(n, n)`.
        columns: Q, softmax of a column over its candidates, `(n, n)`.
        temperature: T.
    """

    x: Tensor
    unit: Tensor
    scale: Tensor
    other: Tensor
    cosine: Tensor
    rows: Tensor
    columns: Tensor
    temperature: float

    @property
    def mean(self) -> Tensor:
        """ω, `(n, n)`."""
        return 0.5 * (self.rows + self.columns)

    def own(self, weight: Tensor, at: Tensor | None = None) -> Tensor:
        """Return `Σ_k w_jk a_jk` for the rows j of `weight`, `(m, d)`; `at` says which rows, None: all."""
        unit, scale, cosine = self._at(at)
        pulled = (weight * cosine).sum(1, keepdim=True) * unit
        return (weight @ self.other - pulled) * scale

    def spread(self, weight: Tensor, at: Tensor | None = None) -> Tensor:
        """Return `Σ_k w_kj a_kj ⊗ x_k` for the columns j of `weight`, `(m, d, D)`."""
        other = self.other if at is None else self.other[at]
        cosine = self.cosine if at is None else self.cosine[:, at]
        straight = (weight.T @ (self.x * self.scale))[:, None, :] * other[:, :, None]
        rows = (self.unit * self.scale)[:, :, None] * self.x[:, None, :]
        return straight - ((weight * cosine).T @ rows.flatten(1)).view_as(straight)

    def squares(self, weight: Tensor, at: Tensor | None = None) -> Tensor:
        """Return `Σ_k w_jk a_jk²`, entry by entry, `(m, d)`."""
        unit, scale, cosine = self._at(at)
        turned = weight * cosine
        mixed = weight @ self.other.square() - 2 * (turned @ self.other) * unit
        return (mixed + (turned * cosine).sum(1, keepdim=True) * unit.square()) * scale.square()

    def outer(self, weight: Tensor, at: Tensor | None = None) -> Tensor:
        """Return `Σ_k w_jk a_jk a_jkᵀ`, `(m, d, d)`."""
        unit, scale, cosine = self._at(at)
        d = self.other.shape[1]
        products = (self.other[:, :, None] * self.other[:, None, :]).flatten(1)
        turned = weight * cosine
        cross = (turned @ self.other)[:, :, None] * unit[:, None, :]
        own = (turned * cosine).sum(1)[:, None, None] * (unit[:, :, None] * unit[:, None, :])
        total = (weight @ products).view(-1, d, d) - cross - cross.mT + own
        return total * scale.square()[:, :, None]

    def anchor_means(self) -> Tensor:
        """Return `Σ_k P_jk a_jk`, the gradients of φ_j by their own projection, `(n, d)`."""
        return self.own(self.rows)

    def candidate_means(self) -> Tensor:
        """Return the gradients of ψ_j by this head, `(n, d, D)`."""
        return self.spread(self.columns)

    def own_curvature(self, at: Tensor | None = None) -> Tensor:
        """Return each sample's own Gauss-Newton block, as anchor and as candidate, `(m, d, d)`."""
        mean, columns = (self.mean, self.columns) if at is None else (self.mean[at], self.columns[at])
        means = self.own(self.rows if at is None else self.rows[at], at)
        # As a candidate of a column anchor it contributes the variance of a single outcome, q (1 − q).
        return self.outer(mean - 0.5 * columns.square(), at) - 0.5 * means[:, :, None] * means[:, None, :]

    def bending(self, at: Tensor | None = None) -> Tensor:
        """Return the loss's gradient times the second derivative of the logits by z, `(m, d, d)`."""
        unit, scale, _ = self._at(at)
        residual = self.mean.clone()
        residual.diagonal().sub_(1.0)
        g = (residual if at is None else residual[at]) @ self.other
        along = (unit * g).sum(1)[:, None, None]
        mixed = unit[:, :, None] * g[:, None, :]
        eye = torch.eye(g.shape[1], dtype=g.dtype)
        shape = 3 * along * (unit[:, :, None] * unit[:, None, :]) - mixed - mixed.mT - along * eye
        return shape * (scale.square() * self.temperature)[:, :, None]

    def _at(self, at: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if at is None:
            return self.unit, self.scale, self.cosine
        return self.unit[at], self.scale[at], self.cosine[at]


def both_sides(model: PairModel, theta: Tensor, rows: Tensor, dtype: torch.dtype) -> tuple[Side, Side]:
    """Return a batch seen from the left and from the right head. Shapes: theta `(K,)`."""
    u, v = model.embed(theta, rows)
    cosine = u.unit @ v.unit.T
    logits = (cosine - 1.0) / model.temperature
    p, q = torch.softmax(logits, 1).to(dtype), torch.softmax(logits, 0).to(dtype)
    scales = [(1.0 / (e.length * model.temperature)).to(dtype) for e in (u, v)]
    left, right = u.unit.to(dtype), v.unit.to(dtype)
    cosine = cosine.to(dtype)
    one = Side(model.x[rows].to(dtype), left, scales[0], right, cosine, p, q, model.temperature)
    other = replace(one, x=model.y[rows].to(dtype), unit=right, scale=scales[1], other=left)
    return one, replace(other, cosine=cosine.T, rows=q.T, columns=p.T)
