"""The audit: a few samples of every run are left out again by brute force.

Nothing that makes the engines fast is trusted here: optima are iterated in float64 until the
gradient of the leave-one-out objective itself vanishes, and stopped training is run one head at a
time through ``torch.optim``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.audit import Audit
from lsi.loo.copies import CopiesEngine
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.newton.engine import REBUILD_LIMIT, NewtonEngine
from lsi.loo.result import LooResult
from lsi.progress import Progress

AUDIT_TOLERANCE = 1e-15  # squared relative decrement: values good to 1e-7, far below any tolerance


def choose(scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which scores to audit: one at random from each of `count` equal strata of rank.

    Args:
        scores: Approximate LSI, `(n,)`.
        count: How many, at most n.
        seed: Of the choice.

    Returns:
        Sorted indices into `scores`.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(scores, kind="stable")
    edges = np.linspace(0, len(order), min(count, len(order)) + 1).astype(int)
    picks = [order[generator.integers(low, high)] for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return np.sort(np.array(picks))


def default_count(n_parameters: int, posterior: str) -> int:
    """Return how many samples an audit leaves out, fewer where one costs a dense factorisation.

    Args:
        n_parameters: K' of the model.
        posterior: Name of the structure.
    """
    if n_parameters <= REBUILD_LIMIT:
        return 24
    return 4 if posterior == "full" else 16


def exact_scores(
    engine: NewtonEngine | BlockEngine, index: Tensor, progress: Progress | None = None
) -> np.ndarray:
    """Return LSI at the brute-force optima of a few samples, `(n,)` in nats.

    Args:
        engine: The engine of a trained model.
        index: Positions to leave out.
        progress: Called as `progress("audit", done, total)`.

    Returns:
        The exact values, in that order.
    """
    scorer: Any = engine.exact_scorer(AUDIT_TOLERANCE)
    exact = []
    for done, where in enumerate(index.split(4)):
        first = engine.solver.first_order(where)
        exact.append(scorer.score(first, first.delta)[2].total)
        if progress is not None:
            progress("audit", min(4 * (done + 1), len(index)), len(index))
    return np.asarray(torch.cat(exact).cpu().numpy())


def audit_newton(
    engine: NewtonEngine | BlockEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a `Newton` run.

    Args:
        engine: The engine that made the result.
        index: Positions that were scored.
        result: What the run reports.
        count: How many to leave out again.
        seed: Of the choice.
        progress: Called as `progress("audit", done, total)`.
    """
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    return Audit.from_values(
        index.cpu().numpy()[picks],
        exact_scores(engine, index[torch.from_numpy(picks)], progress),
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


def audit_retrain(
    engine: CopiesEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a `Retrain` run: models trained one at a time by ``torch.optim``.

    Args:
        engine: The engine that made the result.
        index: Positions that were scored.
        result: What the run reports.
        count: How many to leave out again.
        seed: Of the choice.
        progress: Called as `progress("audit", done, total)`.
    """
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    totals = np.zeros(len(picks))
    first = engine.settings.seed
    for repetition in range(engine.settings.n_seeds):
        whole = engine.train_plainly(first + repetition, None)
        score = engine.scorer(whole)
        for done, where in enumerate(picks):
            copy = engine.train_plainly(first + repetition, int(index[where]))
            totals[done] += score(index[where : where + 1], copy[None]).lsi[0]
            if progress is not None:
                progress("audit", repetition * len(picks) + done + 1, len(picks) * engine.settings.n_seeds)
    exact = totals / engine.settings.n_seeds
    return Audit.from_values(
        index.cpu().numpy()[picks], exact, result.lsi[picks], None, time.perf_counter() - began
    )
