r"""Leave-one-out of a linear probe by a path of its own, which audits small problems.

From the features as they were given, in double precision and in NumPy, it trains the probe, leaves a
sample out, builds both precisions and takes their divergence. It shares no code with what it audits, so that
an error in the fit, in :math:`P_1` or in the divergence shows as a difference.

The weights without sample i are found as a difference :math:`\delta`, so that tiny scores keep their digits:

.. math:: \sum_{j \ne i} w_j \,[p_j(\theta + \delta) - p_j(\theta)] \otimes x_j + (n-1)\,\mathrm{wd}\,\delta
          = w_i (p_i - e_{y_i}) \otimes x_i + \mathrm{wd}\,\theta .

What the fit left of its gradient is not in there. It would count in full, however small the score is; so it
only moves the point from which δ is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from lsi.execution.work import Arrays, Tick
from lsi.validation.problem import Shape

SMALL_WORK = 1e9  # operations of one left-out sample up to which it is left out here: a tenth of a second
PASSES = 30  # over all rows, of one left-out fit
CLOSE = 1e-10  # relative Newton decrement at which an optimum has been found
SURE = 1e-6  # relative decrement that is accepted where rounding allows no progress
STEPS = 200
SLOW = 0.1  # contraction of the squared decrement above which the curvature is computed again
LARGE = 30.0  # change of a logit from which probabilities are subtracted, since they have all digits then

Matrix = np.ndarray


def is_small(shape: Shape, posterior: str) -> bool:
    """Return whether leaving a sample out takes at most `SMALL_WORK` operations."""
    k = min(shape.n_samples, shape.n_features) * (shape.n_classes - 1)
    work = 6.0 * PASSES * shape.n_samples * k + k**3
    if posterior != "diag":
        work += 12.0 * k**3 + 2.0 * shape.n_samples * k**2
    return work <= SMALL_WORK


@dataclass
class Refit:
    """Refits of a linear softmax probe without single samples.

    Attributes:
        features: `(N, D)` as given, without an intercept.
        target: Class codes, `(N,)`.
        n_classes: C.
        weight: Sample weights, `(N,)`.
        weight_decay: On the scale of the mean loss.
        fit_intercept: Whether a column of ones is appended.
        posterior: Name of the structure.
        prior_precision: τ.
    """

    features: Matrix
    target: Matrix
    n_classes: int
    weight: Matrix
    weight_decay: float
    fit_intercept: bool
    posterior: str
    prior_precision: float

    audit_block = 8
    trusts = "nothing of the run but its features, labels and settings"
    resolution = 1e-6

    def __getstate__(self) -> dict[str, Any]:
        """Leave the fit behind: workers make their own."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def exact(self, positions: Matrix, tick: Tick) -> Arrays:
        """Return LSI in nats as `exact`, NaN where no optimum was found. Shapes: positions `(n,)`."""
        return {"exact": np.array([self._lsi(int(i)) for i in positions])}

    def _lsi(self, i: int) -> float:
        try:
            delta, size = self._without(i)
            if not size <= SURE:
                return float("nan")
            return self._diagonal(i, delta) if self.posterior == "diag" else self._dense(i, delta)
        except np.linalg.LinAlgError:  # a precision that double precision cannot factorise
            return float("nan")

    @cached_property
    def _given(self) -> Matrix:
        x = np.asarray(self.features, dtype=np.float64)
        return np.column_stack([x, np.ones(len(x))]) if self.fit_intercept else x

    @cached_property
    def _basis(self) -> Matrix:
        """Orthonormal basis `(D, R)` of the samples' span, where it is smaller than the feature space."""
        n, d = self._given.shape
        return np.asarray(scipy.linalg.qr(self._given.T, mode="economic")[0]) if n < d else np.eye(d)

    @cached_property
    def _x(self) -> Matrix:
        n, d = self._given.shape
        return self._given @ self._basis if n < d else self._given

    @cached_property
    def _contrasts(self) -> Matrix:
        return np.asarray(scipy.linalg.helmert(self.n_classes).T)

    @cached_property
    def _theta(self) -> Matrix:
        """Weights of the full data in contrasts, `(C − 1, R)`."""
        ridge = len(self._x) * self.weight_decay

        def gradient(theta: Matrix) -> Matrix:
            residual = _residuals(self._softmax(theta), self.target) * self.weight[:, None]
            return (residual @ self._contrasts).T @ self._x + ridge * theta

        zero = np.zeros((self.n_classes - 1, self._x.shape[1]))
        return _descend(gradient, lambda at: self._hessian(self._softmax(at), self.weight, ridge), zero)[0]

    @cached_property
    def _p(self) -> Matrix:
        return self._softmax(self._theta)

    def _softmax(self, theta: Matrix) -> Matrix:
        """Return the probabilities of all rows, `(N, C)`."""
        logits = self._x @ (self._contrasts @ theta).T
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(odds / odds.sum(1, keepdims=True))

    def _kept(self, i: int) -> Matrix:
        """Return the sample weights without sample i."""
        weight = self.weight.astype(np.float64)
        weight[i] = 0.0
        return weight

    def _without(self, i: int) -> tuple[Matrix, float]:
        """Return δ without sample i, `(C − 1, R)`, and its last relative decrement."""
        ridge, kept = (len(self._x) - 1) * self.weight_decay, self._kept(i)
        own = _residuals(self._p[[i]], self.target[[i]])[0] @ self._contrasts * self.weight[i]
        pull = np.outer(own, self._x[i]) + self.weight_decay * self._theta

        def gradient(delta: Matrix) -> Matrix:
            change = self._change(delta) * kept[:, None]
            return (change @ self._contrasts).T @ self._x + ridge * delta - pull

        def hessian(delta: Matrix) -> Matrix:
            return self._hessian(self._softmax(self._theta + delta), kept, ridge)

        return _descend(gradient, hessian, np.zeros_like(self._theta))

    def _change(self, delta: Matrix) -> Matrix:
        """Return what δ adds to all probabilities, `(N, C)`, with the digits of a small change."""
        p, shift = self._p, self._x @ (self._contrasts @ delta).T
        shift = shift - np.take_along_axis(shift, p.argmax(1)[:, None], 1)
        grown = np.expm1(shift.clip(max=LARGE))
        mean = (p * grown).sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = p * (grown - mean) / (1.0 + mean)
            far = (np.abs(shift).max(1) >= LARGE) | (mean[:, 0] < -0.999)
            logits = np.log(p[far]) + shift[far]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        change[far] = odds / odds.sum(1, keepdims=True) - p[far]
        return np.asarray(change)

    def _spread(self, p: Matrix) -> Matrix:
        """Return `S = diag(p) − p pᵀ` in contrasts, `(N, C', C')`, relative to the likeliest class."""
        v = self._contrasts
        apart = v[None] - v[p.argmax(1)][:, None, :]  # the likeliest's own p drops out
        mean = np.einsum("nc,ncr->nr", p, apart)
        return np.einsum("nc,ncr,ncs->nrs", p, apart, apart, optimize=True) - mean[:, :, None] * mean[:, None]

    def _sum(self, spread: Matrix, weight: Matrix) -> Matrix:
        """Return `Σ_j w_j M_j ⊗ x_j x_jᵀ`, `(K', K')`. Shapes: M `(N, C', C')`."""
        x, k = self._x, spread.shape[1]
        out = np.empty((k, x.shape[1], k, x.shape[1]))
        for r in range(k):
            for s in range(r + 1):
                out[r, :, s] = (x * (weight * spread[:, r, s])[:, None]).T @ x
                out[s, :, r] = out[r, :, s].T
        return out.reshape(k * x.shape[1], -1)

    def _hessian(self, p: Matrix, weight: Matrix, ridge: float) -> Matrix:
        whole = self._sum(self._spread(p), weight)
        whole[np.diag_indices(len(whole))] += ridge
        return whole

    def _diagonal(self, i: int, delta: Matrix) -> float:
        """Return the divergence of the diagonals, in the features as given and in all classes."""
        kept, change, square = self._kept(i)[:, None], self._change(delta), self._given**2
        before, after = _variances(self._p), _variances(self._softmax(self._theta + delta))
        first = (self.weight[:, None] * before).T @ square + self.prior_precision
        second = (kept * after).T @ square + self.prior_precision
        own = np.outer(self.weight[i] * before[i], square[i])
        u = ((kept * change * (1.0 - 2.0 * self._p - change)).T @ square - own) / first
        # Where the sample held most of an entry, the sum of the others keeps more digits than 1 + u.
        excess = np.where(u > -0.5, _excess(u.clip(-0.5)), u - np.log(second / first))
        step = self._contrasts @ delta @ self._basis.T
        return float(0.5 * (step**2 * second).sum() + 0.5 * excess.sum())

    def _dense(self, i: int, delta: Matrix) -> float:
        """Return the divergence of the full or the Kronecker-factored precisions."""
        kept, dp, v, x = self._kept(i), self._change(delta), self._contrasts, self._x
        spread, after = self._spread(self._p), self._spread(self._softmax(self._theta + delta))
        p_v, dp_v = self._p @ v, dp @ v
        cross = p_v[:, :, None] * dp_v[:, None, :]
        moved = np.einsum("nc,cr,cs->nrs", dp, v, v, optimize=True)
        moved = moved - cross - cross.transpose(0, 2, 1) - dp_v[:, :, None] * dp_v[:, None, :]
        moved[i], kept_own = -spread[i], kept.copy()
        kept_own[i] = self.weight[i]  # its own curvature leaves with it
        if self.posterior == "full":
            parts = self._sum(spread, self.weight), self._sum(moved, kept_own), self._sum(after, kept)
        else:
            n, others = len(x), np.delete(x, i, axis=0)
            a2, b = others.T @ others, np.tensordot(self.weight, spread, 1) / n
            b_change = (b + np.tensordot(kept_own, moved, 1)) / (n - 1)
            change = np.kron(b_change, a2) - np.kron(b, np.outer(x[i], x[i]))
            second = np.kron(np.tensordot(kept, after, 1) / (n - 1), a2)
            parts = np.kron(b, x.T @ x), change, second
        first, change, second = parts
        for each in (first, second):
            each[np.diag_indices(len(each))] += self.prior_precision
        return _divergence(first, change, second, delta.reshape(-1))


