r"""What a correction from sampled rows may still be off, term by term.

docs/explanation/method.md derives each.

A removal is known by a few numbers before any other row is read: `State`. With what the sampled rows add up
to, they bound four errors, the `Doubt` of a removal: the spread of the sample, what its noise does to the
covariance term, what a second step would add, and what rows that were not drawn may hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.effects import Sums
from lsi.posterior.base import Sensitivity
from lsi.probes.softmax.model import SoftmaxModel

NOISE = 3.0  # so much more may a sampling error's square be than the differences of groups say
SURPRISE = 6.0  # −ln of the chance that the sample misleads
TINY = torch.finfo(torch.float64).tiny


@dataclass
class State:
    """What is known of first-order removals before any other row is read, `(B,)` float64 where not said.

    Attributes:
        first: The removals.
        sensitivity: Of their divergences.
        pull: `a = H₋⁻¹ P₂ δ`, `(B, C', D)`.
        mean: Mean term at the others' frozen curvature.
        covariance: Covariance term there.
        energy: `δᵀ H̄ δ`.
        force: `aᵀ H̄ a`.
    """

    first: FirstOrder
    sensitivity: Sensitivity
    pull: Tensor
    mean: Tensor
    covariance: Tensor
    energy: Tensor
    force: Tensor

    @classmethod
    def of(
        cls, model: SoftmaxModel, first: FirstOrder, frozen: Terms, sensitivity: Sensitivity, pull: Tensor
    ) -> State:
        """Return it. Shapes: pull `(B, C', D)`."""
        z, y = ((step @ first.x[:, :, None])[:, :, 0].to(torch.float64) for step in (first.delta, pull))
        own = first.curvature.to(torch.float64)
        decay = model.weight_decay * (first.delta.flatten(1).to(torch.float64) @ model.theta.reshape(-1))
        # δᵀH₋δ = δ·(g ⊗ x + wd θ) and aᵀH₋a = a·P₂δ; H̄ has the sample's own curvature on top.
        energy = (z * first.residual).sum(1) + decay + torch.einsum("bk,bkl,bl->b", z, own, z)
        force = (pull * sensitivity.gradient).sum((1, 2), dtype=torch.float64)
        force = force + torch.einsum("bk,bkl,bl->b", y, own, y)
        return cls(
            first,
            sensitivity,
            pull,
            frozen.mean,
            frozen.covariance,
            energy.clamp_min(TINY),
            force.clamp_min(0),
        )

    def select(self, keep: Any) -> State:
        """Return the removals picked by a mask, an index or a slice."""
        curvature = self.sensitivity.curvature
        sensitivity = Sensitivity(
            self.sensitivity.gradient[keep], curvature[keep] if curvature.numel() else curvature
        )
        rest = (getattr(self, name)[keep] for name in ("pull", "mean", "covariance", "energy", "force"))
        return State(self.first.select(keep), sensitivity, *rest)

    @property
    def stiff(self) -> Tensor:
        """`δᵀ P₂ δ`."""
        return 2.0 * self.mean.clamp_min(TINY)

    def unseen(self, length: float, covariance: Tensor) -> Tensor:
        """Return the most that a row may add to the divergence, over its bound: leverage times `√Q_j`."""
        zeta = length * self.energy.sqrt()
        growth = zeta.expm1()
        # A row's ρ is at most (e^ζ − 1 − ζ)/ζ of its S z, and its Δp e^ζ − 1 of its p. The covariance term,
        # a quarter of a squared norm, then changes by half of that norm times the row's leverage.
        most = (growth - zeta) / zeta.clamp_min(TINY) * (self.energy * self.force).sqrt()
        return (most + growth * (0.5 * self.stiff + covariance.sqrt())) / (length or 1.0)

    def second_order(self, sums: Sums, bending: Tensor, alone: Tensor) -> Tensor:
        """Return what a second step would add at most, in nats."""
        bend = (sums.bent_step.clamp_min(0) / self.energy).sqrt()  # relative change of H along δ
        step = sums.length / (1.0 - bend).clamp_min(TINY)
        stiffness = self.force / self.stiff  # of P₂ in units of H along δ
        along = sums.bent.clamp_min(0).sqrt() + sums.response.clamp_min(0).sqrt()
        along = along + 2.0 * bending.abs() * (stiffness / self.stiff).sqrt()
        # The others' changed curvature is linear in the step; twice its rate along δ is allowed for.
        along = along + 4.0 * alone / self.energy.sqrt()
        return 0.5 * stiffness * step.square() + step * along


@dataclass
class Doubt:
    """What corrections may be off, relative to the divergence, `(B,)` float64 each.

    Attributes:
        spread: Variance of the sum over the drawn rows.
        alone: Covariance term of the others' changed curvature, with the sample's own where it is not priced.
        off: Covariance term of that change's sampling error.
        second: What a second step would add at most.
        unseen: The most that a row which was not drawn may add, over its chance to be drawn.
    """

    spread: Tensor
    alone: Tensor
    off: Tensor
    second: Tensor
    unseen: Tensor

    def put(self, where: Tensor, other: Doubt) -> None:
        """Replace the removals picked by a mask by those of `other`."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[where] = getattr(other, name)

    def seen(self, ratio: float = 1.0) -> Tensor:
        """Return the relative error but for unseen rows, if rows had `1 / ratio` of the chance."""
        # The covariance term is about a quarter of a squared norm of the changed curvature: norms add up.
        off = NOISE * self.off * ratio
        covariance = 2.0 * (self.alone * off).sqrt() + off
        return (2.0 * SURPRISE * self.spread * ratio).sqrt() + covariance + self.second

    def whole(self, ratio: float = 1.0) -> Tensor:
        """Return the relative error with unseen rows; infinite where it is not known."""
        # Rows of total chance L stay undrawn together with probability e^(−L).
        error = self.seen(ratio) + SURPRISE * self.unseen * ratio
        return error.nan_to_num(nan=float("inf"), posinf=float("inf"))
