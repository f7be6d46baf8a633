"""Leave-one-out optima by damped Newton with conjugate gradients: slow, safe, in float64.

Used where L-BFGS does not arrive: where a sample decides what its neighbours' probabilities are. The solver
is only the preconditioner, and convergence is judged by the gradient of the leave-one-out objective itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.sweep import ELEMENTS, own_entries, row_blocks, sweep
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.cg import conjugate_gradients
from lsi.probes.softmax.math import curvature_times
from lsi.probes.softmax.model import SoftmaxModel


class Removed(Protocol):
    """B left-out samples with a first-order step, as a solver makes them."""

    index: Tensor
    x: Tensor
    residual: Tensor
    downdate: Tensor
    delta: Tensor

    def select(self, keep: Tensor) -> Any:
        """Return the removals picked by a mask or an index."""


class Preconditioner(Protocol):
    """Solves, exactly or roughly, with the curvature without a sample."""

    def solve(self, removal: Any, right: Tensor) -> Tensor:
        """Return about `H₋ᵢ⁻¹ v_i` for `right` of shape `(B, C', D)`."""


TINY = torch.finfo(torch.float64).tiny


@dataclass
class ExactSolver:
    """Newton-CG on each leave-one-out objective.

    Attributes:
        model: The full-data model with a float64 design.
        solver: Preconditioner.
        tolerance: Squared Newton decrement, relative to `δᵀH₋δ`, at which a sample counts as converged.
        max_steps: Most Newton steps.
    """

    model: SoftmaxModel
    solver: Preconditioner
    tolerance: float = 1e-20
    max_steps: int = 60

    def solve(self, removal: Removed, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the optima and, for each, its last relative Newton decrement (not squared).

        Shapes: delta `(B, C', D)`.
        """
        delta = delta.to(torch.float64).clone()
        x = self.model.design.take(removal.index)
        residual = self.model.residual_at(removal.index)[1]
        error = torch.full((len(delta),), float("inf"), dtype=torch.float64, device=delta.device)
        best, stalled = error.clone(), torch.zeros_like(error)
        active = torch.arange(len(delta), device=delta.device)
        for _ in range(self.max_steps):
            part = removal.select(active)
            gradient = sweep(
                self.model, part.index, delta[active], residual[active], x[active], None
            ).gradient
            operator = _Operator(self.model, part.index, delta[active])
            step = conjugate_gradients(operator, partial(self._precondition, part), gradient)
            decrement = (step * gradient).sum((1, 2))
            uphill = decrement <= 0
            if bool(uphill.any()):
                # Rounding has spoilt the direction; a decrement of zero would be mistaken for convergence.
                step[uphill] = self._plain_step(part.select(uphill), gradient[uphill])
                decrement = (step * gradient).sum((1, 2)).clamp_min(0)
            scale = (delta[active] * operator(delta[active])).sum((1, 2)).clamp_min(TINY)
            error[active] = (decrement / scale).sqrt()
            stalled[active] = torch.where(error[active] > 0.5 * best[active], stalled[active] + 1, 0.0)
            best[active] = torch.minimum(best[active], error[active])
            length = self._line_search(part.index, delta[active], step, decrement, operator)
            delta[active] -= length[:, None, None] * step
            # A stall at a tiny error is the rounding error of the gradient: nothing more can be gained.
            done = (error[active] ** 2 <= self.tolerance) | ((error[active] < 1e-6) & (stalled[active] >= 2))
            active = active[~done]
            if not len(active):
                break
        return delta, error

    def _precondition(self, removal: Removed, right: Tensor) -> Tensor:
        return self.solver.solve(removal, right.to(removal.x.dtype)).to(torch.float64)

    def _plain_step(self, removal: Removed, gradient: Tensor) -> Tensor:
        """Return `H̄⁻¹ gradient`, a descent direction: without the downdate `H̄` is positive definite."""
        plain = copy.copy(removal)
        plain.downdate = torch.zeros_like(removal.downdate)
        return self._precondition(plain, gradient)

    def _line_search(
        self, index: Tensor, delta: Tensor, step: Tensor, decrement: Tensor, operator: _Operator
    ) -> Tensor:
        """Return the step lengths by backtracking on the objective, one evaluation for all samples."""
        length = torch.ones(len(index), dtype=torch.float64, device=delta.device)
        before = operator.objective
        for _ in range(40):
            after = _objective(self.model, index, delta - length[:, None, None] * step)
            slack = 1e-12 * (before.abs() + 1.0)
            worse = after > before - 1e-4 * length * decrement + slack
            if not bool(worse.any()):
                break
            length = torch.where(worse, 0.5 * length, length)
        return length


