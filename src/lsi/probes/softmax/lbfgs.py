"""L-BFGS for the small vectors of a fit, beside torch's large products."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import scipy.optimize
from threadpoolctl import ThreadpoolController


def lbfgs(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    options: dict[str, Any],
    callback: Callable[..., None] | None = None,
) -> scipy.optimize.OptimizeResult:
    """Minimise by SciPy's L-BFGS-B, without bounds.

    Its own vectors are updated in one thread: those of OpenBLAS spin for a while after each short call, and
    take the processor from the products of the next evaluation (half of their speed with two cores).

    Shapes: start `(n,)`.
    """
    with _openblas().limit(limits=1):
        return scipy.optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", callback=callback, options=options
        )


@cache
def _openblas() -> ThreadpoolController:
    """Return the thread pools of NumPy's and SciPy's OpenBLAS; torch has others, which stay as they are."""
    return ThreadpoolController().select(internal_api="openblas")
