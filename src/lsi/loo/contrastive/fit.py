"""Local optima of the contrastive objective: L-BFGS in float64, preconditioned if a factor is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.loo.contrastive.curvature import dense_curvature
from lsi.loo.contrastive.model import PairModel
from lsi.probes.softmax.lbfgs import lbfgs

_MEMORY = 20
TOLERANCE = 1e-7
"""Largest entry of the gradient at the optimum, relative to that at the initial weights."""
ROUNDS = 4
"""Most rounds of preconditioned L-BFGS that continue a fit."""


@dataclass(frozen=True)
class PairFit:
    """What a fit achieved.

    Attributes:
        iterations: Steps of L-BFGS.
        gradient: Largest entry of the remaining gradient, relative to that at the initial weights.
        loss: Mean loss without the penalty.
    """

    iterations: int
    gradient: float
    loss: float


class Preconditioner:
    """Change of variables in which the full-data Hessian is the identity.

    Args:
        factor: Lower Cholesky factor of the Hessian, `(K, K)`; None: no change.
    """

    def __init__(self, factor: Tensor | None) -> None:
        self.factor = factor

    def to_weights(self, eta: Tensor) -> Tensor:
        """Return `L⁻ᵀ η`."""
        return eta if self.factor is None else self._solve(self.factor.T, eta, upper=True)

    def to_gradient(self, gradient: Tensor) -> Tensor:
        """Return `L⁻¹ g`."""
        return gradient if self.factor is None else self._solve(self.factor, gradient, upper=False)

    @staticmethod
    def _solve(matrix: Tensor, right: Tensor, upper: bool) -> Tensor:
        column = right.to(matrix.dtype)[:, None]
        return torch.linalg.solve_triangular(matrix, column, upper=upper)[:, 0].to(torch.float64)


def minimise(
    model: PairModel,
    start: Tensor,
    *,
    tolerance: float,
    scale: float,
    preconditioner: Preconditioner | None = None,
    tick: Callable[[], None] | None = None,
    limit: int = 2000,
    strict: bool = True,
) -> tuple[Tensor, int, float]:
    """Return the local optimum that L-BFGS reaches, its number of steps, and the remaining relative gradient.

    Shapes: start `(K,)`.
    """
    change = preconditioner or Preconditioner(None)

    def evaluate(eta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = model.value_gradient(start + change.to_weights(torch.from_numpy(eta)))
        return float(value), change.to_gradient(gradient).numpy()

    options = {
        "maxiter": limit,
        "maxfun": 2 * limit,
        "ftol": 0.0,
        "gtol": tolerance * scale,
        "maxcor": _MEMORY,
    }
    found = lbfgs(evaluate, np.zeros(len(start)), options, None if tick is None else lambda _: tick())
    left = float(np.abs(found.jac).max()) / scale
    if not np.isfinite(left) or (strict and left > 1000 * tolerance):
        raise ConvergenceError(_stopped(left, found.nit))
    return start + change.to_weights(torch.from_numpy(found.x)), int(found.nit), left


def fit(model: PairModel, tick: Callable[[], None] | None = None) -> tuple[Tensor, PairFit]:
    """Train both heads from their initial weights on all pairs."""
    scale = max(float(model.value_gradient(model.initial)[1].abs().max()), 1e-300)
    theta, iterations, left = minimise(
        model, model.initial, tolerance=TOLERANCE, scale=scale, tick=tick, limit=300, strict=False
    )
    for _ in range(ROUNDS):
        if left <= TOLERANCE:
            break
        # Unequal scales of features slow L-BFGS down; the positive definite Gauss-Newton matrix evens them
        # out.
        curvature = dense_curvature(model, theta, newton=False, dtype=torch.float64)
        curvature.diagonal().add_(max(model.ridge, 1e-6 * float(curvature.diagonal().mean())))
        change = Preconditioner(torch.linalg.cholesky(curvature))
        inner = float(change.to_gradient(model.value_gradient(theta)[1]).abs().max())
        theta, more, _ = minimise(
            model,
            theta,
            tolerance=1e-4,
            scale=inner,
            preconditioner=change,
            tick=tick,
            limit=100,
            strict=False,
        )
        iterations += more
        left = float(model.value_gradient(theta)[1].abs().max()) / scale
    if left > 1000 * TOLERANCE:
        raise ConvergenceError(_stopped(left, iterations))
    penalty = 0.5 * model.ridge * float((theta - model.initial).square().sum())
    loss = (float(model.value_gradient(theta)[0]) - penalty) / model.n_pairs
    return theta, PairFit(iterations, left, loss)


def _stopped(left: float, iterations: int) -> str:
    return (
        f"Training of the heads stopped at {left:.1g} of the first gradient after {iterations} steps "
        "(a batch of pairs may have no smooth optimum). Raise weight_decay, norm_floor or temperature."
    )