def _residuals(p: Matrix, target: Matrix) -> Matrix:
    """Return `p − e_y`, the label's entry as minus the sum of the others."""
    found, rows = p.copy(), np.arange(len(p))
    found[rows, target] = 0.0
    found[rows, target] = -found.sum(1)
    return found


def _variances(p: Matrix) -> Matrix:
    """Return `p (1 − p)`, with `1 − p` of the likeliest class as the sum of the others."""
    rows, likeliest = np.arange(len(p)), p.argmax(1)
    others, rest = p.copy(), 1.0 - p
    others[rows, likeliest] = 0.0
    rest[rows, likeliest] = others.sum(1)
    return np.asarray(p * rest)


def _excess(u: Matrix) -> Matrix:
    """Return `u − log(1 + u)`, by its series where u is small."""
    series = sum((-1.0) ** k / k * u**k for k in range(2, 12))
    return np.where(np.abs(u) < 1e-2, series, u - np.log1p(u))


def _divergence(first: Matrix, change: Matrix, second: Matrix, delta: Matrix) -> float:
    """Return `½ δᵀP₂δ + ½ (tr M − ln det(I + M))`, `M = L⁻¹(P₂ − P₁)L⁻ᵀ`. Shapes: matrices `(K, K)`."""
    lower = np.linalg.cholesky(first)
    m = scipy.linalg.solve_triangular(lower, change, lower=True)
    m = scipy.linalg.solve_triangular(lower, m.T, lower=True)
    u = np.linalg.eigvalsh(0.5 * (m + m.T))
    if u.min() > -0.5:
        covariance = _excess(u).sum()
    else:  # what is left of P₂ keeps more digits in P₂ itself than in 1 + u
        logs = np.log(np.diag(np.linalg.cholesky(second))) - np.log(np.diag(lower))
        covariance = u.sum() - 2.0 * logs.sum()
    return float(0.5 * delta @ second @ delta + 0.5 * covariance)


