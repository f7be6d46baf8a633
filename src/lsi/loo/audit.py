"""The audit: a few samples of every run are left out again by brute force.

Nothing that makes the engines fast is trusted here: optima are iterated in float64 until the
gradient of the leave-one-out objective itself vanishes, and stopped training is run one head at a
time through ``torch.optim``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.newton.engine import REBUILD_LIMIT, NewtonEngine
from lsi.loo.result import LooResult
from lsi.loo.retrain.copies import CopiesEngine, Scorer
from lsi.results.audit import Audit

AUDIT_TOLERANCE = 1e-15  # squared relative decrement: values good to 1e-7, far below any tolerance


def choose(scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which scores to audit: one at random from each of `count` equal strata of rank.

    Shapes: scores `(n,)`.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(scores, kind="stable")
    edges = np.linspace(0, len(order), min(count, len(order)) + 1).astype(int)
    picks = [order[generator.integers(low, high)] for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return np.sort(np.array(picks))


def choose_done(result: LooResult, count: int, seed: int) -> np.ndarray:
    """Return which of the entries that hold a result to audit, as `choose` does."""
    done = np.flatnonzero(result.done)
    return np.asarray(done[choose(result.lsi[done], count, seed)])


def default_count(n_parameters: int, posterior: str) -> int:
    """Return how many samples an audit leaves out, fewer where one costs a dense factorisation."""
    if n_parameters <= REBUILD_LIMIT:
        return 24
    return 4 if posterior == "full" else 16


@dataclass(frozen=True)
class Optima:
    """What the blocks of an audit need: the engine of a trained model."""

    engine: NewtonEngine | BlockEngine

    def solve(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI at the brute-force optima of a few samples. Shapes: positions `(n,)`."""
        scorer: Any = self.engine.exact_scorer(AUDIT_TOLERANCE)
        device = self.engine.model.design.device

        def solve(part: np.ndarray) -> np.ndarray:
            first = self.engine.solver.first_order(torch.from_numpy(part).to(device))
            _, error, terms = scorer.score(first, first.delta)
            # An optimum that was not reached is no reference: the audit then says that it has none.
            return np.asarray(torch.where(error.isfinite(), terms.total, torch.nan).cpu().numpy())

        return {"exact": np.concatenate(list(halving(positions, len(positions), solve)))}


def exact_scores(engine: NewtonEngine | BlockEngine, index: Tensor, work: Work | None = None) -> np.ndarray:
    """Return LSI at the brute-force optima of a few samples, `(n,)` in nats."""
    # A shard audits samples of its own, and all of those.
    work, parts = work or Work(), index.cpu().numpy()
    blocks = [parts[low : low + 4] for low in range(0, len(parts), 4)]
    found = dict(work.map("audit", Optima(engine), "solve", blocks, divided=False))
    return np.concatenate([found[place]["exact"] for place in range(len(blocks))])


def audit_newton(
    engine: NewtonEngine | BlockEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    work: Work | None = None,
) -> Audit:
    """Return the audit of a `Newton` run."""
    began = time.perf_counter()
    picks = choose_done(result, count, seed)
    return Audit.from_values(
        index.cpu().numpy()[picks],
        exact_scores(engine, index[torch.from_numpy(picks)], work),
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


@dataclass(frozen=True)
class PlainTraining:
    """What the blocks of an audit need: who trains, and with which seeds."""

    engine: CopiesEngine

    def train(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI of one sample, by models trained one at a time for every seed.

        Shapes: positions `(1,)`.
        """
        engine, total = self.engine, 0.0
        for seed in range(engine.settings.seed, engine.settings.seed + engine.settings.n_seeds):
            score = self._scorer(seed)
            copy = engine.train_plainly(seed, int(positions[0]))
            total += float(score(torch.from_numpy(positions).to(engine.device), copy[None]).lsi[0])
            tick(1)
        return {"exact": np.array([total / engine.settings.n_seeds])}

    def _scorer(self, seed: int) -> Scorer:
        if seed not in self._scorers:
            self._scorers[seed] = self.engine.scorer(self.engine.train_plainly(seed, None))
        return self._scorers[seed]

    @cached_property
    def _scorers(self) -> dict[int, Scorer]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was trained here: a worker trains its own, to the same weights."""
        return {"engine": self.engine}


def audit_retrain(
    engine: CopiesEngine, index: Tensor, result: LooResult, count: int, seed: int, work: Work | None = None
) -> Audit:
    """Return the audit of a `Retrain` run: models trained one at a time by ``torch.optim``."""
    began = time.perf_counter()
    picks, work = choose_done(result, count, seed), work or Work()
    positions = index.cpu().numpy()[picks]
    owner, units = PlainTraining(engine), [engine.settings.n_seeds] * len(picks)
    found = dict(work.map("audit", owner, "train", list(positions[:, None]), units, divided=False))
    exact = np.concatenate([found[place]["exact"] for place in range(len(picks))])
    return Audit.from_values(positions, exact, result.lsi[picks], None, time.perf_counter() - began)
