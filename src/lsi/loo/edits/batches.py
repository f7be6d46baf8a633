"""Which changes of the data are walked to their optima together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOST = 64  # changes walked together
SMALL_BYTES = 1 << 28  # of the matrices of rank changes that are held together


def batches(sizes: list[int], contrasts: int) -> Iterator[list[int]]:
    """Yield changes of about the same size, as many as fit together."""
    batch: list[int] = []
    held = 0
    for k in np.argsort(sizes, kind="stable").tolist():
        need = 8 * (sizes[k] * contrasts) ** 2
        if batch and (len(batch) == MOST or held + need > SMALL_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(k)
        held += need
    yield batch
