"""Training of the linear softmax probe to its optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.probes.softmax.lbfgs import lbfgs
from lsi.probes.softmax.model import ROWS, SoftmaxModel
from lsi.system.progress import Progress

Hessian = Callable[[SoftmaxModel, torch.dtype], Tensor]

# Squared Newton decrement at which the fit has converged, in nats, or relative to an objective below one. It
# bounds the error of any loss, and is far below the smallest score of interest.
TARGET_DECREMENT = 1e-20
ACCEPTED_DECREMENT = 1e-10  # squared decrement that is accepted where rounding allows no progress
# A factor is reused as long as a step with it shrinks the squared decrement to this share. The last factor is
# then from weights where the curvature is within about 1 % of the optimum's.
REUSE_RATE = 1e-4
DENSE_START = 1200  # number of weights above which a Hessian costs more than a warm start without one
# Weights from which a factor has single precision if it is as good as SINGLE_DRIFT: in double precision, it
# and its inverse take 10 s on two cores and twice the memory.
SINGLE_START, SINGLE_DRIFT = 8192, 1e-3
# The warm start ends when no entry of the gradient is larger, in coordinates where the Hessian is about one.
WARM_GRADIENT = 3e-4


@dataclass
class Curvature:
    """`H̄ = Σ h_j + λ₋ I` in class-contrast coordinates with its Cholesky factor.

    Attributes:
        factor: Lower Cholesky factor `(K', K')`, float64; of large matrices the type of the design.
        shape: `(C − 1, D)`.
        built_at: Weights at which the curvature was computed, `(C − 1, D)`.
        drift: Estimated relative error of the curvature, from the worst contraction of a step with it: the
            weights were slightly off the optimum, and the sums have the precision of the design.
    """

    factor: Tensor
    shape: tuple[int, int]
    built_at: Tensor
    drift: float = 0.0

    @classmethod
    def of(cls, model: SoftmaxModel, hessian: Hessian = SoftmaxModel.hessian) -> Curvature:
        """Accumulate and factorise the curvature of `model` at its current weights."""
        k, double = model.theta.numel(), torch.float64
        single = k > SINGLE_START and model.design.dtype == torch.float32
        for dtype in (torch.float32, double) if single else (double,):
            matrix = hessian(model, dtype)
            matrix.diagonal().add_(model.loo_ridge)
            failed = torch.zeros((), dtype=torch.int32, device=matrix.device)
            # In place on a processor; GPU libraries may not read what they write.
            out = (matrix, failed) if matrix.device.type == "cpu" else None
            factor, failed = torch.linalg.cholesky_ex(matrix, out=out)
            if int(failed):
                continue
            found = cls(factor, (model.theta.shape[0], model.theta.shape[1]), model.theta)
            if k > DENSE_START:
                found.drift = found.measured_drift(model)
            if dtype == double or found.drift <= SINGLE_DRIFT:
                return found
        raise InputError(
            "The probe's curvature is singular: the weight decay is too small for the features' scale. "
            "Standardise the features or raise weight_decay."
        )

    def solve(self, right: Tensor) -> Tensor:
        """Return `H̄⁻¹ v` for `right` of shape `(C − 1, D)`."""
        # In units of its own size: a small gradient has no digits left where it is squared in float32.
        unit = right.abs().amax().clamp_min(torch.finfo(right.dtype).tiny)
        column = (right / unit).reshape(-1, 1).to(self.factor)
        return torch.cholesky_solve(column, self.factor).to(right).view(self.shape) * unit

    def measured_drift(self, model: SoftmaxModel) -> float:
        """Return `‖H̄⁻¹H v − v‖ / ‖v‖` in the metric of the factor, for one v from N(0, H̄⁻¹).

        H v is a product with the curvature of `model` in double precision.
        """
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn((self.factor.shape[0], 1), generator=generator, dtype=torch.float64)
        normal = normal.to(self.factor)
        v = torch.linalg.solve_triangular(self.factor.mT, normal, upper=True)
        v = v.view(self.shape).to(torch.float64)
        image = (model.hessian_product(v) + model.loo_ridge * v).reshape(-1, 1).to(self.factor)
        off = torch.linalg.solve_triangular(self.factor, image, upper=False) - normal
        return float(off.norm() / normal.norm())

    def into_inverse(self) -> Tensor:
        """Return `H̄⁻¹` as a full symmetric `(K', K')` matrix, in the memory of the factor, which is lost."""
        factor, self.factor = self.factor, torch.empty(0)
        return torch.cholesky_inverse(factor, out=factor if factor.device.type == "cpu" else None)


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


def warm_start(model: SoftmaxModel, iterations: int = 100) -> Tensor:
    """Return weights near the optimum `(C − 1, D)`, by L-BFGS in whitened coordinates."""
    dtype, device = model.design.dtype, model.design.device
    gram = torch.zeros((model.design.n_features,) * 2, dtype=dtype, device=device)
    for _, x in model.design.blocks(ROWS):
        gram.addmm_(x.T, x)
    values, vectors = torch.linalg.eigh(gram.to(torch.float64))
    # θ = z A with A = (Λ/C + λI)^{-1/2} Vᵀ from XᵀX = V Λ Vᵀ. At θ = 0 every S'_j is I/C, so that the Hessian
    # by z is the identity.
    to_weights = (vectors * (values.clamp_min(0) / model.n_classes + model.ridge).rsqrt()).T

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(free).to(device).view(model.theta.shape) @ to_weights
        loss, gradient = model.objective_and_gradient(theta, dtype)
        return loss, (gradient @ to_weights.T).reshape(-1).cpu().numpy()

    options = {"maxiter": iterations, "maxcor": 20, "gtol": WARM_GRADIENT, "ftol": 0.0}
    found = lbfgs(objective, np.zeros(model.theta.numel()), options)
    return torch.from_numpy(found.x).to(device).view(model.theta.shape) @ to_weights


def fit(
    model: SoftmaxModel,
    progress: Progress | None = None,
    max_iterations: int = 200,
    hessian: Hessian = SoftmaxModel.hessian,
    curvature: Curvature | None = None,
    target: float = TARGET_DECREMENT,
) -> tuple[SoftmaxModel, Curvature, FitReport]:
    """Train `model` to its optimum by Newton's method, reusing a factor while it still contracts.

    `curvature` is what the first steps are taken with; None: that of the model, which is factorised.

    With the step `s = H̄⁻¹ ∇F`, the squared Newton decrement is `∇Fᵀ s`, and the rate of a step is the ratio
    of two successive decrements.
    """
    if model.theta.numel() > DENSE_START and not bool(model.theta.any()):
        model = replace(model, theta=warm_start(model))
    curvature, rate, stalled = curvature or Curvature.of(model, hessian), 1.0, 0
    objective, gradient = model.objective_and_gradient(model.theta)
    step = curvature.solve(gradient)
    decrement = float((step * gradient).sum())
    for iteration in range(1, max_iterations + 1):
        unit = min(1.0, objective)
        if decrement <= target * unit or (decrement <= ACCEPTED_DECREMENT * unit and stalled >= 2):
            break
        model, objective, gradient = line_search(model, step, decrement, objective)
        step = curvature.solve(gradient)
        reached = float((step * gradient).sum())
        rate, before, decrement = max(reached, 0.0) / decrement, decrement, reached
        if before > ACCEPTED_DECREMENT * unit:  # below, the rate is rounding
            curvature.drift = max(curvature.drift, rate**0.5)
        stalled = stalled + 1 if rate > 0.25 else 0
        if rate > REUSE_RATE and decrement > ACCEPTED_DECREMENT * unit:
            curvature, rate = Curvature.of(model, hessian), 1.0
            step = curvature.solve(gradient)
            decrement = float((step * gradient).sum())
        if progress is not None:
            progress("fit", iteration, 0)
    if not decrement <= max(target, ACCEPTED_DECREMENT) * min(1.0, objective):
        raise ConvergenceError(
            f"The probe did not reach its optimum in {max_iterations} Newton steps (decrement {decrement:.1e}"
            " nats). Standardise the features or raise weight_decay."
        )
    if curvature.drift > 1e-6 and model.theta.numel() <= DENSE_START:
        curvature = Curvature.of(model, hessian)
    return model, curvature, fit_report(model, objective, gradient, decrement, iteration)


def line_search(
    model: SoftmaxModel,
    step: Tensor,
    decrement: float,
    objective: float,
    dtype: torch.dtype = torch.float64,
) -> tuple[SoftmaxModel, float, Tensor]:
    """Return the model, its objective and its gradient after a Newton step with backtracking (Armijo's rule).

    Shapes: step `(C − 1, D)`.
    """
    length, rounding = 1.0, (1e-13 if dtype == torch.float64 else 1e-6) * abs(objective)
    while True:
        theta = model.theta - length * step
        value, gradient = model.objective_and_gradient(theta, dtype)
        if value <= objective - 1e-4 * length * decrement + rounding or length < 1e-10:
            return replace(model, theta=theta), value, gradient
        length *= 0.5


def fit_report(
    model: SoftmaxModel, objective: float, gradient: Tensor, decrement: float, iterations: int
) -> FitReport:
    """Return the report of a fit."""
    n = model.n_samples
    penalty = 0.5 * model.ridge * float((model.theta**2).sum())
    hits = sum(
        int((model.probabilities(x).argmax(-1) == model.target[rows]).sum())
        for rows, x in model.design.blocks(ROWS)
    )
    return FitReport(float(gradient.norm()) / n, decrement, iterations, (objective - penalty) / n, hits / n)
