r"""`Newton` for pairs: one dense Hessian for all left-out pairs, with each pair's own curvature taken out.

The left-out optimum is the local optimum of the objective without the pair that is reached from the full-data
optimum. A Newton step towards it needs :math:`H_{-i}^{-1}`. The objective without pair i no longer depends on
the projections of its two items. With :math:`E_i = \mathrm{diag}(I \otimes x_i, I \otimes y_i)` and the
pair's own `(2d, 2d)` curvature :math:`M_i`,

.. math:: \delta_i = -\bigl(H - E_i M_i E_i^\top\bigr)^{-1} \nabla F_{-i}(\theta)
          = t_i + H^{-1} E_i (I - M_i Q_i)^{-1} M_i E_i^\top t_i, \qquad
          t_i = -H^{-1} \nabla F_{-i}(\theta),\quad Q_i = E_i^\top H^{-1} E_i,

by the Woodbury identity in 2d dimensions. Removing the pair also changes all other curvature, by order 1/N;
that is left to refinement: preconditioned L-BFGS on the objective without the pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.contrastive.curvature import dense_curvature
from lsi.loo.contrastive.fit import Preconditioner, minimise
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.precision import Block, PairPrecision, add_terms
from lsi.loo.contrastive.removal import gradient_change
from lsi.loo.contrastive.result import empty, match_columns, term_columns
from lsi.loo.contrastive.state import Side, both_sides
from lsi.loo.engine import Engine
from lsi.loo.picks import choose
from lsi.loo.result import LooResult
from lsi.methods import Newton

DOUBLE_LIMIT, DOUBLE_PAIRS = 4096, 2048
"""Products are in float64 up to this many weights and this many pairs in a batch."""
DENSE_LIMIT = 24_000
"""Most weights whose dense Hessian is formed (2.3 GB, and twice that during inversion)."""
REFINE_OPERATIONS = 2e12
"""Every pair is solved to its optimum if that costs less in total."""
REBUILD_OPERATIONS = 4e12
"""The precision is built again for every pair if that costs less in total."""
BLOCK_NUMBERS = 1 << 25
"""Most numbers in the largest array of one block of left-out pairs."""
TASK_PAIRS = 64
"""Pairs in one block of work: what an interruption may lose."""
CALIBRATION = 24
"""Pairs whose error is measured where not all are refined."""
SAFETY = 3.0
AUDIT_GRADIENT = 1e-6
"""Gradient, relative to that at the full-data optimum, at which the audit's optima count as reached."""


def check_size(n_weights: int) -> None:
    """Refuse heads whose dense Hessian is out of reach."""
    if n_weights > DENSE_LIMIT:
        raise InputError(
            f"The heads have {n_weights:,} weights; the fast method keeps a dense Hessian and takes at most "
            f"{DENSE_LIMIT:,}. Lower ContrastiveProbe(dim=...), reduce the features first (for example with "
            "sklearn.decomposition.PCA(128)), or use method='retrain' on a subset."
        )


def operations(batch: int, dim: int, n_weights: int, has_frozen: bool) -> tuple[float, float]:
    """Return the operations of solving one pair to its optimum, and of building P₂ again for it."""
    solve = 12.0 * (12.0 * batch**2 * dim + 2.0 * n_weights**2)
    return solve, 6.0 * batch * float(n_weights) * (batch if has_frozen else n_weights)


