r"""Leave-one-out optima by L-BFGS, for many samples at once, each until its certificate is within `tol`.

A sweep over all rows gives the gradient of each leave-one-out objective at :math:`\theta + \delta`, and the
posterior's curvature there. A solver that inverts the curvature without the sample, exactly or roughly,
preconditions the step; what earlier steps told of the curvature corrects it (`Secants`). A sample drops out
when it is certified.

The certificate is built from relative quantities: q, the size of the step compared with δ in the metric of
the mean term; ρ, the contraction from one step to the next, in that metric or in that of
:math:`H_{-i}`, whichever is slower; κ, the sensitivity of the value to a shift of the curvature; and σ, the
change of the value since the last sweep:

.. math:: 6 \left[ \frac{(2 q + \sigma) \rho}{1 - \rho} + 2 q \kappa \right]:

The terms are the remaining error of the mean term after this step, the further change of the value if it
keeps contracting at this rate, and the curvature's lag of one step. The factor is a margin; the tests compare
the certificate with brute force.

In double precision, to a tolerance far below any that a user asks for, this is also the brute force that
engines are audited with: the solver only preconditions, and the gradient itself says when a walk has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.exact import TINY, ExactScorer, Preconditioner, Removed
from lsi.loo.newton.secants import Secants, dot
from lsi.loo.newton.sweep import Sweep, sweep
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.model import SoftmaxModel

INF = float("inf")
MARGIN = 6.0
UNSEEN = 3.0  # the first contraction cannot be observed: it is taken as UNSEEN · q
CLAIMED = 1e-2
EXACT_PRODUCTS, EXACT_WORK = 200, 4e11  # products of the safe solver, and operations a sample may cost
EXACT_BYTES = 1 << 30  # probabilities of left-out models that the safe solver may hold
OVERSHOT = -0.5  # slope behind a step, as a share of that before it, below which the step is taken back


@dataclass
class Refined:
    """Weights and divergence of B removals, with their certificates `(B,)`."""

    delta: Tensor
    terms: Terms
    certificate: Tensor


@dataclass
class _Walk:
    """Where the removals of a block that are not certified yet are on their way to their optima.

    Attributes:
        active: Their places in the block.
        secants: Their last steps.
        gradient: Gradient from which the last step was taken, `(B, C', D)`; empty before the first.
        step: That step, `(B, C', D)`: the weights moved by its negative.
        sizes: Sizes of the last step in two metrics, `(2, B)`; NaN before the first.
        before: Contraction seen before the last step.
        astray: Whether steps have ever grown or led too far. Such a walk can pause on a plateau, where the
            curvature is far below the solver's, so it has to look as if it had arrived twice in a row.
        arrived: Whether it looked so after the last step.
    """

    active: Tensor
    secants: Secants
    gradient: Tensor
    step: Tensor
    sizes: Tensor
    before: Tensor
    astray: Tensor
    arrived: Tensor

    @classmethod
    def start(cls, first: Removed, dtype: torch.dtype) -> _Walk:
        """Return the walk of all removals in `first`, before any step."""
        b, device = len(first.index), first.x.device
        unknown = torch.full((2, b), float("nan"), dtype=torch.float64, device=device)
        nothing = first.delta.new_empty((b, 0, 0), dtype=dtype)
        everything = torch.arange(b, device=device)
        never = torch.zeros_like(everything, dtype=torch.bool)
        zero = torch.zeros_like(unknown[0])
        return cls(everything, Secants(), nothing, nothing, unknown, zero, never, never.clone())

    def select(self, keep: Tensor) -> _Walk:
        """Return the removals picked by a mask."""
        names = ("active", "gradient", "step", "before", "astray", "arrived")
        kept = {name: getattr(self, name)[keep] for name in names}
        return _Walk(**kept, secants=self.secants.select(keep), sizes=self.sizes[:, keep])

    def arrive(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from the gradient behind the last step; return the gradient to go on from, and who overshot.

        A step that led far beyond the minimum along it is taken back. What it told of the curvature is kept,
        so that the next one is shorter.
        """
        if not self.gradient.numel():
            return gradient, torch.zeros_like(self.before, dtype=torch.bool)
        self.secants.add(self.step, self.gradient - gradient)
        overshot = ~(dot(self.step, gradient) > OVERSHOT * dot(self.step, self.gradient))
        return torch.where(overshot[:, None, None], self.gradient, gradient), overshot

    def contraction(
        self, sizes: Tensor, overshot: Tensor, unseen: float = UNSEEN, least: float = 0.0
    ) -> Tensor:
        """Return ρ: the larger of the last two ratios of sizes, and what curvature may vary over a step.

        It is never below `least`, which the solver leaves of an error that no step so far has shown.
        """
        first = self.sizes[0].isnan()
        ratio = torch.where(first, 0.0, sizes / self.sizes.clamp_min(TINY)).amax(0)
        ratio = torch.where(overshot, 1.0, ratio)  # steps do not shrink there: the next two certify nothing
        varies = unseen * torch.where(first, sizes, self.sizes).amax(0)
        found = torch.maximum(torch.maximum(ratio, self.before), varies).clamp_min(least)
        self.before, self.astray = ratio, self.astray | ~(ratio < 1.0)
        return found

    def goes_on(self, certified: Tensor) -> Tensor:
        """Return which removals need a further step, from which are certified now."""
        done = certified & (self.arrived | ~self.astray)
        self.arrived = certified
        return ~done

    def depart(self, gradient: Tensor, step: Tensor, sizes: Tensor) -> None:
        """Remember the step that is taken now."""
        self.gradient, self.step, self.sizes = gradient, step, sizes


