"""The audit: a few samples of every run are left out again by brute force.

Nothing that makes the engines fast is trusted here: optima are iterated in float64 until the
gradient of the leave-one-out objective itself vanishes, and stopped training is run one head at a
time through ``torch.optim.SGD``.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from lsi.audit import Audit
from lsi.loo.newton.engine import REBUILD_LIMIT, NewtonEngine
from lsi.loo.newton.exact import ExactScorer
from lsi.loo.result import LooResult
from lsi.loo.retrain import RetrainEngine, initial_weights
from lsi.probes.model import SoftmaxModel
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


def audit_newton(
    engine: NewtonEngine,
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
    scorer = ExactScorer(engine.posterior, engine.solver, engine.start, AUDIT_TOLERANCE)
    exact = []
    for done, where in enumerate(torch.from_numpy(picks).split(4)):
        first = engine.solver.first_order(index[where])
        exact.append(scorer.score(first, first.delta)[2].total)
        if progress is not None:
            progress("audit", min(4 * (done + 1), len(picks)), len(picks))
    values = torch.cat(exact).cpu().numpy()
    return Audit.from_values(
        index.cpu().numpy()[picks],
        values,
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


def audit_retrain(
    engine: RetrainEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a `Retrain` run: heads trained one at a time by ``torch.optim.SGD``.

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
        whole = _train_plainly(engine, first + repetition, None)
        score = engine.scorer(whole)
        for done, where in enumerate(picks):
            head = _train_plainly(engine, first + repetition, int(index[where]))
            totals[done] += score(index[where : where + 1], head[None]).lsi[0]
            if progress is not None:
                progress("audit", repetition * len(picks) + done + 1, len(picks) * engine.settings.n_seeds)
    exact = totals / engine.settings.n_seeds
    return Audit.from_values(
        index.cpu().numpy()[picks], exact, result.lsi[picks], None, time.perf_counter() - began
    )


def _train_plainly(engine: RetrainEngine, seed: int, left_out: int | None) -> Tensor:
    """Return one head `(C, D)` trained by ``torch.optim.SGD`` on all samples but one."""
    model, s = engine.model, engine.settings
    x, y, w = _without(model, left_out)
    start = initial_weights(
        seed, model.design.n_features - int(engine.fit_intercept), model.n_classes, engine.fit_intercept
    )
    weight = start.to(x).requires_grad_()
    optimizer = torch.optim.SGD(
        [weight], lr=s.lr, momentum=s.momentum, nesterov=s.nesterov, weight_decay=model.weight_decay
    )
    for _ in range(s.epochs):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T, y, reduction="none")
        (loss * w).mean().backward()
        optimizer.step()
    return weight.detach()


def _without(model: SoftmaxModel, left_out: int | None) -> tuple[Tensor, Tensor, Tensor]:
    keep = torch.ones(model.n_samples, dtype=torch.bool, device=model.design.device)
    if left_out is not None:
        keep[left_out] = False
    x = model.design.rows(0, model.n_samples)[keep]
    return x, model.target[keep], model.weight[keep].to(x.dtype)
