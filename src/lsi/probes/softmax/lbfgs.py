"""L-BFGS that leaves the processor to torch's matrix products."""

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
    """Minimise by SciPy's L-BFGS-B, without bounds. Shapes: start `(n,)`.

    OpenBLAS gets one thread. Its other threads would keep spinning after each short call and halve the speed
    of torch's products in the next evaluation (measured on two cores).
    """
    with _openblas().limit(limits=1):
        return scipy.optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", callback=callback, options=options
        )


@cache
def _openblas() -> ThreadpoolController:
    """Return the thread pools of NumPy's and SciPy's OpenBLAS; torch's pools are not among them."""
    return ThreadpoolController().select(internal_api="openblas")
