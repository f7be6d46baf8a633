"""Training of the linear softmax probe to its optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.probes.model import SoftmaxModel

Progress = Callable[[str, int, int], None]

# Squared Newton decrement in nats at which the fit counts as converged: the error that it leaves in
# any loss is below it, and so far below the smallest score of interest.
TARGET_DECREMENT = 1e-20
ACCEPTED_DECREMENT = 1e-10
# A factor is kept while a step with it shrinks the squared decrement at least this much. The factor
# that is left at the end was then built where the curvature is within about 1 % of the optimum's.
REUSE_RATE = 1e-4


@dataclass
class Curvature:
    """`H̄ = Σ h_j + λ₋ I` in class-contrast coordinates with its Cholesky factor.

    Attributes:
        factor: Lower Cholesky factor `(K', K')`, float64.
        shape: `(C − 1, D)`.
    """

    factor: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, model: SoftmaxModel) -> Curvature:
        """Accumulate and factorise the curvature of `model` at its current weights.

        Args:
            model: Data and weights.

        Returns:
            The factorised curvature.

        Raises:
            InputError: If the matrix is not positive definite in float64.
        """
        matrix = model.hessian()
        matrix.diagonal().add_(model.loo_ridge)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            raise InputError(
                "The probe's curvature is singular: the weight decay is too small for the features' scale. "
                "Standardise the features or raise weight_decay."
            )
        return cls(factor, (model.theta.shape[0], model.theta.shape[1]))

    def solve(self, right: Tensor) -> Tensor:
        """Return `H̄⁻¹ v` for `right` of shape `(C − 1, D)`."""
        return torch.cholesky_solve(right.reshape(-1, 1), self.factor).view(self.shape)

    def inverse(self) -> Tensor:
        """Return `H̄⁻¹` as a full symmetric `(K', K')` matrix."""
        return torch.cholesky_inverse(self.factor)


@dataclass(frozen=True)
class FitReport:
    """What the fit achieved, for the manifest.

    Attributes:
        gradient_norm: Norm of the gradient of the mean objective.
        decrement: Squared Newton decrement of the sum objective, in nats.
        iterations: Newton steps taken after the warm start.
        mean_loss: Mean cross-entropy without the penalty.
        train_accuracy: Share of samples whose most likely class is their label.
    """

    gradient_norm: float
    decrement: float
    iterations: int
    mean_loss: float
    train_accuracy: float


def warm_start(model: SoftmaxModel, iterations: int = 60) -> Tensor:
    """Return weights near the optimum by L-BFGS in coordinates whitened by the features' spread.

    Args:
        model: The untrained model.
        iterations: Upper limit of L-BFGS iterations.
    """
    dtype = model.design.dtype
    gram = torch.zeros((model.design.n_features,) * 2, dtype=dtype, device=model.design.device)
    for _, x in model.design.blocks(8192):
        gram.addmm_(x.T, x)
    c = model.n_classes
    values, vectors = torch.linalg.eigh(gram.to(torch.float64))
    # At zero weights every S'_j is I / C, so that this is the exact Hessian there.
    scale = (values.clamp_min(0) / c + model.ridge).rsqrt()
    to_weights = (vectors * scale).T
    free = torch.zeros_like(model.theta, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [free],
        max_iter=iterations,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        theta = free.detach() @ to_weights
        loss, gradient = model.objective_and_gradient(theta, dtype)
        free.grad = gradient @ to_weights.T / model.n_samples
        return loss / model.n_samples

    optimizer.step(closure)
    return free.detach() @ to_weights


def fit(
    model: SoftmaxModel, progress: Progress | None = None, max_iterations: int = 200
) -> tuple[SoftmaxModel, Curvature, FitReport]:
    """Train `model` to its optimum by Newton's method, reusing a factor while it still contracts.

    Args:
        model: The untrained model; its `design` type decides the type of the large products.
        progress: Called as `progress("fit", done, total)`.
        max_iterations: Limit of Newton steps.

    Returns:
        The trained model, the factorised curvature at its weights and a report.

    Raises:
        ConvergenceError: If the optimum is not reached.
        InputError: If the curvature is singular.
    """
    if model.design.n_samples * model.theta.numel() ** 2 > 2e11:
        model = replace(model, theta=warm_start(model))
    curvature, rate, stalled = Curvature.of(model), 1.0, 0
    objective, gradient = model.objective_and_gradient(model.theta)
    step = curvature.solve(gradient)
    decrement = float((step * gradient).sum())
    for iteration in range(1, max_iterations + 1):
        if decrement <= TARGET_DECREMENT or (decrement <= ACCEPTED_DECREMENT and stalled >= 2):
            break
        model, objective, gradient = _line_search(model, step, decrement, objective)
        step = curvature.solve(gradient)
        reached = float((step * gradient).sum())
        rate, decrement = reached / decrement, reached
        stalled = stalled + 1 if rate > 0.25 else 0
        if rate > REUSE_RATE and decrement > ACCEPTED_DECREMENT:
            curvature, rate = Curvature.of(model), 1.0
            step = curvature.solve(gradient)
            decrement = float((step * gradient).sum())
        if progress is not None:
            progress("fit", iteration, 0)
    if not decrement <= ACCEPTED_DECREMENT:
        raise ConvergenceError(
            f"The probe did not reach its optimum in {max_iterations} Newton steps (decrement {decrement:.1e}"
            " nats). Standardise the features or raise weight_decay."
        )
    return model, curvature, _report(model, objective, gradient, decrement, iteration)


def _line_search(
    model: SoftmaxModel, step: Tensor, decrement: float, objective: float
) -> tuple[SoftmaxModel, float, Tensor]:
    """Return the model, its objective and its gradient after a backtracking Newton step."""
    length, rounding = 1.0, 1e-13 * abs(objective)
    while True:
        theta = model.theta - length * step
        value, gradient = model.objective_and_gradient(theta)
        if value <= objective - 1e-4 * length * decrement + rounding or length < 1e-10:
            return replace(model, theta=theta), value, gradient
        length *= 0.5


def _report(
    model: SoftmaxModel, objective: float, gradient: Tensor, decrement: float, iterations: int
) -> FitReport:
    n = model.n_samples
    penalty = 0.5 * model.ridge * float((model.theta**2).sum())
    hits = sum(
        int((model.probabilities(x).argmax(-1) == model.target[rows]).sum())
        for rows, x in model.design.blocks(8192)
    )
    return FitReport(float(gradient.norm()) / n, decrement, iterations, (objective - penalty) / n, hits / n)
