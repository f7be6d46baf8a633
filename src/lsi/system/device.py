"""What differs between a processor and a GPU, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Compute capabilities whose float64 products take twice the time of float32; 32 to 64 times elsewhere.
FAST_DOUBLE = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}
WIDE = 8  # blocks of rows on a GPU, as a multiple of those that stay in a processor's cache


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute float32 products in float32, whatever the caller of the library has set.

    TF32 on GPUs and bfloat16 on processors keep three digits, which certificates do not count.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def has_fast_double(device: torch.device) -> bool:
    """Return whether float64 takes about twice the time of float32 on a device."""
    if device.type != "cuda" or torch.version.hip is not None:
        return True
    return torch.cuda.get_device_capability(device) in FAST_DOUBLE


def rows_at_a_time(rows: int, device: torch.device) -> int:
    """Return how many rows to read where a processor reads `rows`: more on a GPU, which has no such cache."""
    return rows if device.type == "cpu" else WIDE * rows


def add_rows(out: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add `values` to the rows of `out` at `index`, the same bits every time.

    On a GPU `index_add_` adds in the order in which threads come; `index_put_` sorts first.

    Shapes: out `(m, …)`, index `(n,)`, values `(n, …)`.
    """
    if out.device.type == "cpu":
        return out.index_add_(0, index, values)
    return out.index_put_((index,), values, accumulate=True)


def ready(flag: Tensor, step: int, every: int = 8) -> bool:
    """Return whether a loop may end: `flag`, on a GPU asked in some steps only, since asking waits."""
    return (flag.device.type == "cpu" or step % every == every - 1) and bool(flag)
