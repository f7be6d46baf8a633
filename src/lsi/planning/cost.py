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

DENSE_SHARE = 0.8  # of the product rate, which the dense solver reaches
NOTABLY = 1.5  # times the expected seconds, from which a second figure is worth a reader's time


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of a run.

    Attributes:
        seconds: Wall-clock time on an idle machine, without loading the data.
        bytes: Peak memory beyond the interpreter and its libraries.
        separable: Seconds that it takes if the probe separates the classes, where that is not known.
    """

    seconds: float
    bytes: int
    separable: float | None = None

    @property
    def text(self) -> str:
        """All of it in one line."""
        told = f"about {duration_text(self.seconds)} and {size_text(self.bytes)} of memory"
        if self.separable is None or self.separable < NOTABLY * self.seconds:
            return told
        return f"{told}; {duration_text(self.separable)} if the probe separates the classes"


@lru_cache(maxsize=4)
def product_rate(dtype: torch.dtype) -> float:
    """Return this machine's measured rate of matrix products in `dtype`, operations per second.

    The fastest product counts, and only time that this thread had: whatever else runs on the machine holds
    products up.
    """
    a = torch.ones((768, 768), dtype=dtype)
    a @ a
    fastest, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < 0.05:
        start = time.thread_time()
        a @ a
        fastest = min(fastest, time.thread_time() - start)
    return 2.0 * 768**3 / max(fastest, 1e-9)


def cost(
    shape: Shape,
    posterior: str,
    method: Newton | Retrain,
    solver: str,
    rate: float | None = None,
    separable: bool | None = None,
) -> Estimate:
    """Predict time and memory of a run; `rate` is that of the machine unless it is given."""
    operations, count = counted(shape, posterior, method, solver, separable)
    rate = rate or product_rate(working_dtype(shape) if solver == "dense" else torch.float32)
    # Seconds before the products begin, and the share of the product rate that a run reaches with them.
    start, share = {"dense": (0.2, DENSE_SHARE), "blocks": (1.0, 0.5)}.get(solver, (0.0, 0.5))
    worst = None
    if separable is None and solver == "dense":
        worst = start + counted(shape, posterior, method, solver, True)[0] / (share * rate)
    return Estimate(start + operations / (share * rate), count, worst)


def counted(
    shape: Shape, posterior: str, method: Newton | Retrain, solver: str, separable: bool | None = None
) -> tuple[float, int]:
    """Return operations and bytes of a run; the solver of `Retrain` is an empty name."""
    if isinstance(method, Retrain):
        return retrain_cost(shape, method)
    if solver == "blocks":
        return blocks_cost(shape, posterior, method.tol)
    return dense_cost(shape, posterior, method.tol, separable)
