"""Leave-one-out optima by brute force, which audit both `Newton` engines.

Each optimum is iterated until the gradient of the leave-one-out objective itself vanishes. The engines' own
solver only preconditions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lsi.execution.halving import halving
from lsi.execution.work import Arrays

AUDIT_TOLERANCE = 1e-15  # squared relative decrement: values good to 1e-7, far below any tolerance
REACHED = 1e-3  # error of a solver's own estimate above which its optimum is no reference


def exact_optima(scorer: Any, solver: Any, positions: np.ndarray) -> Arrays:
    """Return LSI at the brute-force optima as `exact`. Shapes: positions `(n,)`."""
    device = solver.model.design.device

    def solve(part: np.ndarray) -> np.ndarray:
        first = solver.first_order(torch.from_numpy(part).to(device))
        _, error, terms = scorer.score(first, first.delta)
        # An optimum that was not reached is no reference: the audit then says that it has none.
        return np.asarray(torch.where(error <= REACHED, terms.total, torch.nan).cpu().numpy())

    return {"exact": np.concatenate(list(halving(positions, len(positions), solve)))}