class PairNewton(Engine):
    """Leave-one-out optima of many pairs.

    Args:
        model: Pairs, float64.
        theta: The full-data optimum, `(K,)`.
        precision: Posterior of the full data.
        settings: The tolerance; without one nothing is refined.

    Raises:
        ConvergenceError: The curvature is not positive definite to rounding error.
    """

    def __init__(self, model: PairModel, theta: Tensor, precision: PairPrecision, settings: Newton) -> None:
        self.model, self.theta, self.precision, self.settings = model, theta, precision, settings
        size, n = len(theta), max(len(batch) for batch in model.batches)
        self._last: tuple[int, tuple[tuple[Side, Side], tuple[Tensor, Tensor]]] | None = None
        self.dtype = torch.float64 if size <= DOUBLE_LIMIT and n <= DOUBLE_PAIRS else torch.float32
        self.curvature, self.factor = self._factor()
        self.inverse = torch.cholesky_inverse(self.factor)
        self.start = model.value_gradient(theta)[1]
        self.pull = model.weight_decay * (theta - model.initial)
        self.solve_operations, self.rebuild_operations = operations(n, model.dim, size, precision.has_frozen)

    def _factor(self) -> tuple[str, Tensor]:
        """Return the name and the Cholesky factor of H, with the penalty of n − 1 pairs.

        At a flat optimum H can be indefinite with this smaller penalty; the Gauss-Newton matrix then takes
        its place. First steps are rougher with it, but refinement reaches the same optima.
        """
        for name in ("hessian", "gauss-newton"):
            curvature = dense_curvature(self.model, self.theta, newton=name == "hessian", dtype=self.dtype)
            curvature.diagonal().add_((self.model.n_pairs - 1) * self.model.weight_decay)
            factor, failed = torch.linalg.cholesky_ex(curvature)
            if not int(failed):
                return name, factor
        raise ConvergenceError(
            "The curvature of the trained heads is not positive definite, so no step is defined. "
            "Raise weight_decay, norm_floor or temperature of the ContrastiveProbe."
        )

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI as `exact`: L-BFGS from the full-data optimum to the end, and P₂ built again.

        Shapes: positions `(n,)`.
        """
        found = []
        for position in positions.tolist():
            delta = self.solve(position, tolerance=AUDIT_GRADIENT)
            found.append(self.precision.lsi(position, self.theta + delta))
        return {"exact": np.array(found)}

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the result of the pairs at `index`. Shapes: index `(n,)`."""
        work, result, tasks = work or Work(), empty(len(index)), self._tasks(index)
        refine = len(index) * self.solve_operations <= REFINE_OPERATIONS and self.settings.tol is not None
        rebuild = refine and len(index) * self.rebuild_operations <= REBUILD_OPERATIONS
        rebuild = rebuild or not self.precision.has_frozen
        positions = [index[torch.from_numpy(where)].numpy() for where in tasks]
        owner = PairTask(self, refine, rebuild)
        for place, arrays in work.map("leave-one-out", owner, "score", positions):
            result.put(tasks[place], arrays)
        if self.settings.tol is not None and not (refine and rebuild):
            found = work.once("certificates", lambda: self._calibrate(result, index, refine))
            result.relative_error[:] = found["relative_error"]
        return result

    def _tasks(self, index: Tensor) -> list[np.ndarray]:
        """Return blocks of places in the result, each of pairs of one batch."""
        size = max(16, min(TASK_PAIRS, BLOCK_NUMBERS // len(self.theta)))
        found = [torch.isin(index, batch).nonzero()[:, 0] for batch in self.model.batches]
        return [part.numpy() for where in found if len(where) for part in where.split(size)]

    def first(self, positions: Tensor) -> tuple[Block, tuple[Side, Side], Tensor, np.ndarray]:
        """Return pairs of one batch as a block, both sides of the batch, the first steps and the leverages.

        Shapes: positions `(B,)`, steps `(B, K)`.
        """
        rows = self.model.batch_of(int(positions[0]))
        sides, candidates = self._sides(int(rows[0]))
        block = Block(positions, torch.searchsorted(rows, positions), candidates)
        return block, sides, *self.step(sides, block)

    def _sides(self, position: int) -> tuple[tuple[Side, Side], tuple[Tensor, Tensor]]:
        """Return both sides of a pair's batch and their `candidate_means`; the last batch's are kept."""
        if self._last is None or self._last[0] != position:
            rows = self.model.batch_of(position)
            sides = both_sides(self.model, self.theta, rows, self.dtype)
            self._last = position, (sides, (sides[0].candidate_means(), sides[1].candidate_means()))
        return self._last[1]

    def solve(self, position: int, delta: Tensor | None = None, tolerance: float = 1e-4) -> Tensor:
        """Return δ of one pair, iterated until the gradient without it is gone, `(K,)` float64."""
        model, change = self.model.without(position), Preconditioner(self.factor)
        scale = float(change.to_gradient(model.value_gradient(self.theta)[1]).abs().max())
        start = self.theta if delta is None else self.theta + delta
        found = minimise(model, start, tolerance=tolerance, scale=max(scale, 1e-300), preconditioner=change)
        return found[0] - self.theta

    def step(self, sides: tuple[Side, Side], block: Block) -> tuple[Tensor, np.ndarray]:
        """Return each pair's first step δ_i, `(B, K)` float64, and its leverage `tr(M_i Q_i)`, `(B,)`."""
        changes = [
            gradient_change(side, means, block.at).flatten(1)
            for side, means in zip(sides, block.candidates, strict=True)
        ]
        # ∇F₋ᵢ(θ), and t = −H⁻¹ ∇F₋ᵢ(θ)
        gradient = torch.cat(changes, 1) + (self.start - self.pull).to(changes[0].dtype)
        t = -(gradient.to(self.dtype) @ self.inverse)
        x = self.model.x[block.positions].to(self.dtype), self.model.y[block.positions].to(self.dtype)
        Q, M = self._gram(x), own_block(sides, block.at).to(self.dtype)
        # Eigenvalues λ of M Q through Q = R Rᵀ: those of Rᵀ M R. At λ = 1 the pair alone would fix a
        # direction.
        R = _cholesky(0.5 * (Q + Q.mT))
        values, V = torch.linalg.eigh(R.mT @ M @ R)
        safe = values.clamp_max(0.9)
        # m = (I − M Q)⁻¹ M Eᵀt = R⁻ᵀ V λ / (1 − λ) Vᵀ R⁻¹ Eᵀt
        m = torch.linalg.solve_triangular(R, self._along(t, x)[:, :, None], upper=False)
        m = V @ ((safe / (1 - safe))[:, :, None] * (V.mT @ m))
        m = torch.linalg.solve_triangular(R.mT, m, upper=True)[:, :, 0]
        delta = t + self._across(m, x) @ self.inverse
        return delta.to(torch.float64), values.sum(1).numpy()

    def _gram(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """Return `Q_i = E_iᵀ H⁻¹ E_i`, `(B, 2d, 2d)`."""
        rows, first = [], 0
        for side in x:
            for _ in range(self.model.dim):
                rows.append(self._along(side @ self.inverse[first : first + side.shape[1]], x))
                first += side.shape[1]
        return torch.stack(rows, 1)

    def _along(self, vectors: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
        """Return `E_iᵀ v_i`, `(B, 2d)`."""
        halves = vectors[:, : self.model.n_left], vectors[:, self.model.n_left :]
        shape = (len(vectors), self.model.dim, -1)
        return torch.cat(
            [(v.view(shape) @ s[:, :, None])[:, :, 0] for v, s in zip(halves, x, strict=True)], 1
        )

    def _across(self, weights: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
        """Return `E_i w_i`, `(B, K)`."""
        halves = weights[:, : self.model.dim], weights[:, self.model.dim :]
        return torch.cat(
            [(w[:, :, None] * s[:, None, :]).flatten(1) for w, s in zip(halves, x, strict=True)], 1
        )

    def _calibrate(self, result: LooResult, index: Tensor, refined: bool) -> Arrays:
        """Return `relative_error` of all pairs, measured on a few from the highest score to the lowest.

        Measured means: P₂ is built again at the optimum, or after one more step where pairs are not refined.
        Each pair gets the largest error of the three measured pairs nearest in rank, times a margin.
        """
        affordable = max(4, int(REBUILD_OPERATIONS // self.rebuild_operations))
        picks = choose(result.lsi, min(CALIBRATION, affordable, len(index)), seed=0)
        errors = []
        for pick in picks:
            position, delta = int(index[pick]), self.first(index[pick : pick + 1])[2][0]
            target = self.solve(position, delta) if refined else delta + self._correction(position, delta)
            value = self.precision.lsi(position, self.theta + target)
            errors.append(abs(value - result.lsi[pick]) / value if value > 0 else np.inf)
        ranks = np.argsort(np.argsort(result.lsi, kind="stable"), kind="stable")
        distance = np.abs(ranks[:, None] - ranks[picks][None, :])
        near = np.argsort(distance, axis=1, kind="stable")[:, :3]
        return {"relative_error": SAFETY * np.asarray(errors)[near].max(1)}

    def _correction(self, position: int, delta: Tensor) -> Tensor:
        gradient = self.model.without(position).value_gradient(self.theta + delta)[1]
        return -(self.inverse @ gradient.to(self.dtype)).to(torch.float64)


@dataclass(frozen=True)
class PairTask:
    """What every block of a run needs.

    Attributes:
        engine: Steps and solves.
        refine: Whether every pair is solved to its optimum.
        rebuild: Whether the precision is built again for every pair.
    """

    engine: PairNewton
    refine: bool
    rebuild: bool

    def score(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result for pairs of one batch. Shapes: positions `(n,)`."""
        engine, result, everything = self.engine, empty(len(positions)), slice(None)
        block, sides, delta, leverage = engine.first(torch.from_numpy(positions))
        for row, position in enumerate(positions.tolist()):
            if self.refine:
                delta[row] = engine.solve(position, delta[row])
            if self.rebuild:
                terms = engine.precision.exact(position, engine.theta + delta[row])
                result.put(slice(row, row + 1), term_columns(terms))
            tick(1)
        if self.refine and self.rebuild:
            result.relative_error[:] = engine.settings.tol
        if not self.rebuild:
            k, precision = engine.model.n_left, engine.precision
            left = precision.frozen(sides[0], block, delta[:, :k], False)
            terms = add_terms(left, precision.frozen(sides[1], block, delta[:, k:], True))
            result.put(everything, term_columns(terms))
        matches = match_columns(engine.model, block.positions, engine.theta + delta)
        result.put(everything, {**matches, "leverage": leverage})
        return result.arrays()


def _cholesky(Q: Tensor) -> Tensor:
    """Return the Cholesky factors of `(B, 2d, 2d)`; singular ones, of features of zero, are raised."""
    R, failed = torch.linalg.cholesky_ex(Q)
    if not bool(failed.any()):
        return R
    least = torch.finfo(Q.dtype).eps * Q.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    lifted = Q + torch.where(failed > 0, least, 0.0)[:, None, None] * torch.eye(Q.shape[1], dtype=Q.dtype)
    return torch.linalg.cholesky(lifted)


def own_block(sides: tuple[Side, Side], at: Tensor) -> Tensor:
    """Return `M_i`, the Hessian by the two projections of each pair with all others held, `(B, 2d, 2d)`."""
    one, other = sides
    d = one.unit.shape[1]
    block = one.unit.new_empty(len(at), 2 * d, 2 * d)
    block[:, :d, :d] = one.own_curvature(at) + one.bending(at)
    block[:, d:, d:] = other.own_curvature(at) + other.bending(at)
    u, v, s = one.unit[at], other.unit[at], one.cosine[at, at][:, None]
    p, q = one.rows[at, at][:, None], one.columns[at, at][:, None]
    a, b = (v - s * u) * one.scale[at], (u - s * v) * other.scale[at]
    f, h = one.own(one.rows[at], at), other.own(other.rows[at], at)
    mean = 0.5 * (p + q)
    weight = ((mean - 1) * one.scale[at] * other.scale[at] * one.temperature)[:, :, None]
    square = torch.eye(d, dtype=u.dtype) - u[:, :, None] * u[:, None, :] - v[:, :, None] * v[:, None, :]
    cross = weight * (square + (s * u)[:, :, None] * v[:, None, :])
    cross += (mean * a)[:, :, None] * b[:, None, :]
    cross -= 0.5 * (f[:, :, None] * (p * b)[:, None, :] + (q * a)[:, :, None] * h[:, None, :])
    block[:, :d, d:], block[:, d:, :d] = cross, cross.mT
    return block
