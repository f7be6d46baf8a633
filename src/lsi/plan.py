"""What a run will cost, from counted operations and a quick calibration of the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from lsi.errors import InputError
from lsi.loo.audit import default_count
from lsi.loo.newton import block_engine
from lsi.loo.newton.engine import PILOTS, REBUILD_LIMIT, samples_rows
from lsi.loo.newton.sampled import SAMPLED_ROWS
from lsi.loo.newton.settings import Newton
from lsi.loo.retrain import Retrain
from lsi.probes.fit import DENSE_START
from lsi.probes.fit_blocks import WARM_WORK

TYPICAL_ENTRIES = 8  # classes that have a say in a row of a trained probe of many classes
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

    @classmethod
    def of(cls, seconds: float, count: int) -> Estimate:
        """Return the prediction with its line."""
        return cls(seconds, count, f"about {_duration(seconds)} and {_size(count)} of memory")


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
    elif choose_solver(n_samples, d, n_classes, posterior, method) == "blocks":
        rate = product_rate(torch.float32)
        seconds, memory = _blocks_cost(n_samples, d, n_classes, posterior, method, n_scored, rate)
    else:
        seconds, memory = _newton_cost(
            n_samples, d, n_classes, posterior, method, n_scored, rate, dtype.itemsize
        )
    return Estimate.of(seconds, memory)


def _retrain_cost(n: int, d: int, c: int, method: Retrain, n_scored: int) -> tuple[float, int]:
    # Half of the product rate: the softmax in between takes as long as the products.
    work = 4.0 * n * d * c * method.epochs * method.n_seeds * (n_scored + 1)
    heads = min(256, n_scored)
    return work / (0.5 * product_rate(torch.float32)), 4 * n * d * 2 + 4 * heads * c * (4 * d + 2 * n)


def _newton_cost(
    n: int, d: int, c: int, posterior: str, method: Newton, n_scored: int, rate: float, item: int
) -> tuple[float, int]:
    k = min(n, d) * (c - 1)
    full, rebuilt = posterior == "full", n * k**2 + 3.0 * k**3
    fit = 6 * (n * k**2 / 2 + k**3 / 3) if k < DENSE_START else 0.63 * n * k**2 + k**3 + 120 * 4 * n * k
    leave = n_scored * 2.0 * k**2 * (1.6 if full else 1.0)
    swept = 3.0 * n_scored
    if method.tol is None:
        swept = 0.0
    elif samples_rows(n, k, method.tol):
        swept = PILOTS + (0.08 * n_scored if not full or k <= REBUILD_LIMIT else 0.0)
        leave += n_scored * (2.0 * k**2 + 6.0 * SAMPLED_ROWS * k)
    # A sweep spends about as long between its products as in them.
    refine = swept * (12.0 * n * k + (rebuilt if full else 0.0))
    audit = default_count(k, posterior) * (60 * 4.0 * n * k + (rebuilt if full else 0.0))
    memory = n * d * item + (4 if full else 2) * 8 * k**2 + (2 if full else 1) * item * k**2 + (320 << 20)
    return 0.3 + (fit + leave + refine + audit) / (0.6 * rate), int(memory)


def available_memory() -> int | None:
    """Return how many bytes the machine can still give, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _blocks_cost(
    n: int, d: int, c: int, posterior: str, method: Newton, n_scored: int, rate: float
) -> tuple[float, int]:
    k, product = d * (c - 1), 4.0 * n * d * (c - 1)
    entries = min(c, TYPICAL_ENTRIES) * n
    blocks = 2.0 * entries * d**2
    warm = WARM_WORK / product
    # A product with the sparse Hessian is bound by gathering rows, about twelve operations a number.
    fit = (100 if warm >= 100 else 20) * product + 10 * (3 * product + 40 * 12.0 * entries * d) + 3 * blocks
    leave = n_scored * (2.0 * min(c, TYPICAL_ENTRIES) * d**2 + 6.0 * d * c)
    sample = block_engine.PASSES * product
    refined = 0.0
    if method.tol is not None:
        refined = block_engine.PILOTS * sample + min(n_scored * sample, block_engine.REFINE_WORK)
    audit = default_count(k, posterior) * 3 * sample
    resident = 4 * n * d + 20 * entries
    working = (3 << 30) * min(1.0, c / 1000)
    modes = 16 * 4 * c * c if posterior == "kron" else 0
    memory = resident + 4 * c * d * d + 60 * 8 * k + working + modes + (512 << 20)
    return 1.0 + (fit + leave + refined + audit) / (0.5 * rate), int(memory)


def choose_solver(n_samples: int, n_features: int, n_classes: int, posterior: str, method: Newton) -> str:
    """Return the solver of a run: the one asked for, else dense where its matrices fit in memory.

    Args:
        n_samples: N.
        n_features: D, with the intercept.
        n_classes: C.
        posterior: Name of the structure.
        method: The engine's settings.
    """
    if method.solver != "auto":
        return method.solver
    have = available_memory()
    item = working_dtype(n_samples, n_features, n_classes).itemsize
    need = _newton_cost(n_samples, n_features, n_classes, posterior, method, 0, 1.0, item)[1]
    return "dense" if have is None or need <= have or posterior == "full" else "blocks"


def refuse_oversize(
    n_samples: int,
    n_features: int,
    n_classes: int,
    posterior: str,
    method: Newton | Retrain,
    device: torch.device,
) -> None:
    """Refuse, before any work, a run that cannot fit in memory, and name what would.

    Args:
        n_samples: N.
        n_features: D, without the intercept.
        n_classes: C.
        posterior: Name of the structure.
        method: The engine's settings.
        device: Where it would run.

    Raises:
        InputError: If the prediction exceeds what is available, or the posterior has no such solver.
    """
    if isinstance(method, Retrain):
        return
    if method.solver == "blocks" and posterior == "full":
        raise InputError(
            "The full posterior needs the whole Hessian, which solver='blocks' never forms. "
            "Use posterior='kron' or 'diag', or solver='dense'."
        )
    d = n_features + 1
    have = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if choose_solver(n_samples, d, n_classes, posterior, method) == "blocks":
        need = _blocks_cost(n_samples, d, n_classes, posterior, method, 0, 1.0)[1]
        cure = "score fewer classes at a time"
    else:
        item = working_dtype(n_samples, d, n_classes).itemsize
        need = _newton_cost(n_samples, d, n_classes, posterior, method, 0, 1.0, item)[1]
        cure = "use posterior='kron' or 'diag' with solver='auto'"
    if have is None or need <= have:
        return
    fitting = int((have / (8.0 * 3.5)) ** 0.5 / max(1, n_classes - 1))
    raise InputError(
        f"{n_features} features × {n_classes} classes need a curvature matrix of about {_size(need)}, but "
        f"{_size(have)} are available. Reduce the features to about {max(1, fitting)} (for example with "
        f"sklearn.decomposition.PCA), {cure}, or use method='retrain' with a subset."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB" if count < (1 << 30) else f"{count / (1 << 30):.1f} GiB"
