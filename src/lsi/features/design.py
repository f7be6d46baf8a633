"""The design matrix: features with an intercept column, read in blocks of rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lsi.system.device import rows_at_a_time

LOADED = 8192
"""Rows that are converted at a time."""
HELD = 1 << 24
"""Bytes of a block of rows that are read from a file or converted: enough for matrix products."""


class Design:
    """An `(N, D)` design matrix whose rows are returned as tensors.

    Features in memory are kept as one tensor. A memory-mapped array is read block by block, so that a
    dataset larger than memory can be streamed.

    Args:
        features: `(N, D₀)` finite array without an intercept column.
        fit_intercept: Whether a column of ones is appended.
        dtype: Type of the returned tensors.
        device: Device of the returned tensors.
        basis: `(D, R)`; rows are returned in its coordinates. None: as they are.
    """

    def __init__(
        self,
        features: np.ndarray | Tensor,
        fit_intercept: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        basis: Tensor | None = None,
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self.fit_intercept = fit_intercept
        self._source: np.ndarray | Tensor = features
        self.n_samples = int(features.shape[0])
        self.n_features = int(features.shape[1]) + int(fit_intercept)
        self._basis: Tensor | None = None
        if not isinstance(features, np.memmap):
            self._source = self._load(features)
            self.fit_intercept = False
        if basis is not None:
            self._basis, self.n_features = basis.to(self.dtype), int(basis.shape[1])

    def _load(self, rows: np.ndarray | Tensor) -> Tensor:
        n, d = int(rows.shape[0]), int(rows.shape[1])
        out = torch.empty((n, d + int(self.fit_intercept)), dtype=self.dtype, device=self.device)
        for start in range(0, n, LOADED):  # a second copy of all rows may not fit in memory
            part = rows[start : start + LOADED]
            tensor = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part, order="C"))
            out[start : start + LOADED, :d].copy_(tensor, non_blocking=True)
        if self.fit_intercept:
            out[:, -1] = 1.0
        return out if self._basis is None else out @ self._basis

    @property
    def resident(self) -> bool:
        """Whether the whole matrix is held as one tensor."""
        return isinstance(self._source, Tensor)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows `start … stop − 1` as a `(stop − start, D)` tensor."""
        block = self._source[start:stop]
        return block.to(self.dtype) if isinstance(block, Tensor) else self._load(block)

    def take(self, index: Tensor) -> Tensor:
        """Return the rows at the positions `index`, in their order."""
        if isinstance(self._source, Tensor):
            return self._source.index_select(0, index.to(self.device)).to(self.dtype)
        return self._load(self._source[index.cpu().numpy()])

    def blocks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield `(slice, rows)` over the whole matrix, `size` rows at a time, or as many as `HELD` allows."""
        size = rows_at_a_time(size, self.device)
        if not isinstance(self._source, Tensor) or self._source.dtype != self.dtype:
            held = HELD // (self.n_features * self.dtype.itemsize)
            size = min(size, max(64, rows_at_a_time(held, self.device)))
        parts = [slice(start, min(start + size, self.n_samples)) for start in range(0, self.n_samples, size)]
        if isinstance(self._source, Tensor) or self.device.type == "cpu":
            for part in parts:
                yield part, self.rows(part.start, part.stop)
            return
        # While a GPU computes with one block, the next is read into memory that it can copy from by itself.
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._staged, part) for part in parts[:1]]
            for place, part in enumerate(parts):
                block = coming.pop().result()
                coming += [reader.submit(self._staged, after) for after in parts[place + 1 : place + 2]]
                yield part, self._load(block)

    def _staged(self, part: slice) -> Tensor:
        """Return rows of a file in page-locked memory."""
        return torch.from_numpy(np.array(self._source[part], order="C")).pin_memory()

    def rotated(self, basis: Tensor) -> Design:
        """Return the design in the coordinates `X @ basis`, `basis` of shape `(D, R)`.

        Rows of a file are rotated when they are read.
        """
        if not self.resident:
            whole = basis if self._basis is None else self._basis.to(basis) @ basis
            return Design(self._source, self.fit_intercept, self.dtype, self.device, whole)
        out = torch.empty((self.n_samples, basis.shape[1]), dtype=self.dtype, device=self.device)
        basis = basis.to(self.dtype)
        for rows, x in self.blocks(8192):
            out[rows] = x @ basis
        return Design(out, dtype=self.dtype, device=self.device)

    def astype(self, dtype: torch.dtype) -> Design:
        """Return the same design in another floating-point type.

        Rows are converted when they are read: a second copy of all features might not fit in memory.
        """
        if dtype == self.dtype:
            return self
        out = copy.copy(self)
        out.dtype, out._basis = dtype, None if self._basis is None else self._basis.to(dtype)
        return out


def row_space(design: Design) -> Tensor:
    """Return an orthonormal basis `(D, R)` of a space that holds every row of `design`, R ≤ min(N, D).

    A linear probe trained with weight decay never leaves the span of its samples. For N < D everything
    can therefore be computed in R coordinates without loss.
    """
    x = design.rows(0, design.n_samples).to(torch.float64)
    q, _ = torch.linalg.qr(x.T, mode="reduced")
    return q
