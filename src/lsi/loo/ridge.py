r"""Leave-one-out of ridge regression in closed form: exact for every sample, from one factorisation.

All leave-one-out problems share the penalty :math:`\lambda_- = (n-1)\,\mathrm{wd}`, so each of them is a
rank-one change of :math:`A = X^\top X + \lambda_- I`:

.. math:: \delta_i = \mathrm{wd}\, A^{-1}\theta \;-\; \frac{a_i \tilde r_i^\top}{1 - h_i}, \qquad
          a_i = A^{-1}x_i,\quad h_i = x_i^\top a_i,\quad \tilde r_i = y_i - x_i^\top A^{-1} X^\top Y .

The first part is the effect of the smaller penalty, the second that of the sample. Without the sample its
residual is :math:`\tilde r_i / (1 - h_i)`.

The curvature :math:`\mathrm{diag}(\beta) \otimes x_j x_j^\top` does not depend on the weights, and its
Kronecker factors (diag(β), sum of :math:`x x^\top`) are exact with and without a sample. "kron" and "full"
are therefore the same posterior here.

Source: Sherman and Morrison (1950) for the change of rank one; Allen, *The relationship between variable
selection and data augmentation and a method for prediction* (PRESS), Technometrics 1974.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, excess, full_divergence, separable_excess
from lsi.errors import InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.engine import Engine
from lsi.loo.result import LooResult
from lsi.probes.ridge import ROWS, RidgeModel
from lsi.validation.problem import Shape

EPS = float(torch.finfo(torch.float64).eps)
ELEMENTS = 1 << 18  # numbers in one (B, D) block: few enough to stay in cache
LOST = 1e-11  # below this, 1 − h has no correct digits left
SAFETY = 8.0
REFINED = 4  # solutions of the audit: from the triangle, then refined
# Smallest relative error that is promised: brute force in float64 cannot confirm a smaller one, even on data
# of condition one. Features far from zero and columns that depend on each other cost more digits.
FLOOR = 1e-10


@dataclass
class RidgeResult(LooResult):
    """Leave-one-out of a regression on T targets; `loo_prediction` is `(n_scored, T)`.

    Attributes:
        z: Residuals `y − loo_prediction` divided by their standard deviation, `(n_scored, T)`.
    """

    z: np.ndarray


@dataclass(frozen=True, eq=False)
class Block:
    """B left-out samples in the engine's coordinates.

    Attributes:
        x: Their rows, `(B, R)`.
        a: `A⁻¹ x`, `(B, R)`.
        rest: `1 − h`, `(B,)`.
        residual: `r̃ / (1 − h)`, the residuals without the sample, `(B, T)`.
        rounding: Absolute rounding error of `residual`, `(B, T)`.
    """

    x: Tensor
    a: Tensor
    rest: Tensor
    residual: Tensor
    rounding: Tensor


class RidgeEngine(Engine):
    """Leave-one-out of a ridge regression.

    The diagonal posterior depends on the coordinates, so it is computed in the original features; the others
    are computed in the singular vectors of X.

    Args:
        model: The factorised data.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        prior_precision: τ.
        noise: β, `(T,)`.

    Attributes:
        precision: Diagonal of P₁ in the posterior's coordinates, `(T, D)` or `(T, R)`.
        floor: Smallest relative error that is promised.
    """

    audit_block = 64

    def __init__(self, model: RidgeModel, posterior: str, prior_precision: float, noise: Tensor) -> None:
        self.model, self.prior_precision, self.noise = model, prior_precision, noise
        self.diagonal = posterior == "diag"
        self._spread = model.noise_precision().sqrt()
        condition = model.singular[0] / (model.singular[-1].square() + model.loo_ridge).sqrt()
        self.floor = FLOOR + SAFETY * EPS * float(condition)
        squares, basis = model.singular.square(), model.basis
        inverse = 1.0 / (squares + model.loo_ridge)  # A⁻¹ in the singular vectors
        self._theta = model.weights(model.loo_ridge)  # A⁻¹XᵀY
        # wd A⁻¹θ as a product: the difference of the solutions for both penalties would cancel.
        self._drift = model.weight_decay * inverse[:, None] * model.weights(model.ridge)
        self._solve = inverse
        if self.diagonal:
            self._drift = basis @ self._drift
            squares = torch.zeros_like(basis[:, 0])
            for _, x in model.design.blocks(ROWS):
                squares += x.square().sum(0)
        self.precision = noise[:, None] * squares + prior_precision  # P₁, diagonal here

    def run(self, index: Tensor, work: Work | None = None) -> RidgeResult:
        """Return the result of the samples at `index`, in that order; too quick to be worth storing.

        Shapes: index `(n,)`.
        """
        progress = None if work is None else work.progress
        parts, done = [], 0
        for where in index.split(max(32, ELEMENTS // self.model.design.n_features)):
            parts.append(self._columns(where))
            done += len(where)
            if progress is not None:
                progress("leave-one-out", done, len(index))
        return RidgeResult(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI as `exact`: the data solved again without each sample, and dense precisions.

        Shapes: positions `(n,)`.
        """
        model = self.model
        x, y = model.design.rows(0, model.n_samples), model.target
        start = torch.zeros_like(y[:1]).expand(x.shape[1], -1)
        theta = _solve(x, model.ridge, lambda w: x.T @ (y - x @ w) - model.ridge * w, start)
        factors = [_triangle(beta.sqrt() * x, self.prior_precision).mT for beta in self.noise]
        exact = np.zeros(len(positions))
        for k, i in enumerate(positions.tolist()):
            delta = _removed(x, y, theta, i, model)
            terms = [
                self._dense_divergence(factor, x, i, beta, delta[:, t])
                for t, (beta, factor) in enumerate(zip(self.noise, factors, strict=True))
            ]
            exact[k] = sum(float(term.total) for term in terms)
            tick(1)
        return {"exact": exact}

    def _dense_divergence(self, factor: Tensor, x: Tensor, i: int, beta: Tensor, delta: Tensor) -> Terms:
        """Return one target's divergence from dense precisions. Shapes: factor `(D, D)`, delta `(D,)`."""
        if self.diagonal:
            p1 = beta * x.square().sum(0) + self.prior_precision  # P₁ = β diag(XᵀX) + τI
            return diag_divergence(p1, -beta * x[i].square()[None], delta[None])
        return full_divergence(factor, -beta * torch.outer(x[i], x[i])[None], delta[None])

    def _columns(self, index: Tensor) -> tuple[Tensor, ...]:
        block = self._block(index)
        mean, covariance, error = self._divergence(block)
        z = torch.where(block.residual == 0, 0.0, block.residual * self._spread * block.rest[:, None].sqrt())
        # Tail of χ² with T degrees of freedom: the probability of residuals at least this large.
        half = torch.full_like(block.rest, 0.5 * z.shape[1])
        tail = torch.special.gammaincc(half, 0.5 * z.square().sum(1))
        certificate = error / (mean + covariance).clamp_min(torch.finfo(torch.float64).tiny)
        certificate = certificate + self.floor + SAFETY * EPS * len(self.model.singular) ** 0.5 / block.rest
        prediction = self.model.target[index] - block.residual
        return mean, covariance, tail, prediction, 1.0 - block.rest, certificate, z

    def removed(self, index: Tensor) -> Block:
        """Return the left-out samples at `index` in the singular vectors of X.

        A sample without which the weights are not determined is refused.
        """
        x, y = self.model.design.take(index), self.model.target[index]
        # In the singular vectors, where nothing cancels however far from zero the features are.
        rows = x @ self.model.basis
        a = rows * self._solve  # a = A⁻¹x
        rest = 1.0 - (rows * a).sum(1)  # 1 − h
        lost = (rest < LOST).nonzero()[:, 0]
        if len(lost):
            raise InputError(
                f"without the sample in row {int(index[lost[0]])} the weights are not determined in double "
                "precision: no other sample has a component in one of its directions. Raise weight_decay."
            )
        residual = (y - rows @ self._theta) / rest[:, None]  # r̃ / (1 − h)
        size = y.abs() + rows.abs() @ self._theta.abs()
        return Block(rows, a, rest, residual, SAFETY * EPS * size / rest[:, None])

    def _block(self, index: Tensor) -> Block:
        """Return the left-out samples at `index` in the posterior's coordinates."""
        found = self.removed(index)
        if not self.diagonal:
            return found
        return replace(found, x=self.model.design.take(index), a=found.a @ self.model.basis.T)

    def _divergence(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean term, covariance term and the absolute rounding error of their sum, `(B,)` each."""
        mean, error = torch.zeros_like(block.rest), torch.zeros_like(block.rest)
        # Rounding of the residual moves δ along a: its size in the metric of P₁.
        reach = block.rounding * (block.a.square() @ self.precision.T).sqrt()
        for t, beta in enumerate(self.noise):
            delta = self._drift[:, t] - block.a * block.residual[:, t, None]  # δ = wd A⁻¹θ − a r̃ / (1 − h)
            own = (delta * block.x).square() if self.diagonal else (delta * block.x).sum(1).square()
            whole = delta.square_() @ self.precision[t]  # δᵀP₁δ
            # δᵀP₂δ, where P₂ = P₁ − β x xᵀ (its diagonal for "diag")
            quadratic = (whole - beta * (own.sum(1) if self.diagonal else own)).clamp_min(0)
            mean += 0.5 * quadratic
            error += SAFETY * EPS * whole + quadratic.sqrt() * reach[:, t]
        error += 0.5 * reach.square().sum(1)
        covariance, lost = self._excess(block.x.square())
        return mean, covariance, error + lost

    def _excess(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return the covariance term of `P₂ − P₁ = −β x xᵀ` and its rounding error, `(B,)` each."""
        if not self.diagonal:
            return _half_excess(self.noise * (squares @ (1.0 / self.precision).T))
        noise = self.noise.expand(len(squares), -1)
        quick = separable_excess(noise, squares, 1.0 / self.precision)
        if quick is not None:
            return 0.5 * quick, SAFETY * EPS * quick
        return _half_excess((self.noise[:, None] * squares[:, None, :] / self.precision).flatten(1))


def _half_excess(share: Tensor) -> tuple[Tensor, Tensor]:
    """Return `½ Σ [u − log(1 + u)]` of `u = −share`, and its rounding error."""
    lost = share.square() / (1.0 - share).clamp_min(1e-15)
    return 0.5 * excess((-share).clamp_min(-1 + 1e-15)).sum(1), SAFETY * EPS * lost.sum(1)


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
    """Return the change of the weights without a sample, `(D, T)`.

    The difference itself is solved for, `A₋ δ = r ⊗ x + wd θ`: subtracting two solutions would cancel.
    """
    keep = torch.arange(len(x), device=x.device) != left_out
    others, own = x[keep], x[left_out]
    right = torch.outer(own, own @ whole - y[left_out]) + model.weight_decay * whole

    def residual(delta: Tensor) -> Tensor:
        return right - others.T @ (others @ delta) - model.loo_ridge * delta

    return _solve(others, model.loo_ridge, residual, torch.zeros_like(whole))


def ridge_cost(shape: Shape, audited: int) -> tuple[float, int]:
    """Return operations and bytes: a factorisation, a product with its factor for each sample, and the audit.

    The audit factorises the rows again for each sample. Measured by `python -m benchmarks.estimates`, that
    takes as long as 4·N·D² operations of a product and 2,500 for each number of the rows.
    """
    n, d = shape.n_samples, shape.n_features
    own = 4.0 * n * d**2 + 2.0 * shape.n_scored * d**2 + 40.0 * d**3
    again = (audited + 2.0) * (4.0 * n * d**2 + 2500.0 * n * d)
    return 2.0 * own + again, 16 * n * d + 80 * d**2 + (64 << 20)
