r"""B changes of the data at once: which rows leave and which join, and the objective that each change makes.

With :math:`\sigma_r = -w_r` for a row that leaves and :math:`+w_r` for one that joins, a change makes of
:math:`F` the objective

.. math:: F_b(\theta) = \sum_j w_j \ell_j(\theta) + \sum_{r \in b} \sigma_r \ell_r(\theta)
          + \tfrac{\lambda_b}{2}\|\theta\|^2, \qquad \lambda_b = n_b\,\mathrm{wd},

with :math:`n_b` the number of samples after it. A label that changes is a row that leaves and one that joins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.built import Built
from lsi.loo.newton.sweep import Sweep, sweep
from lsi.posterior.base import Edit, Posterior
from lsi.probes.softmax.math import contrast_curvature, residuals
from lsi.probes.softmax.model import SoftmaxModel


@dataclass(frozen=True, eq=False)
class Edits:
    """B changes of the data of one model; R rows belong to them, those of one change together.

    Attributes:
        model: The model of the data as they are.
        sizes: How many rows belong to each change, `(B,)`.
        x: The rows, `(R, D)` in the design's type.
        target: Their class codes, `(R,)`.
        weight: σ, `(R,)` float64: negative where a row leaves, positive where it joins.
        index: Positions in the data of rows that leave, −1 for rows that join, `(R,)`.
        moved: The rows' probabilities at the weights of the last sweep, `(R, C)`; None before any.
    """

    model: SoftmaxModel
    sizes: tuple[int, ...]
    x: Tensor
    target: Tensor
    weight: Tensor
    index: Tensor
    moved: Tensor | None = None

    @classmethod
    def leaving(cls, model: SoftmaxModel, groups: list[Tensor]) -> Edits:
        """Return the changes in which the rows at each of several lists of positions leave."""
        index = torch.cat(groups)
        sizes = tuple(len(group) for group in groups)
        x, target, weight = model.design.take(index), model.target[index], -model.weight[index]
        return cls(model, sizes, x, target, weight, index)

    @classmethod
    def joining(cls, model: SoftmaxModel, x: Tensor, target: Tensor, weight: Tensor) -> Edits:
        """Return the changes in which one row each joins.

        Shapes: x `(B, D)` in the model's coordinates, target `(B,)`, weight `(B,)`.
        """
        return cls(model, (1,) * len(x), x, target, weight.to(torch.float64), torch.full_like(target, -1))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def bounds(self) -> list[slice]:
        """Where the rows of each change are."""
        ends = torch.tensor((0, *self.sizes)).cumsum(0).tolist()
        return [slice(low, high) for low, high in zip(ends[:-1], ends[1:], strict=True)]

    @property
    def of(self) -> Tensor:
        """The change that each row belongs to, `(R,)`."""
        counts = torch.tensor(self.sizes, device=self.x.device)
        return torch.arange(len(self), device=self.x.device).repeat_interleave(counts)

    @property
    def gained(self) -> Tensor:
        """How many more samples there are after each change, `(B,)` float64."""
        signs = torch.sign(self.weight)
        return torch.zeros(len(self), dtype=torch.float64, device=self.x.device).index_add_(0, self.of, signs)

    def select(self, keep: Tensor) -> Edits:
        """Return the changes picked by a mask or an index."""
        picked = torch.arange(len(self), device=self.x.device)[keep].tolist()
        bounds = self.bounds
        rows = torch.cat(
            [torch.arange(bounds[b].start, bounds[b].stop, device=self.x.device) for b in picked]
            or [torch.empty(0, dtype=torch.int64, device=self.x.device)]
        )
        sizes = tuple(self.sizes[b] for b in picked)
        names = ("x", "target", "weight", "index", "moved")
        kept = {name: part[rows] for name in names if (part := getattr(self, name)) is not None}
        return replace(self, sizes=sizes, **kept)

    def probabilities(self, delta: Tensor | None = None) -> Tensor:
        """Return the rows' probabilities at θ, or each at its own change's `θ + δ`, `(R, C)` float64."""
        model, x = self.model, self.x.to(torch.float64)
        logits = x @ model.theta.T
        if delta is not None:
            moved = [x[rows] @ delta[b].to(torch.float64).T for b, rows in enumerate(self.bounds)]
            logits = logits + torch.cat(moved)
        return torch.softmax(logits @ model.contrasts.T, -1)

    def residual(self, p: Tensor) -> Tensor:
        """Return `σ g'` of the rows, `(R, C')` float64. Shapes: p `(R, C)`."""
        return (residuals(p, self.target) @ self.model.contrasts) * self.weight[:, None]

    def curvature(self, p: Tensor) -> Tensor:
        """Return `σ S'` of the rows, `(R, C', C')` float64. Shapes: p `(R, C)`."""
        return contrast_curvature(p, self.model.contrasts) * self.weight[:, None, None]

    def taken(self, built: Built | None) -> Tensor:
        """Return what each row takes out of a curvature or brings to it, `(R, C', C')` float64.

        A row that leaves takes out what is there of it, which `built` says; None: its curvature at θ.
        """
        own = self.curvature(self.probabilities())
        if built is None or not bool((self.index >= 0).any()):
            return own
        there = built.curvature_at(self.index.clamp_min(0), self.model.contrasts)
        return torch.where((self.index >= 0)[:, None, None], -there, own)

    def summed(self, coefficients: Tensor) -> Tensor:
        """Return `Σ_r m_r ⊗ x_r` over the rows of each change, `(B, C', D)`. Shapes: `(R, C')`."""
        x = self.x.to(coefficients.dtype)
        return torch.stack([coefficients[rows].T @ x[rows] for rows in self.bounds])

    def logits(self, delta: Tensor) -> Tensor:
        """Return `δ_b x_r` of each row at its own change's δ, `(R, C')`. Shapes: delta `(B, C', D)`."""
        x = self.x.to(delta.dtype)
        return torch.cat([x[rows] @ delta[b].T for b, rows in enumerate(self.bounds)])

    def swept(self, delta: Tensor, posterior: Posterior | None) -> tuple[Edits, Sweep]:
        r"""Return the changes as seen at :math:`\theta + \delta_b`, with gradients and shift of curvature.

        .. math:: \sum_j w_j (p_j(\theta + \delta) - p_j(\theta)) \otimes x_j
                  + \sum_{r \in b} \sigma_r (p_r(\theta + \delta) - e_{y_r}) \otimes x_r
                  + \lambda_b \delta + (\lambda_b - \lambda)\, \theta

        The shift is that of all rows of the data, those that leave among them. Shapes: delta `(B, C', D)`.
        """
        model, b = self.model, len(self)
        nobody = torch.full((b,), -1, dtype=torch.int64, device=self.x.device)
        nothing = delta.new_zeros((b, len(model.theta)))
        swept = sweep(model, nobody, delta, nothing, delta.new_zeros((b, model.design.n_features)), posterior)
        # The sweep counts the penalty as it is where one sample is left out: of n − 1.
        more = ((self.gained + 1.0) * model.weight_decay)[:, None, None]
        p = self.probabilities(delta)
        change = self.summed(self.residual(p)) + more * (model.theta + delta.to(torch.float64))
        return replace(self, moved=p), Sweep(swept.gradient + change.to(delta.dtype), swept.shift)

    def first_gradient(self) -> Tensor:
        """Return the gradient of each objective at θ, `(B, C', D)` float64."""
        penalty = (self.gained * self.model.weight_decay)[:, None, None] * self.model.theta
        return self.summed(self.residual(self.probabilities())) + penalty

    def for_posterior(self, delta: Tensor, shift: Any = None) -> Edit:
        """Return what a posterior needs: the rows' own curvature where the shift is from, or at θ."""
        p = self.moved if shift is not None and self.moved is not None else self.probabilities()
        sign = torch.sign(self.weight)
        return Edit(self.bounds, self.x, sign, self.curvature(p), self.gained, delta, shift)
