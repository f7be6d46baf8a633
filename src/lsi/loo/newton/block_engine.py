"""The `Newton` engine for many classes: class blocks for every sample, the whole curvature for some."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.engine import Engine
from lsi.loo.newton.blocks import BlockSolver
from lsi.loo.newton.optima import AUDIT_TOLERANCE, exact_optima
from lsi.loo.newton.refine import Refiner
from lsi.loo.result import LooResult, loo_prediction
from lsi.methods import Newton
from lsi.posterior.base import Posterior
from lsi.posterior.sparse import sparse_scorer
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.model import SoftmaxModel

PILOTS = 24  # samples solved with the whole curvature to measure what the class blocks miss
# Cost of solving one sample: sweeps over all rows and classes, with their exponentials, and products with
# the sparse curvature. Measured on 20,000 × 256 × 100, overlapping and separate classes: within 1.4 times.
PASSES, ELEMENT, PRODUCTS = 4, 1200.0, 20
REFINE_WORK = 1e12  # operations spent on the highest scores: some ten seconds
REFINE_BLOCK = 16
BLOCK_BYTES = 1 << 28


class BlockEngine(Engine):
    """Leave-one-out optima of a probe whose Hessian is too large to be formed.

    Every sample is scored from class blocks. A few pilots, and then as many of the highest scores as
    REFINE_WORK allows, are solved to their optima with the whole curvature. The error measured on the pilots
    is the certificate of the other samples.

    Args:
        curvature: Class blocks at the trained weights.
        posterior: The posterior whose divergence is the score, `diag` or `kron`.
        settings: Tolerance; None: no refinement.
        memory: Bytes that the run may use; None: no limit.
    """

    audit_block = 4

    def __init__(
        self, curvature: BlockCurvature, posterior: Posterior, settings: Newton, memory: int | None = None
    ) -> None:
        self.model: SoftmaxModel = curvature.model
        self.posterior, self.settings = posterior, settings
        self._block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, memory // 16)
        self.solver = BlockSolver(curvature)
        self._scorer = sparse_scorer(posterior, self.solver.decay_step)
        tol = AUDIT_TOLERANCE if settings.tol is None else settings.tol
        self._refiner = Refiner(self.model, self.solver, posterior, tol, settings.max_passes)

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI at the optima, found in double precision, as `exact`. Shapes: positions `(n,)`."""
        return exact_optima(self._refiner, self.solver, positions)

    def block_size(self) -> int:
        """Return how many samples one block holds: enough for each class, within the memory."""
        c, d = self.model.n_classes, self.model.design.n_features
        return int(max(256, min(64 * c, self._block_bytes // (4 * (8 * d + 6 * c)))))

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order.

        Which samples are refined depends on all scores, so every shard scores all samples from class blocks,
        and only the refinement is divided.

        Shapes: index `(n,)`.
        """
        work, result, size = work or Work(), LooResult.empty(len(index)), self.block_size()
        tasks = [slice(low, min(low + size, len(index))) for low in range(0, len(index), size)]
        positions = [index[which].cpu().numpy() for which in tasks]
        for place, arrays in work.map("leave-one-out", self, "score_task", positions, divided=False):
            result.put(tasks[place], arrays)
        if self.settings.tol is not None:
            self._refine(index, tasks, result, work)
        own = [np.arange(len(index))[tasks[place]] for place in work.own(len(tasks))]
        result.done[:] = False
        result.done[np.concatenate(own) if own else []] = True
        return result

    def score_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result from class blocks, for the samples at `positions`.

        Shapes: positions `(n,)`.
        """
        return _joined(halving(positions, max(1, len(positions)), self._score_few))

    def _score_few(self, positions: np.ndarray) -> Arrays:
        removal, leverage = self.solver.sparse(torch.from_numpy(positions).to(self.model.design.device))
        terms = self._scorer.divergence(removal)
        logits = removal.probabilities.clamp_min(1e-38).log() + removal.logit_shift
        p = torch.softmax(logits, -1)
        columns = {
            "mean_term": terms.mean,
            "covariance_term": terms.covariance,
            "loo_probability": p.gather(1, removal.target[:, None])[:, 0].to(torch.float64),
            "loo_prediction": p.argmax(-1),
            "leverage": leverage,
            "relative_error": torch.full_like(leverage, float("nan")),
        }
        return {name: column.cpu().numpy() for name, column in columns.items()}

    def refined_count(self, n_scored: int) -> int:
        """Return how many of the highest scores are solved with the whole curvature."""
        n, d, c = self.model.n_samples, self.model.design.n_features, self.model.n_classes
        return int(min(n_scored, REFINE_WORK / solving_work(n, d, c, self.solver.curvature.entries.count)))

    def _refine(self, index: Tensor, tasks: list[slice], result: LooResult, work: Work) -> None:
        """Certify all entries by pilots, and solve the highest scores with the whole curvature."""
        n = len(index)
        order = np.argsort(result.lsi, kind="stable")
        ranks = np.unique(np.linspace(0, n - 1, min(PILOTS, n)).astype(int))
        pilots, before = order[ranks], result.lsi.copy()
        top = np.setdiff1d(order[n - self.refined_count(n) :], pilots)
        chunks = np.array_split(pilots, -(-len(pilots) // REFINE_BLOCK))
        self._solve(index, result, chunks, work, "pilots", divided=False)
        exact = np.maximum(result.lsi[pilots], np.finfo(float).tiny)
        missed = np.abs(before[pilots] / exact - 1.0)
        certified = result.relative_error[pilots].copy()
        missed[np.isinf(certified)] = np.inf  # the optimum was not found, so nothing is known
        result.relative_error[order] = _nearest(ranks, missed, n)
        result.relative_error[pilots] = certified
        # Grouped by the tasks that they come from, which shards divide among themselves.
        of_task = [top[(top >= task.start) & (top < task.stop)] for task in tasks]
        self._solve(index, result, of_task, work, "refine", divided=True)

    def _solve(
        self,
        index: Tensor,
        result: LooResult,
        parts: list[np.ndarray],
        work: Work,
        stage: str,
        *,
        divided: bool,
    ) -> None:
        """Replace the entries of each of `parts` by values at their optima."""
        positions = [index[torch.from_numpy(part).to(index.device)].cpu().numpy() for part in parts]
        for place, arrays in work.map(stage, self, "solve_task", positions, divided=divided):
            part, known = parts[place], arrays.pop("known")
            result.put(part[known], {name: column[known] for name, column in arrays.items()})
            result.relative_error[part[~known]] = np.inf

    def solve_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result at the optima, and which of them were reached, as `known`.

        Shapes: positions `(n,)`.
        """
        even = -(-len(positions) // max(1, -(-len(positions) // REFINE_BLOCK)))
        parts = []
        for part in halving(positions, even, self._solve_few):
            parts.append(part)
            tick(len(part["known"]))
        return _joined(parts)

    def _solve_few(self, positions: np.ndarray) -> Arrays:
        where = torch.from_numpy(positions).to(self.model.design.device)
        first = self.solver.first_order(where)
        found = self._refiner.refine(first)
        probability, prediction = loo_prediction(self.model, where, found.delta)
        columns = {
            "mean_term": found.terms.mean,
            "covariance_term": found.terms.covariance,
            "loo_probability": probability,
            "loo_prediction": prediction,
            "relative_error": found.certificate,
            "known": found.certificate <= self._refiner.tol,
        }
        return {name: column.cpu().numpy() for name, column in columns.items()}


def solving_work(n_samples: int, n_features: int, n_classes: int, n_entries: int) -> float:
    """Return the operations of solving one sample; `n_entries` probabilities of all rows are noticeable."""
    sweep = n_samples * (6.0 * n_features * (n_classes - 1) + ELEMENT * n_classes)
    # Gathering rows takes about as long as the products.
    return PASSES * sweep + PRODUCTS * 8.0 * n_entries * n_features


def _joined(parts: Iterable[Arrays]) -> Arrays:
    """Return the columns of several blocks, one after the other."""
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _nearest(ranks: np.ndarray, missed: np.ndarray, n: int) -> np.ndarray:
    """Return for every rank twice the largest error of the five nearest pilots. Shapes: ranks `(pilots,)`."""
    padded = np.pad(missed, 2, mode="edge")
    around = 2.0 * np.lib.stride_tricks.sliding_window_view(padded, 5).max(axis=1)
    return np.asarray(around[np.clip(np.searchsorted(ranks, np.arange(n)), 0, len(ranks) - 1)])