class Refiner:
    """Refines removals of one model.

    Args:
        model: The full-data model; its design has the precision of sweeps and steps.
        solver: Preconditions the steps.
        posterior: The posterior whose divergence is the score.
        tol: Relative error to reach.
        max_passes: Sweeps of a sample before the safe solver takes over.

    Attributes:
        unseen: What the contraction is taken as at least, for each unit of the size of the step before.
        wary: Whether every walk has to look as if it had arrived twice in a row.
    """

    unseen = UNSEEN
    wary = False

    def __init__(
        self,
        model: SoftmaxModel,
        solver: Preconditioner,
        posterior: Posterior,
        tol: float,
        max_passes: int,
    ) -> None:
        self.model, self.solver, self.posterior = model, solver, posterior
        self.tol, self.max_passes = tol, max_passes
        # A smaller estimate than CLAIMED of the tolerance was not tested by a further step.
        rounding = 1e-8 if model.design.dtype == torch.float64 else posterior.float32_floor
        self.floor = rounding + CLAIMED * tol + posterior.rounding
        self._safe: ExactScorer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the safe solver behind: it holds a second copy of the features."""
        return {**self.__dict__, "_safe": None}

    def in_double(self, tol: float) -> Refiner:
        """Return the same in double precision, to another tolerance."""
        posterior = self.posterior.in_double()
        return Refiner(posterior.model, self.solver, posterior, tol, self.max_passes)

    def refine(self, first: Removed, start: Tensor | None = None) -> Refined:
        """Return the refined removals of the samples in `first`, from their first steps or from `start`.

        Shapes: start `(B, C', D)`.
        """
        b, device, dtype = len(first.index), first.x.device, self.model.design.dtype
        result = Refined(
            (first.delta if start is None else start).to(dtype, copy=True),
            self._nothing(first),
            torch.full((b,), INF, dtype=torch.float64, device=device),
        )
        seen, walk = self._seen(first), _Walk.start(first, dtype)
        walk.astray |= self.wary
        for _ in range(self.max_passes):
            self._step(first, seen, result, walk)
            walk = walk.select(walk.goes_on(result.certificate[walk.active] <= self.tol))
            if not len(walk.active):
                return result
        self._continue(first, result, walk.active)
        return result

    def _continue(self, first: Removed, result: Refined, active: Tensor) -> None:
        """Replace some results by those of the safe solver, where that is affordable."""
        model = self.model
        batch = EXACT_BYTES // (8 * model.n_samples * model.n_classes)
        if 4.0 * model.n_samples * model.theta.numel() * EXACT_PRODUCTS > EXACT_WORK or not batch:
            return
        if self._safe is None:
            self._safe = ExactScorer(self.posterior, self.solver)
        for which in active.split(batch):
            self._solve_safely(self._safe, first, result, which)

    def _solve_safely(self, safe: ExactScorer, first: Removed, result: Refined, which: Tensor) -> None:
        part = first.select(which)
        start = torch.where((result.certificate[which] < 1.0)[:, None, None], result.delta[which], part.delta)
        delta, error, terms = safe.score(part, start)
        result.delta[which] = delta.to(result.delta.dtype)
        result.certificate[which] = self.floor + 2.0 * MARGIN * error
        result.terms.mean[which], result.terms.covariance[which] = terms.mean, terms.covariance

    def _nothing(self, first: Removed) -> Terms:
        zero = torch.zeros(len(first.index), dtype=torch.float64, device=first.x.device)
        return Terms(zero, zero.clone())

    def _seen(self, removal: Removed) -> tuple[Tensor, ...]:
        """Return rows, residuals and own curvature of the removals in this refiner's precision."""
        x, residual = removal.x, removal.residual
        if x.dtype != self.model.design.dtype:
            x, residual, _ = self.model.residual_at(removal.index)
        return x, residual, self.posterior.own_curvature(removal.index)

    def _precondition(self, removal: Any, right: Tensor) -> Tensor:
        return self.solver.solve(removal, right.to(removal.x.dtype)).to(right.dtype)

    def _sweep(self, removal: Any, seen: tuple[Tensor, ...], delta: Tensor) -> tuple[Any, Sweep]:
        """Return what the posterior needs of the removals, and the sweep at `θ + δ`."""
        x, residual, own = seen
        swept = sweep(self.model, removal.index, delta, residual, x, self.posterior)
        return Removal(removal.index, x, own, delta), swept

    def _step(self, first: Removed, seen: tuple[Tensor, ...], result: Refined, walk: _Walk) -> None:
        """Take one step for each removal that still walks, and put what it finds into `result`."""
        active, removal = walk.active, first.select(walk.active)
        delta = result.delta[active]
        part, swept = self._sweep(removal, tuple(each[active] for each in seen), delta)
        gradient, overshot = walk.arrive(swept.gradient)
        if bool(overshot.any()):
            delta = torch.where(overshot[:, None, None], delta + walk.step, delta)
        step = walk.secants.solve(gradient, partial(self._precondition, removal))
        updated = delta - step
        frozen = self._terms(part, updated, None)
        metric = self._terms(part, step, None).mean
        # The curvature of the fit, not that of the posterior, decides how fast steps shrink. A step that is
        # small beside a stiff δ may be long in its metric: steps then shrink slowly.
        length = dot(step, gradient).clamp_min(0) / self._energy(removal)
        sizes = torch.stack([metric / frozen.mean.clamp_min(TINY), length]).sqrt()
        size, unseen = sizes[0], walk.sizes[0].isnan()
        least = getattr(self.solver, "contraction", 0.0)
        contraction = walk.contraction(sizes, overshot, self.unseen, least)
        terms, kappa = self._shifted_terms(part, updated, swept.shift, frozen, size, contraction)
        if not self.posterior.shift_is_current:
            contraction = torch.where(unseen, torch.maximum(contraction, kappa), contraction)
        before = result.terms.total[active]
        changed = torch.where(before > 0, (terms.total / before.clamp_min(TINY) - 1.0).abs(), kappa)
        certificate = self._certificate(size, contraction, kappa, changed)
        certificate[~(contraction < 1.0)] = float("inf")  # nothing is known of what is left
        result.delta[active], result.certificate[active] = updated, certificate.nan_to_num(INF, INF)
        result.terms.mean[active], result.terms.covariance[active] = terms.mean, terms.covariance
        walk.depart(gradient, step, sizes)

    def _energy(self, removal: Any) -> Tensor:
        """Return `δᵀ H₋ᵢ δ` of the first-order steps, `(B,)`: δ times the gradient that they are against."""
        own = ((removal.delta @ removal.x[:, :, None])[:, :, 0] * removal.residual).sum(
            1, dtype=torch.float64
        )
        decay = removal.delta.flatten(1).to(torch.float64) @ self.model.theta.reshape(-1)
        return (own + self.model.weight_decay * decay).clamp_min(TINY)

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
        self, part: Any, delta: Tensor, shift: Any, frozen: Terms, size: Tensor, contraction: Tensor
    ) -> tuple[Terms, Tensor]:
        """Return the terms at the shifted curvature, and κ; infinite where computing it is not worthwhile.

        That is where even the next step, shorter by the contraction, would not be certified.
        """
        kappa = torch.full_like(size, INF)
        terms = Terms(frozen.mean.clone(), frozen.covariance.clone())
        ahead = 1.0 if self.posterior.shift_is_current else contraction.clamp_max(1.0)
        worth = self._certificate(size * ahead, contraction, torch.zeros_like(size)) <= self.tol
        if bool(worth.any()):
            picked = self._terms(part, delta, shift, worth)
            terms.mean[worth], terms.covariance[worth] = picked.mean, picked.covariance
            kappa[worth] = self._kappa(part, shift, picked, frozen.mean[worth], worth)
        return terms, kappa

    def _kappa(self, part: Any, shift: Any, terms: Terms, frozen_mean: Tensor, which: Tensor) -> Tensor:
        """Return κ: the relative change of the value for a relative change of the shift.

        The covariance term is about half the squared norm of the change of curvature, so the norm of the
        shift bounds its effect there; the difference to the frozen covariance term could cancel.
        """
        follows = (terms.mean - frozen_mean).abs()
        if not self.posterior.shift_is_current:
            alone = self._shift_alone(part, shift, which)
            follows = follows + 2.0 * (alone * terms.covariance).sqrt()
        return follows / terms.total.clamp_min(TINY)

    def _shift_alone(self, part: Any, shift: Any, which: Tensor) -> Tensor:
        """Return the covariance term of the shift without the removal itself, `(B,)`."""
        x, own = torch.zeros_like(part.x[which]), torch.zeros_like(part.curvature[which])
        still = torch.zeros_like(x)[:, None, :].expand(-1, len(self.model.theta), -1)
        return self.posterior.divergence(Removal(part.index[which], x, own, still, shift[which])).covariance

    def _terms(self, part: Any, delta: Tensor, shift: Any, which: Any = slice(None)) -> Terms:
        index, x, own = part.index[which], part.x[which], part.curvature[which]
        moved = None if shift is None else shift[which]
        return self.posterior.divergence(Removal(index, x, own, delta[which], moved))