class _Factor:
    """A Cholesky factor of a symmetric matrix that was scaled to a unit diagonal."""

    def __init__(self, matrix: Matrix) -> None:
        self.scale = np.sqrt(matrix.diagonal())
        self.lower = np.linalg.cholesky(matrix / self.scale[:, None] / self.scale)

    def solve(self, right: Matrix) -> Matrix:
        flat = right.reshape(-1) / self.scale
        found = scipy.linalg.cho_solve((self.lower, True), flat) / self.scale
        return np.asarray(found.reshape(right.shape))

    def square(self, vector: Matrix) -> float:
        """Return `vᵀ H v`."""
        return float(((self.lower.T @ (self.scale * vector.reshape(-1))) ** 2).sum())


def _descend(
    gradient: Callable[[Matrix], Matrix], hessian: Callable[[Matrix], Matrix], start: Matrix
) -> tuple[Matrix, float]:
    """Return the minimum of a convex function by Newton's method, and the last relative decrement.

    A factor is used again while it contracts. Steps are halved until the slope at their end is at most half
    of what it was; the slope keeps its digits where differences of the function have lost theirs.
    """
    point, slope, factor, fresh = start, gradient(start), _Factor(hessian(start)), True
    step = factor.solve(slope)
    decrement, best = float((step * slope).sum()), (float("inf"), start)
    for _ in range(STEPS):
        length = 1.0
        while True:
            after = point - length * step
            new = gradient(after)
            if -float((new * step).sum()) <= 0.5 * decrement or length < 1e-12:
                break
            length *= 0.5
        point, slope, before = after, new, decrement
        step = factor.solve(slope)
        decrement = max(float((step * slope).sum()), 0.0)
        energy = factor.square(point)
        size = (decrement / energy) ** 0.5 if energy > 0 else float("inf")
        best = min(best, (size, point), key=lambda each: each[0])
        if size <= CLOSE or (fresh and decrement > 0.25 * before and size <= SURE):
            break
        fresh = decrement > SLOW * before
        if fresh:
            factor = _Factor(hessian(point))
            step = factor.solve(slope)
            decrement = float((step * slope).sum())
    return best[1], best[0]
