"""Leave-one-out optima by brute force, which audit both `Newton` engines.

Each optimum is walked to from the full-data weights, in double precision, until the gradient of the
leave-one-out objective itself vanishes. The engines' own solver only preconditions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lsi.execution.halving import halving
from lsi.execution.work import Arrays
from lsi.loo.newton.refine import Refiner

AUDIT_TOLERANCE = 1e-7  # far below any tolerance that users ask for
REFERENCE = 1e-5  # certificate above which an optimum is no reference: rounding kept the walk from arriving


def exact_optima(refiner: Refiner, solver: Any, positions: np.ndarray) -> Arrays:
    """Return LSI at the brute-force optima as `exact`. Shapes: positions `(n,)`."""
    device, double = solver.model.design.device, refiner.in_double(AUDIT_TOLERANCE)

    def solve(part: np.ndarray) -> np.ndarray:
        first = solver.first_order(torch.from_numpy(part).to(device))
        found = double.refine(first, torch.zeros_like(first.delta))
        # An optimum that was not reached is no reference: the audit then says that it has none.
        reached = found.certificate <= REFERENCE
        return np.asarray(torch.where(reached, found.terms.total, torch.nan).cpu().numpy())

    return {"exact": np.concatenate(list(halving(positions, len(positions), solve)))}
