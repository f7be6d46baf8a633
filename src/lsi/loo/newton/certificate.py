r"""What a correction from sampled rows may still be off, term by term.

docs/explanation/method.md derives each.

A removal is known by a few numbers before any other row is read: `State`. With what the sampled rows add up
to, they bound four errors, the `Doubt` of a removal: the spread of the sample, what its noise does to the
covariance term, what rows that are not read may hold, and what a second step would add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.effects import Sums
from lsi.loo.newton.rows import LEFT, SURPRISE
from lsi.posterior.base import Sensitivity
from lsi.probes.softmax.model import SoftmaxModel

NOISE = 3.0  # so much more may a mean over four draws of a posterior be
DRAWN = 1.36  # a length that 64 draws measure is at most this times that, but for one in a thousand
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
        lacking: `‖(H − H̃) δ‖` and `‖(H − H̃) a‖` in the metric of H₋⁻¹, with H̃ what the steps were taken
            with, `(B, 2)`.
    """

    first: FirstOrder
    sensitivity: Sensitivity
    pull: Tensor
    mean: Tensor
    covariance: Tensor
    energy: Tensor
    force: Tensor
    lacking: Tensor

    @classmethod
    def of(
        cls,
        model: SoftmaxModel,
        first: FirstOrder,
        frozen: Terms,
        sensitivity: Sensitivity,
        pull: Tensor,
        lacking: Tensor,
    ) -> State:
        """Return it. Shapes: pull `(B, C', D)`, lacking, `(H − H̃) φ` of draws φ of N(0, H̃⁻¹), `(R, K')`."""
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
            _lengths(lacking, first, pull),
        )

    def select(self, keep: Any) -> State:
        """Return the removals picked by a mask, an index or a slice."""
        rest = (
            getattr(self, name)[keep] for name in ("pull", "mean", "covariance", "energy", "force", "lacking")
        )
        return State(self.first.select(keep), self.sensitivity.select(keep), *rest)

    @property
    def stiff(self) -> Tensor:
        """`δᵀ P₂ δ`."""
        return 2.0 * self.mean.clamp_min(TINY)

    def second_order(self, sums: Sums, bending: Tensor, alone: Tensor) -> Tensor:
        """Return what a second step would add at most, in nats."""
        behind, behind_pull = self.lacking.unbind(1)
        bend = (sums.bent_step.clamp_min(0).sqrt() + behind) / self.energy.sqrt()  # change of H along δ
        step = (sums.unexplained.clamp_min(0).sqrt() + behind) / (1.0 - bend).clamp_min(TINY)
        stiffness = self.force / self.stiff  # of P₂ in units of H along δ
        along = sums.bent.clamp_min(0).sqrt() + sums.response.clamp_min(0).sqrt() + behind_pull
        along = along + 2.0 * bending.abs() * (stiffness / self.stiff).sqrt()
        # The others' changed curvature is linear in the step; twice its rate along δ is allowed for.
        along = along + 4.0 * alone / self.energy.sqrt()
        return 0.5 * stiffness * step.square() + step * along


def _lengths(lacking: Tensor, first: FirstOrder, pull: Tensor) -> Tensor:
    """Return the lengths of `(H − H̃) δ` and `(H − H̃) a`, `(B, 2)`, as the draws measure them."""
    if not len(lacking):
        return first.delta.new_zeros((len(pull), 2), dtype=torch.float64)
    seen = [(each.flatten(1).to(lacking) @ lacking.T).square().mean(1) for each in (first.delta, pull)]
    # The metric without the sample is at most 1/(1 − leverage) times that with it.
    stretch = 1.0 / (1.0 - first.leverage.to(torch.float64)).clamp_min(LEFT)
    return DRAWN * (torch.stack(seen, 1).to(torch.float64) * stretch[:, None]).sqrt()


@dataclass
class Doubt:
    """What corrections may be off, relative to the divergence, `(B,)` float64 each.

    Attributes:
        spread: Variance of the sum over the rows.
        spread_pool: What would be left of it if all rows of the pool were read.
        swing: Variance of the covariance term of the others' changed curvature.
        largest: Most that a row which is not certain to be read adds to the sum.
        largest_pool: What would be left of it if all rows of the pool were read.
        lasting: What a second step would add at most, and what does not depend on the rows that are read.
    """

    spread: Tensor
    spread_pool: Tensor
    swing: Tensor
    largest: Tensor
    largest_pool: Tensor
    lasting: Tensor

    def whole(self, ratio: float = 1.0, pool: bool = False) -> Tensor:
        """Return the relative error, if rows had `1 / ratio` of the chance, up to that of the pool or to one.

        It is infinite where it is not known.
        """
        spread, largest = self.spread * ratio, self.largest * ratio
        if pool:
            spread = torch.maximum(spread, self.spread_pool)
            largest = torch.maximum(largest, self.largest_pool)
        deviation = spread.sqrt() + self.swing.sqrt() * ratio
        error = (2.0 * SURPRISE) ** 0.5 * deviation + SURPRISE * largest + self.lasting
        return error.nan_to_num(nan=float("inf"), posinf=float("inf"))
