"""Blocks that shrink where there is no room for them, on a GPU above all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from lsi.errors import InputError

Result = TypeVar("Result")
# What is raised where memory runs out differs by device; on the processor it is a plain RuntimeError.
_SAID = ("out of memory", "can't allocate memory", "not enough memory")


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that there was no memory left."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def halving(order: np.ndarray, size: int, do: Callable[[np.ndarray], Result]) -> Iterator[Result]:
    """Yield what `do` returns for one block of `order` after another, and halve blocks that do not fit.

    The size that fitted is kept for the rest of `order` only: what a task returns may depend on the task
    and the machine, not on the tasks before it.

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
        if result is None:  # after the handler, which kept everything alive that had been allocated
            size = max(1, len(part) // 2)
            _release()
            continue
        yield result
        start += len(part)


def _release() -> None:
    """Give back what a failed attempt has left behind."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
