r"""Leave-one-out optima of large problems: chord steps by conjugate gradients.

The gradient of the leave-one-out objective is taken at :math:`\theta + \delta_i` from all rows and all
classes; the step against it is solved with the curvature at :math:`\theta` without the sample, in the
sparse form of the class entries. Solving roughly only costs further steps, since convergence is judged by the
gradient itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.blocks import BlockRemoval, BlockSolver
from lsi.loo.newton.exact import ExactScorer
from lsi.loo.newton.sweep import sweep
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.cg import conjugate_gradients

GOAL = 1e-3  # squared residual at which conjugate gradients stop: each step then gains a digit and a half
SLOW = 0.5  # contraction above which the safe solver takes over
MARGIN = 6.0
EXACT_PRODUCTS, EXACT_WORK = 200, 4e11  # products of the safe solver, and operations a sample may cost
EXACT_BYTES = 1 << 30  # probabilities of one left-out model that the safe solver may hold


@dataclass
class ChordScorer:
    """Divergences at leave-one-out optima.

    Attributes:
        solver: Preconditioner and sparse curvature.
        posterior: The posterior whose divergence is the score.
        start: Gradient that the fit left over, `(C', D)`.
        tolerance: Squared size of a step relative to δ, in the metric of H₋ᵢ, at which steps stop.
        max_steps: Most steps.
    """

    solver: BlockSolver
    posterior: Posterior
    start: Tensor
    tolerance: float = 1e-8
    max_steps: int = 12

    def score(self, removal: BlockRemoval, delta: Tensor) -> tuple[Tensor, Tensor, Terms]:
        """Return the optima, their possible remaining relative errors, and the terms there.

        Shapes: delta `(B, C', D)`.
        """
        delta, error = self._solve(removal, delta.clone())
        model = self.solver.model
        swept = sweep(model, removal.index, delta, self.start, removal.residual, removal.x, self.posterior)
        terms = self.posterior.divergence(
            Removal(removal.index, removal.x, self.posterior.own_curvature(removal.index), delta, swept.shift)
        )
        hard = ~(error < SLOW)
        if bool(hard.any()) and self._affordable():
            exact = ExactScorer(self.posterior, self.solver, self.start, self.tolerance)
            part = removal.select(hard)
            found, left, exactly = exact.score(part, part.delta)
            delta[hard], error[hard] = found.to(delta.dtype), left
            terms.mean[hard], terms.covariance[hard] = exactly.mean, exactly.covariance
        return delta, error, terms

    def _affordable(self) -> bool:
        model = self.solver.model
        work = 4.0 * model.n_samples * model.theta.numel() * EXACT_PRODUCTS
        return 8 * model.n_samples * model.n_classes <= EXACT_BYTES and work <= EXACT_WORK

    def _solve(self, removal: BlockRemoval, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the optima and their remaining relative errors, infinite where steps do not contract."""
        b = len(delta)
        error = torch.full((b,), float("inf"), dtype=torch.float64, device=delta.device)
        before = error.clone()
        active = torch.arange(b, device=delta.device)
        for _ in range(self.max_steps):
            part = removal.select(active)
            step, size = self._step(part, delta[active])
            delta[active] -= step
            rate = torch.where(before[active].isinf(), size, size / before[active])
            error[active] = size * (rate / (1.0 - rate).clamp_min(1e-3)).clamp(1e-2, 1e3)
            diverges = ~(rate < SLOW) & before[active].isfinite() | ~(size < 2.0)
            error[active[diverges]] = float("inf")
            before[active] = size
            active = active[~diverges & (size.square() > self.tolerance)]
            if not len(active):
                break
        return delta, error

    def _step(self, part: BlockRemoval, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chord step and its size relative to δ in the metric of H₋ᵢ."""
        curvature, model = self.solver.curvature, self.solver.model
        gradient = sweep(model, part.index, delta, self.start, part.residual, part.x, None).gradient
        # In units of its own size: the square of a small gradient underflows in float32.
        unit = gradient.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
        right = curvature.contrasts @ (gradient / unit)
        product = partial(curvature.product, left_out=part.index)
        step = conjugate_gradients(product, partial(self.solver.precondition, part), right, GOAL, 60)
        gained = (step * right).sum((1, 2), dtype=torch.float64) * unit[:, 0, 0].to(torch.float64).square()
        whole = curvature.contrasts @ delta
        energy = (whole * product(whole)).sum((1, 2), dtype=torch.float64)
        size = (gained / energy.clamp_min(torch.finfo(torch.float64).tiny)).clamp_min(0).sqrt()
        return (curvature.contrasts.T @ step) * unit, size
