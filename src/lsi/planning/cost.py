"""Predicted time and memory of a run: counted operations and bytes, at the speed of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from lsi.loo.newton.cost import blocks_cost, dense_cost, working_dtype
from lsi.loo.retrain.cost import retrain_cost
from lsi.methods import Newton, Retrain
from lsi.system.text import duration_text, size_text
from lsi.validation.problem import Shape


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of a run.

    Attributes:
        seconds: Wall-clock time, without loading the data.
        bytes: Peak memory beyond the interpreter and its libraries.
    """

    seconds: float
    bytes: int

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"about {duration_text(self.seconds)} and {size_text(self.bytes)} of memory"


@lru_cache(maxsize=4)
def product_rate(dtype: torch.dtype) -> float:
    """Return this machine's measured rate of matrix products in `dtype`, operations per second."""
    a = torch.ones((768, 768), dtype=dtype)
    a @ a
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < 0.03:
        a @ a
        rounds += 1
    return 2.0 * 768**3 * rounds / (time.perf_counter() - began)


def cost(
    shape: Shape, posterior: str, method: Newton | Retrain, solver: str, rate: float | None = None
) -> Estimate:
    """Predict time and memory of a run; `rate` is that of the machine unless it is given."""
    operations, count = counted(shape, posterior, method, solver)
    rate = rate or product_rate(working_dtype(shape) if solver == "dense" else torch.float32)
    # Seconds before the products begin, and the share of the product rate that a run reaches with them.
    start, share = {"dense": (0.3, 0.6), "blocks": (1.0, 0.5)}.get(solver, (0.0, 0.5))
    return Estimate(start + operations / (share * rate), count)


def counted(shape: Shape, posterior: str, method: Newton | Retrain, solver: str) -> tuple[float, int]:
    """Return operations and bytes of a run; the solver of `Retrain` is an empty name."""
    if isinstance(method, Retrain):
        return retrain_cost(shape, method)
    return (blocks_cost if solver == "blocks" else dense_cost)(shape, posterior, method.tol)
