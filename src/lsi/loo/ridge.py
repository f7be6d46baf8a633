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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, excess, full_divergence, separable_excess
from lsi.errors import InputError
from lsi.loo.audit import choose
from lsi.loo.result import LooResult
from lsi.probes.ridge import LARGE, ROWS, RidgeModel
from lsi.results.audit import Audit
from lsi.system.progress import Progress
from lsi.validation.problem import Shape

EPS = float(torch.finfo(torch.float64).eps)
ELEMENTS = 1 << 18  # numbers in one (B, D) block: few enough to stay in cache
LOST = 1e-11  # a share 1 − h below this has lost its digits
SAFETY = 8.0
FLOOR = 1e-10  # least relative error that is promised: brute force in float64 confirms no less


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
        squares, basis = model.singular.square(), model.basis
        inverse = 1.0 / (squares + model.loo_ridge)
        self._theta = model.weights(model.loo_ridge)  # without the sample's own part
        # wd A⁻¹θ, from both penalties at once: their difference would cancel.
        self._drift = model.weight_decay * inverse[:, None] * model.weights(model.ridge)
        if self.diagonal:
            self._theta, self._drift = basis @ self._theta, basis @ self._drift
            self._solve = (basis * inverse) @ basis.T
            squares = torch.zeros_like(basis[:, 0])
            for _, x in model.design.blocks(ROWS):
                squares += x.square().sum(0)
        else:
            self._solve = inverse
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
        certificate = certificate + FLOOR + SAFETY * EPS * len(self.model.singular) ** 0.5 / block.rest
        prediction = self.model.target[index] - block.miss
        return mean, covariance, tail, prediction, 1.0 - block.rest, certificate, z

    def _block(self, index: Tensor) -> Block:
        x, y = self.model.design.take(index), self.model.target[index]
        rows = x if self.diagonal else x @ self.model.basis
        step = rows @ self._solve if self.diagonal else rows * self._solve
        rest = 1.0 - (rows * step).sum(1)
        lost = (rest < LOST).nonzero()[:, 0]
        if len(lost):
            raise InputError(
                f"without the sample in row {int(index[lost[0]])} the weights are not determined in double "
                "precision: nothing else holds one of its directions. Raise weight_decay."
            )
        miss = (y - rows @ self._theta) / rest[:, None]
        size = y.abs() + rows.abs() @ self._theta.abs()
        return Block(rows, step, rest, miss, SAFETY * EPS * size / rest[:, None])

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
    whole = _solve(x, y, model.ridge)
    gram = x.T @ x
    exact = []
    for done, where in enumerate(picks):
        left_out = int(index[where])
        keep = torch.arange(len(x), device=x.device) != left_out
        delta = _solve(x[keep], y[keep], model.loo_ridge) - whole
        terms = [
            _divergence(engine, gram, x[left_out], beta, delta[:, target])
            for target, beta in enumerate(engine.noise)
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


def _solve(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Return the weights `(D, T)`: least squares on the data with `√λ I` below them, or normal equations.

    The latter where the data are large, by Cholesky's factor and one step of iterative refinement.
    """
    n, d = x.shape
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    if n * d**2 <= LARGE:
        nothing = torch.zeros((d, y.shape[1]), dtype=y.dtype, device=y.device)
        q, r = torch.linalg.qr(torch.cat([x, ridge**0.5 * eye]))
        return torch.linalg.solve_triangular(r, q.T @ torch.cat([y, nothing]), upper=True)
    factor = torch.linalg.cholesky(x.T @ x + ridge * eye)
    weights = torch.cholesky_solve(x.T @ y, factor)
    return weights + torch.cholesky_solve(x.T @ (y - x @ weights) - ridge * weights, factor)


def _divergence(engine: RidgeEngine, gram: Tensor, x: Tensor, beta: Tensor, delta: Tensor) -> Terms:
    """Return the divergence of one target from dense precisions."""
    first = beta * gram
    first.diagonal().add_(engine.prior_precision)
    if engine.diagonal:
        return diag_divergence(first.diagonal(), -beta * x.square()[None], delta[None])
    factor = torch.linalg.cholesky(first)
    return full_divergence(factor, -beta * torch.outer(x, x)[None], delta[None])


def ridge_cost(shape: Shape) -> tuple[float, int]:
    """Return operations and bytes: a factorisation, and a product with its factor for each scored sample."""
    n, d = shape.n_samples, shape.n_features
    return 4.0 * n * d**2 + 2.0 * shape.n_scored * d**2 + 40.0 * d**3, 16 * n * d + 80 * d**2 + (64 << 20)