def _objective(model: SoftmaxModel, index: Tensor, delta: Tensor) -> Tensor:
    """Return `F₋ᵢ(θ + δ) − F₋ᵢ(θ)`, `(B,)`, in difference form."""
    flat_theta = model.theta.reshape(-1)
    flat = delta.reshape(len(index), -1)
    value = model.loo_ridge * (flat @ flat_theta + 0.5 * flat.square().sum(1))
    for block in row_blocks(model, index, delta):
        # log Σ p exp(s) − s_y is the change of the cross-entropy
        loss = (block.probabilities.clamp_min(1e-300).log()[:, :, None] + block.logit_shift).logsumexp(1)
        label = model.target[block.rows][:, None, None].expand(-1, 1, len(index))
        loss -= block.logit_shift.gather(1, label)[:, 0, :]
        loss[block.own[0], block.own[2]] = 0.0
        value += (loss * block.weight[:, None]).sum(0)
    return value


class _Operator:
    """Product with the leave-one-out Hessian at `θ + δ_i`, for B removals."""

    def __init__(self, model: SoftmaxModel, index: Tensor, delta: Tensor) -> None:
        self.model, self.index = model, index.cpu()  # asking a GPU in every block would wait for it
        self.objective = _objective(model, index, delta)
        # All probabilities are kept: their size (N, C, B) limits how many samples one call may hold.
        self.probabilities = torch.cat(
            [block.change + block.probabilities[:, :, None] for block in row_blocks(model, index, delta)]
        )

    def __call__(self, v: Tensor) -> Tensor:
        b, k, d = v.shape
        model, c = self.model, self.model.n_classes
        flat = (model.contrasts @ v).transpose(0, 1).reshape(c * b, d)
        out = torch.zeros_like(flat)
        for rows, x in model.design.blocks(max(64, ELEMENTS // (b * c))):
            p = self.probabilities[rows]
            image = curvature_times(p, (x @ flat.T).view(len(x), c, b)).mul_(model.weight[rows, None, None])
            image[own_entries(self.index, rows)] = 0.0
            out.addmm_(image.view(len(x), c * b).T, x)
        image = (model.contrasts.T @ out.view(c, b * d)).view(k, b, d).transpose(0, 1)
        return image + model.loo_ridge * v


class ExactScorer:
    """Divergences at exact optima, with model and posterior in float64.

    Args:
        posterior: The posterior whose divergence is the score, of the full-data model.
        solver: Preconditioner.
        tolerance: As in `ExactSolver`.
    """

    def __init__(self, posterior: Posterior, solver: Preconditioner, tolerance: float = 1e-20) -> None:
        self.model = replace(posterior.model, design=posterior.model.design.astype(torch.float64))
        self.posterior = copy.copy(posterior)
        self.posterior.model = self.model
        self.solver = ExactSolver(self.model, solver, tolerance)

    def score(self, removal: Removed, delta: Tensor) -> tuple[Tensor, Tensor, Terms]:
        """Return the optima, their last relative decrements and the terms there.

        Shapes: delta `(B, C', D)`.
        """
        delta, error = self.solver.solve(removal, delta)
        index = removal.index
        x, residual, _ = self.model.residual_at(index)
        shift = sweep(self.model, index, delta, residual, x, self.posterior).shift
        curvature = self.posterior.own_curvature(index)
        return delta, error, self.posterior.divergence(Removal(index, x, curvature, delta, shift))
