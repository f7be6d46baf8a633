"""New rows as a fitted probe's heads see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.loo.attribution.queries import Queries
from lsi.loo.newton.engine import NewtonEngine
from lsi.run.context import Run
from lsi.validation.queries import check_queries, check_query_labels, query_names


@dataclass(frozen=True, eq=False)
class Asked:
    """New rows, with labels or without.

    Attributes:
        run: Of the fitted probe.
        names: What the rows are called, `(M,)`.
        features: `(M, D)`, without an intercept column.
        target: Class codes `(M,)`, or zeros and ones `(M, L)`; None: none were given.
    """

    run: Run
    names: np.ndarray
    features: np.ndarray
    target: np.ndarray | None

    @classmethod
    def of(cls, run: Run, X: Any, y: Any = None) -> Asked:
        """Return the rows, checked."""
        features = check_queries(X, run.problem)
        target = None if y is None else check_query_labels(y, run.problem, len(features))
        return cls(run, query_names(X), features, target)

    def __len__(self) -> int:
        return len(self.features)

    def part(self, which: slice | np.ndarray) -> Asked:
        """Return some of the rows."""
        target = None if self.target is None else self.target[which]
        return Asked(self.run, self.names[which], self.features[which], target)

    def rows(self, engine: NewtonEngine) -> Tensor:
        """Return the rows in the coordinates of an engine's model, `(M, D)`."""
        design = engine.model.design
        own = Design(self.features, self.run.probe.fit_intercept, design.dtype, design.device)
        return engine.posterior.project(own.rows(0, len(self)))

    def queries(self, engine: NewtonEngine, head: int) -> Queries:
        """Return the rows as queries to the engine of a head."""
        target = self.target if self.target is None or self.target.ndim == 1 else self.target[:, head]
        codes = None if target is None else torch.from_numpy(np.ascontiguousarray(target))
        return Queries.of(engine.model, self.rows(engine), codes)
