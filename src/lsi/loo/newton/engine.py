"""The `Newton` engine: first-order removals block by block, refined where the settings have a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.audit import REBUILD_LIMIT
from lsi.loo.engine import Engine
from lsi.loo.newton.dense import BLOCK_BYTES, DenseSolver, FirstOrder, Inverse
from lsi.loo.newton.optima import AUDIT_TOLERANCE, exact_optima
from lsi.loo.newton.refine import Refined, Refiner
from lsi.loo.newton.sampled import LEVELS, RowCorrector
from lsi.loo.result import LooResult, loo_prediction
from lsi.methods import Newton
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.model import SoftmaxModel

REFINE_BLOCK = 64  # samples swept together
# Samples of a task at least where rows are sampled: few of them are left to be swept, together if the task is
# large enough. With 256 in place of 64 the scores of 1,000 of 50,000 took 13.3 s instead of 16.5 (one core).
SAMPLED_TASK = 256
# A task is one unit of a worker's work, and what an interruption may lose: at most TASK_WORK operations, and
# at least TASKS tasks in a run unless they would be smaller than a block.
TASK_WORK, TASKS = 6e11, 32
SWEPT = 0.1  # share of samples that are swept where corrections from sampled rows certify the others
SAMPLED_WORK = 2e12  # operations of sweeping every sample, above which sampling rows is worth its error
SAMPLED_TOL = 3e-3  # smaller tolerances are beyond the spread of sampled corrections for most samples
# Contraction of an updated inverse up to which sampled rows certify enough: at 0.03 they certify 99 % of the
# rows that 3 new labels of 50,000 affect most, in the time of a sweep; at 0.09 (20 labels) 72 %, as two do.
NEAR = 0.05
FLOOR = 1e-5  # relative error that products leave at least
# In single precision: of 400 first-order values, 8,000 × 512 × 10, the worst was off by 1.1e-5 (weight decay
# 1e-4) and 4e-5 (1e-6) against double precision, and by 1.7e-4 where all features had an offset of 20.
SINGLE_FLOOR = 2e-4


def samples_rows(n_samples: int, n_parameters: int, tol: float) -> bool:
    """Return whether values are first certified from a sample of rows, since sweeps are expensive."""
    return tol >= SAMPLED_TOL and 6.0 * n_samples**2 * n_parameters >= SAMPLED_WORK


class NewtonEngine(Engine):
    """Leave-one-out optima of one trained probe.

    Args:
        model: The trained probe.
        curvature: Its factorised curvature, unusable afterwards, or the inverse of it.
        posterior: The posterior whose divergence is the score.
        settings: Tolerance and limits.
        memory: Bytes that the run may use; None: no limit.
    """

    audit_block = 16

    def __init__(
        self,
        model: SoftmaxModel,
        curvature: Curvature | Inverse,
        posterior: Posterior,
        settings: Newton,
        memory: int | None = None,
    ) -> None:
        self.model, self.posterior, self.settings = model, posterior, settings
        rounding = FLOOR if model.design.dtype == torch.float64 else SINGLE_FLOOR
        self._floor = rounding + 2.0 * curvature.drift + posterior.rounding
        block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, memory // 16)
        inverse = curvature if isinstance(curvature, Inverse) else Inverse.of(model, curvature)
        self.solver = DenseSolver(model, inverse, block_bytes)
        # A full posterior is rebuilt and factorised for every refined sample.
        self._affordable = not posterior.shift_is_current or model.theta.numel() <= REBUILD_LIMIT
        self._refiner: Refiner | None = None
        self._corrector: RowCorrector | None = None
        if settings.tol is not None:
            self._refiner = Refiner(model, self.solver, posterior, settings.tol, settings.max_passes)
            sampled = samples_rows(model.n_samples, model.theta.numel(), settings.tol)
            if sampled and inverse.contraction <= NEAR:
                self._corrector = RowCorrector(model, self.solver, posterior, settings.tol, self._floor)

    @property
    def floor(self) -> float:
        """Relative error of a step that rounding leaves."""
        return self._floor

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI at the optima, found in double precision, as `exact`. Shapes: positions `(n,)`."""
        passes = self.settings.max_passes
        refiner = Refiner(self.model, self.solver, self._audited, AUDIT_TOLERANCE, passes)
        return exact_optima(refiner, self.solver, positions)

    @property
    def trusts(self) -> str:  # type: ignore[override]
        """What `exact` takes from the run."""
        return f"the run's fit of all samples{'' if self._rebuilt else ' and its precision'}"

    @property
    def _rebuilt(self) -> bool:
        """Whether an audit builds the precision anew, in float64, where the run's is not."""
        return self.model.design.dtype != torch.float64 and self._affordable

    @cached_property
    def _audited(self) -> Posterior:
        """The posterior that an audit takes the divergence of."""
        if not self._rebuilt:
            return self.posterior
        whole = replace(self.model, design=self.model.design.astype(torch.float64))
        return type(self.posterior)(whole, self.posterior.prior_precision, self.posterior.basis)

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what workers make for themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_audited"}

    def block_size(self) -> int:
        """Return how many samples one block holds, from the memory of its largest tensor."""
        return self.solver.block_size

    def tasks(self, n_scored: int) -> list[slice]:
        """Return the bounds of the tasks of `n_scored` samples; they do not depend on who does them."""
        n, k = self.model.n_samples, float(self.model.theta.numel())
        each = 2.0 * k**2
        if self._refiner is not None:
            share = SWEPT if self._corrector else 1.0
            each += share * 2 * 4.0 * n * k + 12.0 * LEVELS[0][0] * k
        least = SAMPLED_TASK if self._corrector else REFINE_BLOCK
        size = max(least, min(n_scored // TASKS, int(TASK_WORK / each)))
        block = self.block_size()
        size = size - size % block if size > block else size
        return [slice(low, min(low + size, n_scored)) for low in range(0, n_scored, size)]

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order. Shapes: index `(n,)`."""
        work, result, tasks = work or Work(), LooResult.empty(len(index)), self.tasks(len(index))
        positions = [index[which].cpu().numpy() for which in tasks]
        for place, arrays in work.map("leave-one-out", self, "score_task", positions):
            result.put(tasks[place], arrays)
        return result

    def score_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result for the samples at `positions`. Shapes: positions `(n,)`."""
        index = torch.from_numpy(positions).to(self.model.design.device)
        result = LooResult.empty(len(index))
        left, size = np.arange(len(index)), self.block_size()
        for part in self._scored(index, left, size, self._first_pass(), result):
            tick(int(np.count_nonzero(~self._is_open(result, part))))
        left = left[self._is_open(result, left)]
        if not self._affordable:
            tick(len(left))
            left = left[:0]
        even = -(-len(left) // max(1, -(-len(left) // REFINE_BLOCK)))  # parts of about the same size
        for part in self._scored(index, left, even, self._refine, result):
            tick(len(part))
        return result.arrays()

    def _first_pass(self) -> Callable[[FirstOrder], Arrays]:
        """Return what every sample goes through before those that are not certified are swept."""
        if self._corrector is not None:
            return self._sampled
        return self._unrefined if self._refiner is None else self._refine

    def _scored(
        self,
        index: Tensor,
        order: np.ndarray,
        size: int,
        score: Callable[[FirstOrder], Arrays],
        result: LooResult,
    ) -> Iterator[np.ndarray]:
        """Score the samples `index[order]` into `result`, and yield the places of each finished block."""

        def do(part: np.ndarray) -> np.ndarray:
            first = self.solver.first_order(index[torch.from_numpy(part).to(index.device)])
            result.put(part, score(first))
            return part

        return halving(order, size, do)

    def _is_open(self, result: LooResult, which: np.ndarray) -> np.ndarray:
        """Return which entries are still not certified after a pass with sampled corrections."""
        if self._refiner is None or self._corrector is None:
            return np.zeros(len(which), dtype=bool)
        return np.asarray(~(result.relative_error[which] <= self._refiner.tol))

    def _refine(self, first: FirstOrder) -> Arrays:
        assert self._refiner is not None
        return self._columns(first, self._refiner.refine(first), self._first_terms(first).total)

    def _first_terms(self, first: FirstOrder) -> Terms:
        residual = first.residual if self.solver.is_current else None
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=residual)
        return self.posterior.divergence(removal)

    def _unrefined(self, first: FirstOrder) -> Arrays:
        """Return first-order values, without a certificate."""
        terms = self._first_terms(first)
        unknown = torch.full_like(terms.mean, float("nan"))
        return self._columns(first, Refined(first.delta, terms, unknown), terms.total)

    def _sampled(self, first: FirstOrder) -> Arrays:
        """Return values corrected from sampled rows, with their certificates."""
        assert self._corrector is not None
        found = self._corrector.correct(first)
        refined = Refined(first.delta, found.terms, found.certificate)
        logit_shift = -self.solver.own_logits(first, found.gradient)
        return self._columns(first, refined, found.first_order, logit_shift)

    def _columns(
        self, first: FirstOrder, refined: Refined, first_order: Tensor, logit_shift: Tensor | None = None
    ) -> Arrays:
        probability, prediction = loo_prediction(self.model, first.index, refined.delta, logit_shift)
        columns = {
            "mean_term": refined.terms.mean,
            "covariance_term": refined.terms.covariance,
            "loo_probability": probability,
            "loo_prediction": prediction,
            "leverage": first.leverage,
            "relative_error": refined.certificate,
            "first_order": first_order,
        }
        return {name: column.cpu().numpy() for name, column in columns.items()}
