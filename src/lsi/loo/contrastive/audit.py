"""The audit of pairs: a few are left out again, one at a time, from the full-data weights, in float64."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lsi.audit import Audit
from lsi.loo.audit import choose
from lsi.loo.contrastive.newton import PairNewton
from lsi.loo.contrastive.precision import PairPrecision
from lsi.loo.contrastive.result import PairResult
from lsi.loo.contrastive.retrain import PairRetrain, train_plainly
from lsi.progress import Progress

_TOLERANCE = 1e-6


def audit_pairs(
    engine: PairNewton | PairRetrain,
    index: Tensor,
    result: PairResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a run.

    `Newton` is checked against L-BFGS on the objective without the pair, from the full-data optimum until
    the gradient is gone, with the precision built again; `Retrain` against ``torch.optim.SGD``.

    Args:
        engine: What made the result.
        index: Positions that were scored.
        result: What the run reports.
        count: How many pairs to leave out again.
        seed: Of the choice.
        progress: Called as ``progress("audit", done, total)``.
    """
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    score = _newton(engine) if isinstance(engine, PairNewton) else _retrain(engine)
    exact = []
    for done, pick in enumerate(picks):
        exact.append(score(int(index[pick])))
        if progress is not None:
            progress("audit", done + 1, len(picks))
    certificate = None if np.isnan(result.relative_error).all() else result.relative_error[picks]
    seconds = time.perf_counter() - began
    return Audit.from_values(index.numpy()[picks], exact, result.lsi[picks], certificate, seconds)


def _newton(engine: PairNewton) -> Callable[[int], float]:
    def score(position: int) -> float:
        delta = engine.solve(position, tolerance=_TOLERANCE)
        return _total(engine.precision, position, engine.theta + delta)

    return score


def _retrain(engine: PairRetrain) -> Callable[[int], float]:
    model, settings = engine.trainer.model, engine.trainer.settings
    precision = engine.build(train_plainly(model, settings, None))
    return lambda position: _total(precision, position, train_plainly(model, settings, position))


def _total(precision: PairPrecision, position: int, theta: Tensor) -> float:
    with torch.no_grad():
        return float(precision.exact(position, theta)[2].total)
