"""Blocks that are halved where memory runs out, above all on a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from lsi.errors import InputError
from lsi.system.machine import ran_out

Result = TypeVar("Result")


def halving(order: np.ndarray, size: int, do: Callable[[np.ndarray], Result]) -> Iterator[Result]:
    """Yield what `do` returns for consecutive blocks of `order`, and halve blocks that do not fit.

    A smaller size is kept for the rest of `order` only: the result of a task may depend on the task and the
    machine, but not on earlier tasks.

    Shapes: order `(n,)`.
    """
    start = 0
    while start < len(order):
        part = order[start : start + size]
        result: Result | None = None
        try:
            result = do(part)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            if len(part) == 1:
                raise InputError(
                    "the device has no memory left for even a single sample. Use fewer features, "
                    "device='cpu', or a device with more memory."
                ) from error
        if result is None:  # not in the handler, where the error keeps alive what `do` has allocated
            size = max(1, len(part) // 2)
            _release()
            continue
        yield result
        start += len(part)


def _release() -> None:
    """Return the memory of a failed attempt to the device."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
