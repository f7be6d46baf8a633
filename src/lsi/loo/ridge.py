r"""Leave-one-out of ridge regression in closed form: exact for every sample, from one factorisation.

All leave-one-out problems share the penalty :math:`\lambda_- = (n-1)\,\mathrm{wd}`, so that with
:math:`A = X^\top X + \lambda_- I` each of them is a change of rank one of A:

.. math:: \delta_i = \mathrm{wd}\, A^{-1}\theta \;-\; \frac{a_i \tilde r_i^\top}{1 - h_i}, \qquad
          a_i = A^{-1}x_i,\quad h_i = x_i^\top a_i,\quad \tilde r_i = y_i - x_i^\top A^{-1} X^\top Y .

The first part is what the smaller penalty does, the second what the sample does. The prediction
without the sample misses by :math:`\tilde r_i / (1 - h_i)`.

The curvature :math:`h_j = \mathrm{diag}(\beta) \otimes x_j x_j^\top` does not depend on the weights. Its
Kronecker factors (mean of diag(β), sum of :math:`x x^\top`) are exact with and without a sample, so that
"kron" and "full" are the same posterior here.

Source: Sherman and Morrison (1950) for the change of rank one; Allen, *The relationship between variable
selection and data augmentation and a method for prediction* (PRESS), Technometrics 1974.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, excess, full_divergence, separable_excess
from lsi.errors import InputError
from lsi.loo.audit import choose
from lsi.loo.result import LooResult
from lsi.probes.ridge import ROWS, RidgeModel
from lsi.results.audit import Audit
from lsi.system.progress import Progress

EPS = float(torch.finfo(torch.float64).eps)
ELEMENTS = 1 << 18  # numbers in one (B, D) block: few enough to stay in cache
LOST = 1e-11  # a share 1 − h below this has lost its digits
SAFETY = 8.0
REFINED = 4  # solutions of the audit: from the triangle, then refined
FLOOR = 1e-10  # least relative error that is promised: brute force in float64 confirms no less, of data of
# condition one; with features far from zero and columns that depend on each other it loses digits


@dataclass
class RidgeResult(LooResult):
    """Leave-one-out of a regression; `loo_prediction` is `(n_scored, T)` here.

    Attributes:
        z: Residuals `y − loo_prediction` in units of their standard deviation, `(n_scored, T)`.
    """

    z: np.ndarray


@dataclass(frozen=True, eq=False)
class Block:
    """B left-out samples in the engine's coordinates.

    Attributes:
        rows: Their rows, `(B, R)`.
        step: `A⁻¹ x`, `(B, R)`.
        rest: `1 − h`, `(B,)`.
        miss: Residuals without the sample, `(B, T)`.
        rounding: Absolute error of `miss` by rounding, `(B, T)`.
    """

    rows: Tensor
    step: Tensor
    rest: Tensor
    miss: Tensor
    rounding: Tensor


class RidgeEngine:
    """Leave-one-out of a ridge regression, and its divergences.

    The diagonal posterior is computed in the original features, on which it depends, the others in the
    singular vectors of X.

    Args:
        model: The factorised data.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        prior_precision: τ.
        noise: β, `(T,)`.
    """

    def __init__(self, model: RidgeModel, posterior: str, prior_precision: float, noise: Tensor) -> None:
        self.model, self.prior_precision, self.noise = model, prior_precision, noise
        self.diagonal = posterior == "diag"
        self._spread = model.noise_precision().sqrt()
        condition = model.singular[0] / (model.singular[-1].square() + model.loo_ridge).sqrt()
        self._floor = FLOOR + SAFETY * EPS * float(condition)
        squares, basis = model.singular.square(), model.basis
        inverse = 1.0 / (squares + model.loo_ridge)
        self._theta = model.weights(model.loo_ridge)  # without the sample's own part
        # wd A⁻¹θ, from both penalties at once: their difference would cancel.
        self._drift = model.weight_decay * inverse[:, None] * model.weights(model.ridge)
        self._solve = inverse
        if self.diagonal:
            self._drift = basis @ self._drift
            squares = torch.zeros_like(basis[:, 0])
            for _, x in model.design.blocks(ROWS):
                squares += x.square().sum(0)
        self._precision = noise[:, None] * squares + prior_precision

    def run(self, index: Tensor, progress: Progress | None = None) -> RidgeResult:
        """Return the leave-one-out result of the samples at `index`, in that order. Shapes: index `(n,)`."""
        parts, done = [], 0
        for where in index.split(max(32, ELEMENTS // self.model.design.n_features)):
            parts.append(self._columns(where))
            done += len(where)
            if progress is not None:
                progress("leave-one-out", done, len(index))
        return RidgeResult(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))

    def _columns(self, index: Tensor) -> tuple[Tensor, ...]:
        block = self._block(index)
        mean, covariance, error = self._divergence(block)
        z = torch.where(block.miss == 0, 0.0, block.miss * self._spread * block.rest[:, None].sqrt())
        # χ² of T degrees: the chance of residuals at least this large.
        half = torch.full_like(block.rest, 0.5 * z.shape[1])
        tail = torch.special.gammaincc(half, 0.5 * z.square().sum(1))
        certificate = error / (mean + covariance).clamp_min(torch.finfo(torch.float64).tiny)
        certificate = certificate + self._floor + SAFETY * EPS * len(self.model.singular) ** 0.5 / block.rest
        prediction = self.model.target[index] - block.miss
        return mean, covariance, tail, prediction, 1.0 - block.rest, certificate, z

    def _block(self, index: Tensor) -> Block:
        x, y = self.model.design.take(index), self.model.target[index]
        # In the singular vectors, where nothing cancels however far from zero the features are.
        rows = x @ self.model.basis
        step = rows * self._solve
        rest = 1.0 - (rows * step).sum(1)
        lost = (rest < LOST).nonzero()[:, 0]
        if len(lost):
            raise InputError(
                f"without the sample in row {int(index[lost[0]])} the weights are not determined in double "
                "precision: nothing else holds one of its directions. Raise weight_decay."
            )
        miss = (y - rows @ self._theta) / rest[:, None]
        size = y.abs() + rows.abs() @ self._theta.abs()
        rounding = SAFETY * EPS * size / rest[:, None]
        if self.diagonal:
            rows, step = x, step @ self.model.basis.T
        return Block(rows, step, rest, miss, rounding)

    def _divergence(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean term, covariance term and the absolute rounding error of their sum, `(B,)` each."""
        squares = block.rows.square()
        mean, error = torch.zeros_like(block.rest), torch.zeros_like(block.rest)
        reach = block.rounding * (block.step.square() @ self._precision.T).sqrt()
        for target, beta in enumerate(self.noise):
            delta = self._drift[:, target] - block.step * block.miss[:, target, None]
            own = (delta * block.rows).square() if self.diagonal else (delta * block.rows).sum(1).square()
            whole = delta.square_() @ self._precision[target]
            quadratic = (whole - beta * (own.sum(1) if self.diagonal else own)).clamp_min(0)
            mean += 0.5 * quadratic
            error += SAFETY * EPS * whole + quadratic.sqrt() * reach[:, target]
        error += 0.5 * reach.square().sum(1)
        covariance, lost = self._excess(squares)
        return mean, covariance, error + lost

    def _excess(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return the covariance term of `P₂ − P₁ = −β x xᵀ` and its rounding error, `(B,)` each."""
        if not self.diagonal:
            return _half_excess(self.noise * (squares @ (1.0 / self._precision).T))
        noise = self.noise.expand(len(squares), -1)
        quick = separable_excess(noise, squares, 1.0 / self._precision)
        if quick is not None:
            return 0.5 * quick, SAFETY * EPS * quick
        return _half_excess((self.noise[:, None] * squares[:, None, :] / self._precision).flatten(1))


def _half_excess(share: Tensor) -> tuple[Tensor, Tensor]:
    """Return `½ Σ [u − log(1 + u)]` of `u = −share`, and its rounding error."""
    lost = share.square() / (1.0 - share).clamp_min(1e-15)
    return 0.5 * excess((-share).clamp_min(-1 + 1e-15)).sum(1), SAFETY * EPS * lost.sum(1)


def audit_ridge(
    engine: RidgeEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a regression."""
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    design, model = engine.model.design, engine.model
    x, y = design.rows(0, model.n_samples), model.target
    start = torch.zeros_like(y[:1]).expand(x.shape[1], -1)
    whole = _solve(x, model.ridge, lambda theta: x.T @ (y - x @ theta) - model.ridge * theta, start)
    factors = [_triangle(beta.sqrt() * x, engine.prior_precision).mT for beta in engine.noise]
    exact = []
    for done, where in enumerate(picks):
        left_out = int(index[where])
        delta = _removed(x, y, whole, left_out, model)
        terms = [
            _divergence(engine, factor, x, left_out, beta, delta[:, target])
            for target, (beta, factor) in enumerate(zip(engine.noise, factors, strict=True))
        ]
        exact.append(sum(float(term.total) for term in terms))
        if progress is not None:
            progress("audit", done + 1, len(picks))
    return Audit.from_values(
        index.cpu().numpy()[picks],
        exact,
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


def _triangle(x: Tensor, ridge: float) -> Tensor:
    """Return R with `RᵀR = xᵀx + ridge · I`, from QR: the product `xᵀx` would square the condition number."""
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.qr(torch.cat([x, ridge**0.5 * eye]), mode="r")[1]


def _solve(x: Tensor, ridge: float, residual: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return the solution `(D, T)` at which `residual`, linear with slope `−(xᵀx + ridge · I)`, is zero.

    Each step solves with the triangle for what the residual, taken from the rows, says is missing.
    """
    triangle, solution = _triangle(x, ridge), start
    for _ in range(REFINED):
        missing = residual(solution)
        half = torch.linalg.solve_triangular(triangle.mT, missing, upper=False)
        solution = solution + torch.linalg.solve_triangular(triangle, half, upper=True)
    return solution


def _removed(x: Tensor, y: Tensor, whole: Tensor, left_out: int, model: RidgeModel) -> Tensor:
    """Return what the weights without a sample differ from those of all, `(D, T)`.

    The difference itself is solved for, `A₋ δ = r ⊗ x + wd θ`: subtracting two solutions would cancel.
    """
    keep = torch.arange(len(x), device=x.device) != left_out
    others, own = x[keep], x[left_out]
    right = torch.outer(own, own @ whole - y[left_out]) + model.weight_decay * whole

    def residual(delta: Tensor) -> Tensor:
        return right - others.T @ (others @ delta) - model.loo_ridge * delta

    return _solve(others, model.loo_ridge, residual, torch.zeros_like(whole))


def _divergence(
    engine: RidgeEngine, factor: Tensor, x: Tensor, left_out: int, beta: Tensor, delta: Tensor
) -> Terms:
    """Return the divergence of one target from dense precisions. Shapes: factor `(D, D)`, delta `(D,)`."""
    own = x[left_out]
    if engine.diagonal:
        first = beta * x.square().sum(0) + engine.prior_precision
        return diag_divergence(first, -beta * own.square()[None], delta[None])
    return full_divergence(factor, -beta * torch.outer(own, own)[None], delta[None])
