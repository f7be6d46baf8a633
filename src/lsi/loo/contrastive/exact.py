"""The audit of pairs: a few are left out again, one at a time, from the full-data weights, in float64."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.audit import choose
from lsi.loo.contrastive.newton import PairNewton
from lsi.loo.contrastive.precision import PairPrecision
from lsi.loo.contrastive.result import PairResult
from lsi.loo.contrastive.retrain import PairRetrain, train_plainly
from lsi.results.audit import Audit

_TOLERANCE = 1e-6


def audit_pairs(
    engine: PairNewton | PairRetrain,
    index: Tensor,
    result: PairResult,
    count: int,
    seed: int,
    work: Work | None = None,
) -> Audit:
    """Return the audit of a run.

    `Newton` is checked against L-BFGS on the objective without the pair, from the full-data optimum until
    the gradient is gone, with the precision built again; `Retrain` against ``torch.optim.SGD``.
    """
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    blocks = list(index.numpy()[picks][:, None])
    found = dict((work or Work()).map("audit", PairsAgain(engine), "solve", blocks))
    exact = np.concatenate([found[place]["exact"] for place in range(len(blocks))])
    certificate = None if np.isnan(result.relative_error).all() else result.relative_error[picks]
    seconds = time.perf_counter() - began
    return Audit.from_values(index.numpy()[picks], exact, result.lsi[picks], certificate, seconds)


@dataclass(frozen=True)
class PairsAgain:
    """What the blocks of an audit need: who made the result."""

    engine: PairNewton | PairRetrain

    def solve(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI of one pair that is left out again. Shapes: positions `(1,)`."""
        engine, position = self.engine, int(positions[0])
        if isinstance(engine, PairNewton):
            delta = engine.solve(position, tolerance=_TOLERANCE)
            exact = _total(engine.precision, position, engine.theta + delta)
        else:
            theta = train_plainly(engine.trainer.model, engine.trainer.settings, position)
            exact = _total(self._plain, position, theta)
        return {"exact": np.array([exact])}

    @cached_property
    def _plain(self) -> PairPrecision:
        """Return the posterior of all pairs at heads trained plainly."""
        assert isinstance(self.engine, PairRetrain)
        trainer = self.engine.trainer
        return self.engine.build(train_plainly(trainer.model, trainer.settings, None))


def _total(precision: PairPrecision, position: int, theta: Tensor) -> float:
    with torch.no_grad():
        return float(precision.exact(position, theta)[2].total)
