"""Training of a probe of many classes: L-BFGS, then Newton steps by conjugate gradients, to the optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.probes.softmax.blocks import WholeCurvature
from lsi.probes.softmax.class_factors import ClassFactors
from lsi.probes.softmax.fit import ACCEPTED_DECREMENT, FitReport, fit_report, line_search
from lsi.probes.softmax.lbfgs import lbfgs
from lsi.probes.softmax.model import ROWS, SoftmaxModel
from lsi.system.device import add_rows
from lsi.system.progress import Progress

# Squared Newton decrement in nats at which the fit has converged. First-order removals start from the fitted
# weights, so that the error of the fit enters them in second order only.
TARGET = 1e-13
# Rounds of L-BFGS, each with new factors: the maximum number of iterations, and the decrement that ends the
# round, as a share of the objective.
ROUNDS = ((8, 1e-2), (60, 1e-8))
NOISE = 1e-10  # relative changes of the objective below this are rounding in single precision
TINY = float(np.finfo(float).tiny)
SCALES = 0.5 * 2.0 ** torch.arange(10)  # candidates for the scale s of the least-squares start
SCALE_ROWS = 20_000  # rows on which s is chosen
ROUGH, FINE = 1e-2, 1e-6  # share of the squared residual that conjugate gradients leave, at most and at least
GUESS = 3.0  # factor by which the decrement from the factors' diagonal blocks may be too small


def fit_blocks(
    model: SoftmaxModel,
    progress: Progress | None = None,
    max_iterations: int = 60,
    target: float = TARGET,
) -> tuple[SoftmaxModel, FitReport]:
    """Train `model` to its optimum without ever forming its `(K, K)` Hessian.

    Descent and directions are single precision; the objective and its gradient have the design's.
    """
    single = replace(model, design=model.design.astype(torch.float32))
    single, factors = descend(replace(single, theta=least_squares_start(single)), progress)
    model = replace(model, theta=single.theta)
    objective, gradient = model.objective_and_gradient(model.theta)
    before, stalled, iteration = float("inf"), 0, 0
    while True:
        unit = min(1.0, objective)
        # An estimate without a solve, from the class blocks alone: ‖L⁻¹ ∇F‖².
        decrement = float(factors.to_free(model.contrasts @ gradient).square().sum(dtype=torch.float64))
        if GUESS * decrement <= target * unit:
            break
        # Solve the step no more accurately than the target needs.
        goal = min(ROUGH, max(FINE, 0.1 * target * unit / decrement))
        single = replace(single, theta=model.theta)
        step = WholeCurvature(single).solve(gradient, factors.precondition, goal)
        decrement = float((step * gradient).sum())
        stalled = stalled + 1 if decrement > 0.25 * before else 0
        if decrement <= target * unit or (decrement <= ACCEPTED_DECREMENT * unit and stalled >= 2):
            break
        if iteration == max_iterations or decrement != decrement:
            raise ConvergenceError(
                f"The probe did not reach its optimum in {iteration} Newton steps (decrement "
                f"{decrement:.1e} nats). Standardise the features or raise weight_decay."
            )
        model, objective, gradient = line_search(model, step, decrement, objective)
        if decrement > 0.05 * objective or stalled:  # the factors are out of date
            factors = ClassFactors.of(single)
        before, iteration = decrement, iteration + 1
        if progress is not None:
            progress("fit", iteration, 0)
    return model, fit_report(model, objective, gradient, decrement, iteration)


def descend(model: SoftmaxModel, progress: Progress | None = None) -> tuple[SoftmaxModel, ClassFactors]:
    """Return the model near its optimum, by L-BFGS in coordinates where the class blocks are about one.

    An evaluation is one pass over the rows in single precision; a Newton step takes dozens of them.
    """
    done = 0
    for iterations, goal in ROUNDS:
        factors = ClassFactors.of(model)
        model, done = _descent(model, factors, iterations, goal, done, progress)
    return model, factors


def _descent(
    model: SoftmaxModel,
    factors: ClassFactors,
    iterations: int,
    goal: float,
    done: int,
    progress: Progress | None,
) -> tuple[SoftmaxModel, int]:
    """Return the model after a round of L-BFGS, and the number of evaluations so far."""
    contrasts, start = model.contrasts, model.contrasts @ model.theta
    state = (0.0, 0.0)

    def weights(free: np.ndarray) -> Tensor:
        moved = factors.to_weights(torch.from_numpy(free).to(start.device).view(start.shape))
        return contrasts.T @ (start + moved)

    def evaluate(free: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal state, done
        loss, gradient = model.objective_and_gradient(weights(free), model.design.dtype)
        slope = factors.to_free(contrasts @ gradient).to(torch.float64)
        state, done = (loss, float(slope.square().sum())), done + 1
        if progress is not None:
            progress("fit", done, 0)
        return loss, slope.reshape(-1).cpu().numpy()

    def arrived(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        if state[1] <= goal * state[0]:
            raise StopIteration

    first = evaluate(np.zeros(start.numel()))
    scale = max(state[1], TINY) ** 0.5  # makes the first step of L-BFGS, of length one, a Newton step

    def scaled(free: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = evaluate(free * scale) if free.any() else first
        return loss, slope * scale

    options = {"maxiter": iterations, "maxcor": 20, "gtol": 0.0, "ftol": NOISE}
    found = lbfgs(scaled, np.zeros(start.numel()), options, arrived)
    return replace(model, theta=weights(found.x * scale)), done


def least_squares_start(model: SoftmaxModel) -> Tensor:
    r"""Return the ridge regression on the labels, scaled to the smallest cross-entropy on some of the rows.

    .. math:: \theta = s\,Y^\top X (X^\top X + \lambda I)^{-1}, \qquad Y_{jc} = 1[y_j = c] - 1/C

    This takes two passes over the rows; gradient descent from zero needs dozens.
    """
    d = model.design.n_features
    gram = torch.zeros((d, d), dtype=torch.float64, device=model.design.device)
    sums = torch.zeros((model.n_classes, d), dtype=torch.float64, device=model.design.device)
    for rows, x in model.design.blocks(ROWS):
        double = x.to(torch.float64)
        gram += double.T @ double
        add_rows(sums, model.target[rows], double)
    gram.diagonal().add_(model.ridge)
    direction = torch.linalg.solve(gram, (model.contrasts.T @ sums).T).T
    losses = [_loss(model, scale * direction) for scale in SCALES.tolist()]
    return direction * SCALES[int(torch.tensor(losses).argmin())]


def _loss(model: SoftmaxModel, theta: Tensor) -> float:
    """Return the mean objective over rows spread evenly through the data."""
    index = torch.arange(0, model.n_samples, max(1, model.n_samples // SCALE_ROWS), device=theta.device)
    total = 0.0
    for part in index.split(ROWS):
        x = model.design.take(part)
        logits = x @ (model.contrasts @ theta).T.to(x.dtype)
        total += float(torch.nn.functional.cross_entropy(logits, model.target[part], reduction="sum"))
    return total / len(index) + 0.5 * model.weight_decay * float(theta.square().sum())
