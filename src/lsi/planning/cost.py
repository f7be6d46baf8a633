"""Counted operations and bytes of a run, and what this machine makes of them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from lsi.errors import InputError
from lsi.loo.audit import default_count
from lsi.loo.newton import block_engine
from lsi.loo.newton.dense import BLOCK_BYTES, block_of
from lsi.loo.newton.engine import REBUILD_LIMIT, samples_rows
from lsi.loo.newton.sampled import LEVELS
from lsi.loo.retrain.engine import TENSORS
from lsi.loo.retrain.strides.choice import PILOTS as PILOT_HEADS
from lsi.loo.retrain.strides.choice import grids_to_try, tangent_bytes, tangents_pay
from lsi.methods import Newton, Retrain
from lsi.probes.softmax.fit import DENSE_START
from lsi.probes.softmax.model import ROWS

TYPICAL_ENTRIES = 8  # classes that have a say in a row of a trained probe of many classes
DOUBLE_LIMIT = 2e11  # N·K'² below which everything runs in float64: a few seconds at most
# Tolerance from which most heads of a large dataset follow the curvature, and the share that does not.
TANGENT_TOL, LOOKS = 5e-3, 0.03


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

    @classmethod
    def of(cls, seconds: float, count: int) -> Estimate:
        """Return the prediction with its line."""
        return cls(seconds, count, f"about {duration(seconds)} and {size(count)} of memory")


def working_dtype(n_samples: int, n_features: int, n_classes: int) -> torch.dtype:
    """Return the type of the large products: float64 while the whole problem is small."""
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


@dataclass(frozen=True)
class Shape:
    """Size of a run.

    Attributes:
        n_samples: N.
        n_features: D, with the intercept.
        n_classes: C.
        n_scored: Samples to score.
    """

    n_samples: int
    n_features: int
    n_classes: int
    n_scored: int

    @property
    def dtype(self) -> torch.dtype:
        """Type of the large products of the dense solver."""
        return working_dtype(self.n_samples, self.n_features, self.n_classes)


def cost(
    shape: Shape,
    posterior: str,
    method: Newton | Retrain,
    solver: str,
    rate: float | None,
    memory: int | None = None,
) -> Estimate:
    """Predict time and memory of a run."""
    if isinstance(method, Retrain):
        return Estimate.of(*_retrain_cost(shape, method, rate or product_rate(torch.float32), memory))
    if solver == "blocks":
        return Estimate.of(*_blocks_cost(shape, posterior, method, rate or product_rate(torch.float32)))
    return Estimate.of(*_dense_cost(shape, posterior, method, rate or product_rate(shape.dtype)))


def _retrain_cost(shape: Shape, method: Retrain, rate: float, memory: int | None) -> tuple[float, int]:
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    grids = grids_to_try(method, n, d, c, n_scored) if method.is_plain else []
    every, looks, tangents = PILOT_HEADS + 1 if grids else n_scored + 1, 0, 0
    # Half of the product rate: the softmax in between takes as long as the products.
    seconds, heads = 0.0, min(256, n_scored)
    if grids:
        nodes, k, looks = len(grids[0]), min(n, d) * (c - 1), n_scored
        if (method.tol or 0.0) >= TANGENT_TOL and tangents_pay(n, d, c, n_scored, nodes, memory):
            tangents, looks = tangent_bytes(n, d, c, nodes), int(LOOKS * n_scored)
            follow = nodes * (0.6 * n * k**2 + 3.0 * k**2 * n_scored) + 8.0 * n * k * n_scored
            seconds = follow * method.n_seeds / (0.6 * rate)
        looks *= nodes
    seconds += 4.0 * n * d * c * (every * method.epochs + looks) * method.n_seeds / (0.5 * rate)
    tensors = TENSORS * min(n, d) if grids else 4 * d
    resident = 4 * n * d * (3 if grids else 2) + tangents
    return seconds, resident + 4 * heads * c * (tensors + 2 * n)


def _dense_cost(shape: Shape, posterior: str, method: Newton, rate: float) -> tuple[float, int]:
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    item = shape.dtype.itemsize
    k = min(n, d) * (c - 1)
    full, rebuilt = posterior == "full", n * k**2 + 3.0 * k**3
    fit = 6 * (n * k**2 / 2 + k**3 / 3) if k < DENSE_START else 0.63 * n * k**2 + k**3 + 120 * 4 * n * k
    block, holds_reach = block_of(c - 1, min(n, d), shape.dtype, BLOCK_BYTES)
    # Without it: the leverages' products once more, and some ten products and inverses of C × C in double.
    step = 2.0 * k**2 if holds_reach else 3.0 * k**2 + 20.0 * c**3
    leave = n_scored * (step + (1.2 * k**2 if full else 0.0))
    swept = 3.0 * n_scored
    if method.tol is None:
        swept = 0.0
    elif samples_rows(n, k, method.tol):
        swept = 0.08 * n_scored if not full or k <= REBUILD_LIMIT else 0.0
        leave += n_scored * (2.0 * k**2 + 8.0 * LEVELS[0] * k)
    # A sweep spends about as long between its products as in them.
    refine = swept * (12.0 * n * k + (rebuilt if full else 0.0))
    audit = default_count(k, posterior) * (60 * 4.0 * n * k + (rebuilt if full else 0.0))
    # Blocks of first-order steps, the rows of a Hessian's panels, and what the libraries take for themselves.
    tensors = 3 * k * (c - 1) * item if holds_reach else 3 * k * item + 6 * 8 * c**2
    working = min(block, n) * tensors + 2 * min(n, ROWS) * k * item + (32 << 20)
    memory = 2 * n * d * item + (7 if full else 2) * 8 * k**2 + (2 if full else 1) * item * k**2 + working
    return 0.3 + (fit + leave + refine + audit) / (0.6 * rate), int(memory)


def _blocks_cost(shape: Shape, posterior: str, method: Newton, rate: float) -> tuple[float, int]:
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    k, product = d * (c - 1), 4.0 * n * d * (c - 1)
    entries = min(c, TYPICAL_ENTRIES) * n
    blocks = 2.0 * entries * d**2
    # Some 30 evaluations of descent; then two Newton steps, ten products each, which take the logits twice.
    fit = 30 * product + 2 * (10 * 1.5 + 2) * product + 2 * blocks
    leave = n_scored * (2.0 * min(c, TYPICAL_ENTRIES) * d**2 + 6.0 * d * c)
    sample = block_engine.PASSES * product + 8.0 * block_engine.PRODUCTS * entries * d
    refined = 0.0
    if method.tol is not None:
        refined = block_engine.PILOTS * sample + min(n_scored * sample, block_engine.REFINE_WORK)
    audit = default_count(k, posterior) * 3 * sample
    resident = 4 * n * d + 20 * entries
    working = (3 << 30) * min(1.0, c / 1000)
    modes = 16 * 4 * c * c if posterior == "kron" else 0
    memory = resident + 4 * c * d * d + 60 * 8 * k + working + modes + (512 << 20)
    return 1.0 + (fit + leave + refined + audit) / (0.5 * rate), int(memory)


_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(text: str | int | None) -> int | None:
    """Return a number of bytes, such as that of ``"4GiB"``.

    Examples:
        >>> parse_size("1.5 GiB")
        1610612736
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    count = 0 if found is None else int(float(found[1]) * (1 << _UNITS[found[2].upper()]))
    if count <= 0:
        raise InputError(f"memory must be a size such as '4GiB' or a number of bytes, got {text!r}.")
    return count


def duration(seconds: float) -> str:
    """Return seconds as short text."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def size(count: int) -> str:
    """Return bytes as short text."""
    return f"{count / (1 << 20):.0f} MiB" if count < (1 << 30) else f"{count / (1 << 30):.1f} GiB"
