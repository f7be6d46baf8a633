r"""Refinement of first-order removals until each one's certificate is within `tol`.

A sweep over all rows gives the gradient of the leave-one-out objective at :math:`\theta + \delta`, from which
a further step with the same factor follows (a chord step), and the posterior's curvature at the new weights.
The certificate is built from relative quantities: q, the size of the step compared with δ in the metric of
the mean term; ρ, the observed contraction from one step to the next, in that metric or in that of
:math:`H_{-i}`, whichever is slower; κ, the sensitivity of the value to a shift of the curvature; and σ, the
change of the value since the last sweep:

.. math:: 6 \left[ \frac{(2 q + \sigma) \rho}{1 - \rho} + 2 q \kappa \right]:

The terms are the remaining error of the mean term after this step, the further change of the value if it
keeps contracting at this rate, and the curvature's lag of one step. The factor is a margin; the tests compare
the certificate with brute force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.exact import ExactScorer
from lsi.loo.newton.sweep import sweep
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.model import SoftmaxModel

MARGIN = 6.0
UNSEEN = 3.0  # the first contraction cannot be observed: it is taken as UNSEEN · q
SLOW = 0.5  # contraction above which chord steps give way to the exact solver


@dataclass
class Refined:
    """Weights and divergence of B removals, with their certificates `(B,)`."""

    delta: Tensor
    terms: Terms
    certificate: Tensor


class Refiner:
    """Refines removals of one model.

    Args:
        model: The full-data model.
        solver: First-order solver, whose factor serves every step.
        posterior: The posterior whose divergence is the score.
        start: Gradient remaining after the fit, `(C', D)`.
        tol: Relative error to reach.
        max_passes: Sweeps of a sample before the exact solver takes over.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        solver: DenseSolver,
        posterior: Posterior,
        start: Tensor,
        tol: float,
        max_passes: int,
    ) -> None:
        self.model, self.solver, self.posterior = model, solver, posterior
        self.start, self.tol, self.max_passes = start, tol, max_passes
        self.floor = 1e-8 if model.design.dtype == torch.float64 else posterior.float32_floor
        self.floor += posterior.rounding
        self._exact: ExactScorer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the exact solver behind: it holds a second copy of the features."""
        return {**self.__dict__, "_exact": None}

    def refine(self, first: FirstOrder) -> Refined:
        """Return the refined removals of the samples in `first`."""
        b = len(first.index)
        result = Refined(
            first.delta.clone(),
            self._empty(first.x),
            torch.full((b,), float("inf"), dtype=torch.float64, device=first.x.device),
        )
        # Sizes of the last step in the two metrics.
        previous = torch.full((2, b), float("nan"), dtype=torch.float64, device=first.x.device)
        active = torch.arange(b, device=first.x.device)
        for _ in range(self.max_passes):
            sizes, contraction = self._chord(first.select(active), result, active, previous[:, active])
            previous[:, active] = sizes
            open_ = result.certificate[active] > self.tol
            hopeless = open_ & ~(contraction < SLOW)
            self._solve_exactly(first, result, active[hopeless])
            active = active[open_ & ~hopeless]
            if not len(active):
                return result
        self._solve_exactly(first, result, active)
        return result

    def _empty(self, x: Tensor) -> Terms:
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return Terms(zero, zero.clone())

    def _chord(
        self, part: FirstOrder, result: Refined, active: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one chord step for the active samples; return its relative sizes and contraction ρ.

        Shapes: previous and sizes `(2, B)`, in the metric of the mean term and in that of H₋ᵢ.
        """
        delta = result.delta[active]
        swept = sweep(self.model, part.index, delta, self.start, part.residual, part.x, self.posterior)
        step = self.solver.solve(part, swept.gradient)
        updated = delta - step
        frozen = self._terms(part, updated, None)
        metric = self._terms(part, step, None).mean
        # The curvature of the fit, not that of the posterior, decides how fast steps shrink. A step that is
        # small beside a stiff δ may be long in its metric: steps then shrink slowly.
        energy = (step * swept.gradient).sum((1, 2), dtype=torch.float64).clamp_min(0)
        sizes = torch.stack([metric / frozen.mean.clamp_min(1e-300), energy / self._energy(part)]).sqrt()
        size, unseen = sizes[0], previous[0].isnan()
        contraction = torch.where(unseen, UNSEEN * sizes, sizes / previous.clamp_min(1e-300)).amax(0)
        terms, kappa = self._shifted_terms(part, updated, swept.shift, frozen, size, contraction)
        if not self.posterior.shift_is_current:
            contraction = torch.where(unseen, torch.maximum(contraction, kappa), contraction)
        before = result.terms.total[active]
        moved = torch.where(before > 0, (terms.total / before.clamp_min(1e-300) - 1.0).abs(), kappa)
        certificate = self._certificate(size, contraction, kappa, moved)
        result.delta[active], result.certificate[active] = updated, certificate.nan_to_num(nan=float("inf"))
        result.terms.mean[active], result.terms.covariance[active] = terms.mean, terms.covariance
        return sizes, contraction

    def _energy(self, part: FirstOrder) -> Tensor:
        """Return `δᵀ H₋ᵢ δ` of the first-order steps, `(B,)`: δ times the gradient that they are against."""
        own = ((part.delta @ part.x[:, :, None])[:, :, 0] * part.residual).sum(1, dtype=torch.float64)
        decay = part.delta.flatten(1).to(torch.float64) @ self.model.theta.reshape(-1)
        return (own + self.model.weight_decay * decay).clamp_min(1e-300)

    def _certificate(
        self, size: Tensor, contraction: Tensor, kappa: Tensor, moved: Tensor | None = None
    ) -> Tensor:
        """Return the certificate; without `moved` (σ), a lower bound on it."""
        tail = contraction / (1.0 - contraction).clamp_min(1e-3)
        remaining = 2.0 * size * tail
        if self.posterior.shift_is_current:
            return self.floor + MARGIN * remaining * (1.0 + kappa)
        moved = torch.zeros_like(size) if moved is None else moved
        return self.floor + MARGIN * (remaining + moved * tail + 2.0 * size * kappa)

    def _shifted_terms(
        self, part: FirstOrder, delta: Tensor, shift: Tensor, frozen: Terms, size: Tensor, contraction: Tensor
    ) -> tuple[Terms, Tensor]:
        """Return the terms at the shifted curvature, and κ; infinite where computing it is not worthwhile."""
        kappa = torch.full_like(size, float("inf"))
        terms = Terms(frozen.mean.clone(), frozen.covariance.clone())
        worth = torch.ones_like(size, dtype=torch.bool)
        if self.posterior.shift_is_current:
            worth = self._certificate(size, contraction, torch.zeros_like(size)) <= self.tol
        if bool(worth.any()):
            picked = self._terms(part.select(worth), delta[worth], shift[worth])
            terms.mean[worth], terms.covariance[worth] = picked.mean, picked.covariance
            kappa[worth] = self._kappa(part.select(worth), shift[worth], picked, frozen.mean[worth])
        return terms, kappa

    def _kappa(self, part: FirstOrder, shift: Tensor, terms: Terms, frozen_mean: Tensor) -> Tensor:
        """Return κ: the relative change of the value for a relative change of the shift.

        The covariance term is about half the squared norm of the change of curvature, so the norm of the
        shift bounds its effect there; the difference to the frozen covariance term could cancel.
        """
        follows = (terms.mean - frozen_mean).abs()
        if not self.posterior.shift_is_current:
            nothing = torch.zeros_like(part.x), torch.zeros_like(part.curvature), torch.zeros_like(part.delta)
            own = self.posterior.divergence(Removal(part.index, *nothing, shift)).covariance
            follows = follows + 2.0 * (own * terms.covariance).sqrt()
        return follows / terms.total.clamp_min(1e-300)

    def _terms(self, part: FirstOrder, delta: Tensor, shift: object) -> Terms:
        return self.posterior.divergence(Removal(part.index, part.x, part.curvature, delta, shift))

    def _solve_exactly(self, first: FirstOrder, result: Refined, which: Tensor) -> None:
        """Replace some results by those of the exact solver."""
        if not len(which):
            return
        if self._exact is None:
            self._exact = ExactScorer(self.posterior, self.solver, self.start)
        part = first.select(which)
        start = torch.where((result.certificate[which] < 1.0)[:, None, None], result.delta[which], part.delta)
        delta, error, terms = self._exact.score(part, start)
        result.delta[which] = delta.to(result.delta.dtype)
        result.certificate[which] = self.floor + 2.0 * MARGIN * error
        result.terms.mean[which], result.terms.covariance[which] = terms.mean, terms.covariance
