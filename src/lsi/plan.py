"""What a run will cost, from counted operations and a quick calibration of the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from lsi.loo.audit import default_count
from lsi.loo.newton.settings import Newton
from lsi.loo.retrain import Retrain

DOUBLE_LIMIT = 2e11  # N·K'² below which everything runs in float64: a few seconds at most


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of a run.

    Attributes:
        seconds: Wall-clock time, without loading the data.
        bytes: Peak memory beyond the interpreter and its libraries.
        text: Both in one line.
    """

    seconds: float
    bytes: int
    text: str


def working_dtype(n_samples: int, n_features: int, n_classes: int) -> torch.dtype:
    """Return the type of the large products: float64 while the whole problem is small.

    Args:
        n_samples: N.
        n_features: D, with the intercept.
        n_classes: C.
    """
    parameters = min(n_samples, n_features) * (n_classes - 1)
    return torch.float64 if n_samples * parameters**2 <= DOUBLE_LIMIT else torch.float32


@lru_cache(maxsize=4)
def product_rate(dtype: torch.dtype) -> float:
    """Return measured matrix-product operations a second of this machine, in `dtype`."""
    a = torch.ones((768, 768), dtype=dtype)
    a @ a
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < 0.03:
        a @ a
        rounds += 1
    return 2.0 * 768**3 * rounds / (time.perf_counter() - began)


def estimate(
    n_samples: int,
    n_features: int,
    n_classes: int,
    posterior: str,
    method: Newton | Retrain,
    n_scored: int | None = None,
) -> Estimate:
    """Predict time and memory of a run.

    Args:
        n_samples: N.
        n_features: D, without the intercept.
        n_classes: C.
        posterior: Name of the structure.
        method: The engine's settings.
        n_scored: Samples to score; None: all.

    Returns:
        The prediction.
    """
    d = n_features + 1
    n_scored = n_samples if n_scored is None else n_scored
    dtype = working_dtype(n_samples, d, n_classes)
    rate = product_rate(dtype)
    if isinstance(method, Retrain):
        seconds, memory = _retrain_cost(n_samples, d, n_classes, method, n_scored)
    else:
        seconds, memory = _newton_cost(
            n_samples, d, n_classes, posterior, method, n_scored, rate, dtype.itemsize
        )
    return Estimate(seconds, memory, f"about {_duration(seconds)} and {_size(memory)} of memory")


def _retrain_cost(n: int, d: int, c: int, method: Retrain, n_scored: int) -> tuple[float, int]:
    # Half of the product rate: the softmax in between takes as long as the products.
    work = 4.0 * n * d * c * method.epochs * method.n_seeds * (n_scored + 1)
    heads = min(256, n_scored)
    return work / (0.5 * product_rate(torch.float32)), 4 * n * d * 2 + 4 * heads * c * (4 * d + 2 * n)


def _newton_cost(
    n: int, d: int, c: int, posterior: str, method: Newton, n_scored: int, rate: float, item: int
) -> tuple[float, int]:
    k = min(n, d) * (c - 1)
    fit = 6 * (n * k**2 / 2 + k**3 / 3) if k < 1200 else n * k**2 + k**3 + 300 * 4 * n * k
    leave = n_scored * 2.0 * k**2 * (2.0 if posterior == "full" else 1.0)
    sweeps = 0.0 if method.tol is None else 3.0 * n_scored * 6.0 * n * k
    if posterior == "full" and method.tol is not None:
        sweeps += n_scored * (n * k**2 + 3.0 * k**3)
    audit = default_count(k, posterior) * 30 * 4.0 * n * k
    memory = n * d * item + 3 * 8 * k**2 + item * k**2 + (256 << 20)
    return 0.3 + (fit + leave + sweeps + audit) / (0.5 * rate), int(memory)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB" if count < (1 << 30) else f"{count / (1 << 30):.1f} GiB"
