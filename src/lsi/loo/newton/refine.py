r"""Refinement of first-order removals until each one's certificate is within `tol`.

A sweep over all rows gives the gradient of the leave-one-out objective at :math:`\theta + \delta`,
from which a further step with the same factor follows (a chord step), and the posterior's
curvature at the new weights. With q the size of the step relative to δ in the metric of the mean term, ρ the
observed contraction from one step to the next, κ how much the value follows the shifted curvature,
and σ by how much the value changed since the last sweep (all relative), the certificate is

.. math:: 6 \left[ \frac{(2 q + \sigma) \rho}{1 - \rho} + 2 q \kappa \right]:

what is left of the mean term after this step, what the value will still move if it goes on as it
did, and the curvature's lag of one step. The factor is a margin; the tests hold the certificate
against brute force.
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
UNSEEN = 3.0  # the first contraction is not observed: taken as this many times the step's relative size
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
        posterior: The posterior that the divergence is taken of.
        start: Gradient that the fit left over, `(C', D)`.
        tol: Relative error asked for.
        max_passes: Sweeps a sample before the exact solver takes over.
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
        previous = torch.full((b,), float("nan"), dtype=torch.float64, device=first.x.device)
        active = torch.arange(b, device=first.x.device)
        for _ in range(self.max_passes):
            size, contraction = self._chord(first.select(active), result, active, previous[active])
            previous[active] = size
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
        """Take one chord step for the active samples; return its relative size and contraction."""
        delta = result.delta[active]
        swept = sweep(self.model, part.index, delta, self.start, part.residual, part.x, self.posterior)
        step = self.solver.solve(part, swept.gradient)
        updated = delta - step
        frozen = self._terms(part, updated, None)
        metric = self._terms(part, step, None).mean
        size = (metric / frozen.mean.clamp_min(1e-300)).sqrt()
        contraction = torch.where(previous.isnan(), UNSEEN * size, size / previous.clamp_min(1e-300))
        terms, kappa = self._shifted_terms(part, updated, swept.shift, frozen, size, contraction)
        if not self.posterior.shift_is_current:
            contraction = torch.where(previous.isnan(), torch.maximum(contraction, kappa), contraction)
        before = result.terms.total[active]
        moved = torch.where(before > 0, (terms.total / before.clamp_min(1e-300) - 1.0).abs(), kappa)
        certificate = self._certificate(size, contraction, kappa, moved)
        result.delta[active], result.certificate[active] = updated, certificate.nan_to_num(nan=float("inf"))
        result.terms.mean[active], result.terms.covariance[active] = terms.mean, terms.covariance
        return size, contraction

    def _certificate(
        self, size: Tensor, contraction: Tensor, kappa: Tensor, moved: Tensor | None = None
    ) -> Tensor:
        """Return the certificate; without `moved`, what it will be at best."""
        tail = contraction / (1.0 - contraction).clamp_min(1e-3)
        remaining = 2.0 * size * tail
        if self.posterior.shift_is_current:
            return self.floor + MARGIN * remaining * (1.0 + kappa)
        moved = torch.zeros_like(size) if moved is None else moved
        return self.floor + MARGIN * (remaining + moved * tail + 2.0 * size * kappa)

    def _shifted_terms(
        self, part: FirstOrder, delta: Tensor, shift: Tensor, frozen: Terms, size: Tensor, contraction: Tensor
    ) -> tuple[Terms, Tensor]:
        """Return the terms at the shifted curvature and κ; infinite κ where its cost is not yet due."""
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
        """Return κ: how much the value follows a relative change of the shift.

        The covariance term is about half a squared norm of the change of curvature, so that the shift's
        own norm bounds what it does there. The difference to the frozen covariance term can cancel.
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
        """Replace some results by the exact solver's."""
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
