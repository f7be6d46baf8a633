r"""`Newton` for pairs: one dense Hessian for all left-out pairs, with each pair's own curvature taken out.

The left-out optimum is that local optimum of the objective without the pair which is reached from the
full-data one. A Newton step towards it needs :math:`H_{-i}^{-1}`. The objective without pair i no longer
depends on the projections of its two items; with :math:`E_i = \mathrm{diag}(I \otimes x_i, I \otimes y_i)`
and the pair's own `(2d, 2d)` curvature :math:`M_i`,

.. math:: \delta_i = -\bigl(H - E_i M_i E_i^\top\bigr)^{-1} \nabla F_{-i}(\theta),

by the Woodbury identity in 2d dimensions. What removal changes of all other curvature is of order 1/N and
left to refinement: preconditioned L-BFGS on the objective without the pair itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.audit import choose
from lsi.loo.contrastive.curvature import dense_curvature
from lsi.loo.contrastive.fit import Preconditioner, minimise
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.precision import Block, PairPrecision, add_terms
from lsi.loo.contrastive.removal import gradient_change
from lsi.loo.contrastive.result import PairResult
from lsi.loo.contrastive.state import Side, both_sides
from lsi.methods import Newton

DOUBLE_LIMIT = 4096
"""Up to so many weights, and pairs in a batch, products are in float64."""
DOUBLE_PAIRS = 2048
DENSE_LIMIT = 24_000
"""Beyond so many weights the dense Hessian (2.3 GB, and twice that while it is inverted) is refused."""
REFINE_OPERATIONS = 2e12
"""Where solving every pair to its optimum costs less, every pair is."""
REBUILD_OPERATIONS = 4e12
"""Where building the precision again for every pair costs less, it is."""
BLOCK_NUMBERS = 1 << 25
"""Numbers in the largest array of one block of left-out pairs."""
TASK_PAIRS = 64
"""Pairs that are worked off together, and that an interruption may lose."""
CALIBRATION = 24
"""Pairs whose error is measured where not all are refined."""
SAFETY = 3.0


def check_size(n_weights: int) -> None:
    """Refuse heads whose dense Hessian is out of reach."""
    if n_weights > DENSE_LIMIT:
        raise InputError(
            f"The heads have {n_weights:,} weights; the fast method keeps a dense Hessian and takes at most "
            f"{DENSE_LIMIT:,}. Lower ContrastiveProbe(dim=...), reduce the features first (for example with "
            "sklearn.decomposition.PCA(128)), or use method='retrain' on a subset."
        )


class PairNewton:
    """Leave-one-out optima of many pairs.

    Args:
        model: Pairs, float64.
        theta: The full-data optimum, `(K,)`.
        precision: Posterior of the full data.
        settings: Tolerance; None as tolerance: no refinement.

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
        self.solve_operations = 12.0 * (12.0 * n**2 * model.dim + 2.0 * size**2)
        self.rebuild_operations = 6.0 * n * float(size) * (n if precision.has_frozen else size)

    def _factor(self) -> tuple[str, Tensor]:
        """Return the name and the Cholesky factor of the curvature without one pair's share of the pull.

        Where the optimum is flat, that share can be what keeps the Hessian positive: the Gauss-
        Newton matrix
        then serves. Steps are rougher with it, and refinement reaches the same optima.
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

    def run(self, index: Tensor, work: Work | None = None) -> PairResult:
        """Return the result of the pairs at `index`. Shapes: index `(n,)`."""
        work, result, tasks = work or Work(), PairResult.empty(len(index)), self._tasks(index)
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
        """Return the places in the result that are worked off together: pairs of one batch."""
        size = max(16, min(TASK_PAIRS, BLOCK_NUMBERS // len(self.theta)))
        found = [torch.isin(index, batch).nonzero()[:, 0] for batch in self.model.batches]
        return [part.numpy() for where in found if len(where) for part in where.split(size)]

    def first(self, positions: Tensor) -> tuple[Block, tuple[Side, Side], Tensor, np.ndarray]:
        """Return pairs of one batch as a block, the batch's sides, and as `step` does.

        Shapes: positions `(B,)`.
        """
        rows = self.model.batch_of(int(positions[0]))
        sides, candidates = self._sides(int(rows[0]))
        block = Block(positions, torch.searchsorted(rows, positions), candidates)
        return block, sides, *self.step(sides, block)

    def _sides(self, position: int) -> tuple[tuple[Side, Side], tuple[Tensor, Tensor]]:
        """Return both sides of a pair's batch, and their candidates' means; the last one is kept."""
        if self._last is None or self._last[0] != position:
            rows = self.model.batch_of(position)
            sides = both_sides(self.model, self.theta, rows, self.dtype)
            self._last = position, (sides, (sides[0].candidate_means(), sides[1].candidate_means()))
        return self._last[1]

    def solve(self, position: int, delta: Tensor | None = None, tolerance: float = 1e-4) -> Tensor:
        """Return `θ₋ᵢ − θ` of one pair, iterated until the gradient without it is gone, `(K,)` float64."""
        model, change = self.model.without(position), Preconditioner(self.factor)
        scale = float(change.to_gradient(model.value_gradient(self.theta)[1]).abs().max())
        start = self.theta if delta is None else self.theta + delta
        found = minimise(model, start, tolerance=tolerance, scale=max(scale, 1e-300), preconditioner=change)
        return found[0] - self.theta

    def step(self, sides: tuple[Side, Side], block: Block) -> tuple[Tensor, np.ndarray]:
        """Return the first step of each pair, `(B, K)` float64, and its leverage, `(B,)`."""
        changes = [
            gradient_change(side, means, block.at).flatten(1)
            for side, means in zip(sides, block.candidates, strict=True)
        ]
        gradient = torch.cat(changes, 1) + (self.start - self.pull).to(changes[0].dtype)
        plain = -(gradient.to(self.dtype) @ self.inverse)
        x = self.model.x[block.positions].to(self.dtype), self.model.y[block.positions].to(self.dtype)
        gram, own = self._gram(x), own_block(sides, block.at).to(self.dtype)
        # Eigenvalues of M Q through a factor of Q; at 1 the pair alone would fix a direction.
        root = torch.linalg.cholesky(0.5 * (gram + gram.mT))
        values, vectors = torch.linalg.eigh(root.mT @ own @ root)
        safe = values.clamp_max(0.9)
        seen = self._along(plain, x)
        inner = torch.linalg.solve_triangular(root, seen[:, :, None], upper=False)
        inner = vectors @ ((safe / (1 - safe))[:, :, None] * (vectors.mT @ inner))
        weights = torch.linalg.solve_triangular(root.mT, inner, upper=True)[:, :, 0]
        delta = plain + self._across(weights, x) @ self.inverse
        return delta.to(torch.float64), values.sum(1).numpy()

    def _gram(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """Return `E_iᵀ H⁻¹ E_i`, `(B, 2d, 2d)`."""
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

    def _calibrate(self, result: PairResult, index: Tensor, refined: bool) -> Arrays:
        """Return `relative_error` of all pairs: a few are measured, from the highest score to the lowest.

        Where pairs are not refined one more step is taken; the precision is built again there.
        """
        affordable = max(4, int(REBUILD_OPERATIONS // self.rebuild_operations))
        picks = choose(result.lsi, min(CALIBRATION, affordable, len(index)), seed=0)
        errors = []
        for pick in picks:
            position, delta = int(index[pick]), self.first(index[pick : pick + 1])[2][0]
            target = self.solve(position, delta) if refined else delta + self._correction(position, delta)
            value = float(self.precision.exact(position, self.theta + target)[2].total)
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
    """What the blocks of a run need.

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
        engine, result = self.engine, PairResult.empty(len(positions))
        block, sides, delta, result.leverage = engine.first(torch.from_numpy(positions))
        for row, position in enumerate(positions.tolist()):
            if self.refine:
                delta[row] = engine.solve(position, delta[row])
            if self.rebuild:
                terms = engine.precision.exact(position, engine.theta + delta[row])
                result.put_terms(slice(row, row + 1), terms)
            tick(1)
        if self.refine and self.rebuild:
            result.relative_error[:] = engine.settings.tol
        if not self.rebuild:
            k, precision = engine.model.n_left, engine.precision
            left = precision.frozen(sides[0], block, delta[:, :k], False)
            terms = add_terms(left, precision.frozen(sides[1], block, delta[:, k:], True))
            result.put_terms(slice(None), terms)
        result.put_match(slice(None), engine.model, block.positions, engine.theta + delta)
        return result.arrays()


def own_block(sides: tuple[Side, Side], at: Tensor) -> Tensor:
    """Return the Hessian by the two projections of each pair, the others held, `(B, 2d, 2d)`."""
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
