"""The `Newton` engine: first-order removals block by block, refined where the settings have a tolerance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.audit import REBUILD_LIMIT
from lsi.loo.engine import Engine
from lsi.loo.newton.dense import BLOCK_BYTES, DenseSolver, FirstOrder
from lsi.loo.newton.exact import ExactScorer
from lsi.loo.newton.optima import AUDIT_TOLERANCE, exact_optima
from lsi.loo.newton.refine import Refined, Refiner
from lsi.loo.newton.sampled import SAMPLED_ROWS, SampledCorrector
from lsi.loo.result import LooResult, loo_prediction
from lsi.methods import Newton
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.model import SoftmaxModel

REFINE_BLOCK = 64  # samples swept together
# A task is one unit of a worker's work, and what an interruption may lose: at most TASK_WORK operations, and
# at least TASKS tasks in a run unless they would be smaller than a block.
TASK_WORK, TASKS = 6e11, 32
SWEPT = 0.1  # share of samples that are swept where corrections from sampled rows certify the others
SAMPLED_WORK = 2e12  # operations of sweeping every sample, above which sampling rows is worth its error
# Samples that the first rows do not certify are tried with more rows, if a sweep is still far more expensive.
MORE_ROWS, MORE_SHARE = 4 * SAMPLED_ROWS, 0.25
SAMPLED_TOL = 3e-3  # smaller tolerances are beyond the spread of sampled corrections for most samples
# Certificate of a sampled correction: SPREAD standard errors (the rows' contributions have heavy tails), the
# share SECOND of the correction's absolute size for the omitted orders, and the error of float32.
SPREAD, SECOND, FLOOR = 4.0, 0.1, 1e-5
FEW_PILOTS = 4
PILOTS = 48  # samples swept to calibrate the certificates of sampled corrections


def samples_rows(n_samples: int, n_parameters: int, tol: float) -> bool:
    """Return whether values are first certified from a sample of rows, since sweeps are expensive."""
    return tol >= SAMPLED_TOL and 6.0 * n_samples**2 * n_parameters >= SAMPLED_WORK


class NewtonEngine(Engine):
    """Leave-one-out optima of one trained probe.

    Args:
        model: The trained probe.
        curvature: Its factorised curvature.
        posterior: The posterior whose divergence is the score.
        settings: Tolerance and limits.
        memory: Bytes that the run may use; None: no limit.
    """

    audit_block = 4

    def __init__(
        self,
        model: SoftmaxModel,
        curvature: Curvature,
        posterior: Posterior,
        settings: Newton,
        memory: int | None = None,
    ) -> None:
        self.model, self.posterior, self.settings = model, posterior, settings
        self._floor = FLOOR + 2.0 * curvature.drift
        block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, memory // 16)
        self.solver = DenseSolver(model, curvature, block_bytes)
        self.start = model.objective_and_gradient(model.theta)[1]
        # A full posterior is rebuilt and factorised for every refined sample.
        self._affordable = not posterior.shift_is_current or model.theta.numel() <= REBUILD_LIMIT
        self._refiner: Refiner | None = None
        self._correctors: list[SampledCorrector] = []  # the one with more rows last
        if settings.tol is not None:
            self._refiner = Refiner(
                model, self.solver, posterior, self.start, settings.tol, settings.max_passes
            )
            if samples_rows(model.n_samples, model.theta.numel(), settings.tol):
                counts = [SAMPLED_ROWS, MORE_ROWS][: 1 + int(MORE_ROWS <= MORE_SHARE * model.n_samples)]
                self._correctors = [
                    SampledCorrector(model, self.solver, posterior, count, seed)
                    for seed, count in enumerate(counts)
                ]
        size, device = (len(self._correctors), model.n_samples), model.design.device
        self._extra = torch.zeros(size, dtype=torch.float64, device=device)

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI at the optima by Newton-CG in float64, as `exact`. Shapes: positions `(n,)`."""
        scorer = ExactScorer(self.posterior, self.solver, self.start, AUDIT_TOLERANCE)
        return exact_optima(scorer, self.solver, positions)

    def block_size(self) -> int:
        """Return how many samples one block holds, from the memory of its largest tensor."""
        return self.solver.block_size

    def tasks(self, n_scored: int) -> list[slice]:
        """Return the bounds of the tasks of `n_scored` samples; they do not depend on who does them."""
        n, k = self.model.n_samples, float(self.model.theta.numel())
        each = 2.0 * k**2
        if self._refiner is not None:
            share = SWEPT if self._correctors else 1.0
            each += share * 2 * 4.0 * n * k + 6.0 * SAMPLED_ROWS * k
        size = max(REFINE_BLOCK, min(n_scored // TASKS, int(TASK_WORK / each)))
        block = self.block_size()
        size = size - size % block if size > block else size
        return [slice(low, min(low + size, n_scored)) for low in range(0, n_scored, size)]

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order. Shapes: index `(n,)`."""
        work, result, tasks = work or Work(), LooResult.empty(len(index)), self.tasks(len(index))
        if self._correctors:
            extra = work.once("certificates", lambda: self._calibrate(index))
            self._extra = torch.from_numpy(extra["extra"]).to(index.device)
        positions = [index[which].cpu().numpy() for which in tasks]
        for place, arrays in work.map("leave-one-out", self, "score_task", positions):
            result.put(tasks[place], arrays)
        return result

    def score_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result for the samples at `positions`. Shapes: positions `(n,)`."""
        index = torch.from_numpy(positions).to(self.model.design.device)
        result = LooResult.empty(len(index))
        left, size = np.arange(len(index)), self.block_size()
        for score in self._passes():
            for part in self._scored(index, left, size, score, result):
                tick(int(np.count_nonzero(~self._is_open(result, part))))
            left = left[self._is_open(result, left)]
        if not self._affordable:
            tick(len(left))
            left = left[:0]
        even = -(-len(left) // max(1, -(-len(left) // REFINE_BLOCK)))  # parts of about the same size
        for part in self._scored(index, left, even, self._refine, result):
            tick(len(part))
        return result.arrays()

    def _passes(self) -> list[Callable[[FirstOrder], Refined]]:
        """Return the passes that come before the sweep of samples that are still not certified."""
        if self._correctors:
            return [partial(self._sampled, place) for place in range(len(self._correctors))]
        return [self._unrefined if self._refiner is None else self._refine]

    def _scored(
        self,
        index: Tensor,
        order: np.ndarray,
        size: int,
        score: Callable[[FirstOrder], Refined],
        result: LooResult,
    ) -> Iterator[np.ndarray]:
        """Score the samples `index[order]` into `result`, and yield the places of each finished block."""

        def do(part: np.ndarray) -> np.ndarray:
            first = self.solver.first_order(index[torch.from_numpy(part).to(index.device)])
            result.put(part, self._columns(first, score(first)))
            return part

        return halving(order, size, do)

    def _is_open(self, result: LooResult, which: np.ndarray) -> np.ndarray:
        """Return which entries are still not certified after a pass with sampled corrections."""
        if self._refiner is None or not self._correctors:
            return np.zeros(len(which), dtype=bool)
        return np.asarray(~(result.relative_error[which] <= self._refiner.tol))

    def _calibrate(self, index: Tensor) -> Arrays:
        """Return how much to add to each certificate, `(passes, N)`, for what sampled corrections miss.

        Pilots from the hardest to the easiest sample are swept to a tenth of the tolerance. If twice the
        error of a pilot's sampled value (third order, and the change of the covariance term by the others'
        curvature) exceeds its certificate, the difference is added to the certificates of samples of similar
        rank: each gets the largest of the five nearest pilots.
        """
        assert self._refiner is not None
        extra = torch.zeros_like(self._extra)
        x, target = self.model.design.take(index), self.model.target[index]
        order = self.model.probabilities(x).gather(1, target[:, None])[:, 0].argsort()
        count = min(PILOTS if self._affordable else FEW_PILOTS, len(index))
        picks = torch.linspace(0, len(index) - 1, count, device=index.device).long()
        pilot = copy.copy(self._refiner)
        pilot.tol = 0.1 * self._refiner.tol

        def excess_of(part: np.ndarray) -> Tensor:
            first = self.solver.first_order(index[order[picks[torch.from_numpy(part).to(index.device)]]])
            exact = pilot.refine(first).terms.total
            tried = [self._sampled(place, first) for place in range(len(self._correctors))]
            missed = torch.stack([(each.terms.total - exact).abs() for each in tried])
            missed /= exact.clamp_min(torch.finfo(exact.dtype).tiny)
            return (2.0 * missed - torch.stack([each.certificate for each in tried])).clamp_min(0)

        excess = torch.cat(list(halving(np.arange(count), count, excess_of)), 1)
        around = torch.nn.functional.max_pool1d(excess, 5, stride=1, padding=2)
        nearest = torch.searchsorted(picks, torch.arange(len(index), device=index.device))
        extra[:, index[order]] = around[:, nearest]
        return {"extra": extra.cpu().numpy()}

    def _refine(self, first: FirstOrder) -> Refined:
        assert self._refiner is not None
        return self._refiner.refine(first)

    def _unrefined(self, first: FirstOrder) -> Refined:
        """Return first-order values, without a certificate."""
        terms = self._first_terms(first)
        return Refined(first.delta, terms, torch.full_like(terms.mean, float("nan")))

    def _first_terms(self, first: FirstOrder) -> Terms:
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=first.residual)
        return self.posterior.divergence(removal)

    def _sampled(self, place: int, first: FirstOrder) -> Refined:
        """Return first-order values with their sampled correction and its certificate."""
        terms, correction = self._first_terms(first), self._correctors[place].correct(first)
        total = (terms.total + correction.value).clamp_min(torch.finfo(torch.float64).tiny)
        size = correction.size / total
        certificate = (
            self._floor
            + self._extra[place, first.index]
            + SPREAD * correction.error / total
            + SECOND * size
            + size.square()
        )
        mean = (terms.mean + correction.value).clamp_min(0)
        return Refined(first.delta, Terms(mean, terms.covariance), certificate)

    def _columns(self, first: FirstOrder, refined: Refined) -> Arrays:
        probability, prediction = loo_prediction(self.model, first.index, refined.delta)
        columns = {
            "mean_term": refined.terms.mean,
            "covariance_term": refined.terms.covariance,
            "loo_probability": probability,
            "loo_prediction": prediction,
            "leverage": first.leverage,
            "relative_error": refined.certificate,
        }
        return {name: column.cpu().numpy() for name, column in columns.items()}
