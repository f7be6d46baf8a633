"""Training of a probe of many classes to its optimum: Newton steps by conjugate gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.probes.blocks import BlockCurvature
from lsi.probes.entries import ClassEntries
from lsi.probes.fit import ACCEPTED_DECREMENT, FitReport, fit_report, line_search, warm_start
from lsi.probes.model import ROWS, SoftmaxModel
from lsi.progress import Progress

# Squared Newton decrement in nats at which the fit counts as converged. First-order removals are taken at the
# weights that the fit found, so that its error enters them only in second order.
TARGET = 1e-11
WARM_WORK = 4e12  # operations that gradient descent before the first Newton step may cost
SCALES = 0.5 * 2.0 ** torch.arange(10)
SCALE_ROWS = 20_000  # rows on which the scale of the least-squares start is chosen
COARSE = 1e-4  # decrement relative to the objective above which sums are taken in single precision
ROUGH, FINE = 1e-2, 1e-6  # squared residuals that conjugate gradients leave, far from the optimum and near it


def fit_blocks(
    model: SoftmaxModel, progress: Progress | None = None, max_iterations: int = 60
) -> tuple[SoftmaxModel, BlockCurvature, FitReport]:
    """Train `model` to its optimum without ever forming its `(K, K)` Hessian.

    Args:
        model: The untrained model, with a float32 design.
        progress: Called as `progress("fit", done, total)`.
        max_iterations: Limit of Newton steps.

    Returns:
        The trained model, its class blocks and a report.

    Raises:
        ConvergenceError: If the optimum is not reached.
        InputError: If a class block is singular.
    """
    work = 4.0 * model.n_samples * model.theta.numel()
    warm = int(min(100, WARM_WORK / work))
    start = warm_start(model, warm) if warm >= 20 else least_squares_start(model)
    model = replace(model, theta=start)
    curvature = BlockCurvature.of(model)
    objective, gradient = model.objective_and_gradient(model.theta, model.design.dtype)
    before, stalled, iteration = float("inf"), 0, 0
    while True:
        # Far from the optimum the quadratic model is wrong anyway; near it a step is worth its digits.
        step = curvature.solve(gradient, ROUGH if before > 1e-3 * objective else FINE)
        decrement = float((step * gradient).sum())
        unit = min(1.0, objective)
        stalled = stalled + 1 if decrement > 0.25 * before else 0
        if decrement <= TARGET * unit or (decrement <= ACCEPTED_DECREMENT * unit and stalled >= 2):
            break
        if iteration == max_iterations or decrement != decrement:
            raise ConvergenceError(
                f"The probe did not reach its optimum in {iteration} Newton steps (decrement "
                f"{decrement:.1e} nats). Standardise the features or raise weight_decay."
            )
        # Single precision is exact enough while a step gains more than its rounding.
        dtype = model.design.dtype if decrement > COARSE * objective else torch.float64
        model, objective, gradient = line_search(model, step, decrement, objective, dtype)
        drifted, before, iteration = decrement > 0.05 * objective, decrement, iteration + 1
        # The blocks are only the preconditioner here; the entries are the Hessian itself.
        curvature = (
            BlockCurvature.of(model)
            if drifted
            else replace(curvature, model=model, entries=ClassEntries.of(model))
        )
        if progress is not None:
            progress("fit", iteration, 0)
    curvature = BlockCurvature.of(model, curvature.entries)
    return model, curvature, fit_report(model, objective, gradient, decrement, iteration)


def least_squares_start(model: SoftmaxModel) -> Tensor:
    r"""Return the ridge regression on the labels, scaled to the least cross-entropy on a part of the rows.

    .. math:: \theta = s\,Y^\top X (X^\top X + \lambda I)^{-1}, \qquad Y_{jc} = 1[y_j = c] - 1/C

    Two passes over the rows, where gradient descent from zero needs dozens.

    Args:
        model: The untrained model.
    """
    d = model.design.n_features
    gram = torch.zeros((d, d), dtype=torch.float64, device=model.design.device)
    sums = torch.zeros((model.n_classes, d), dtype=torch.float64, device=model.design.device)
    for rows, x in model.design.blocks(ROWS):
        double = x.to(torch.float64)
        gram += double.T @ double
        sums.index_add_(0, model.target[rows], double)
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
