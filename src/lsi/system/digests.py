"""Digests of arrays, by which data are recognised."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def digest_values(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's values."""
    digest = hashlib.sha256(str((values.shape, values.dtype.str)).encode())
    if values.dtype == object:
        digest.update("\x00".join(map(repr, values.tolist())).encode("utf-8", "surrogatepass"))
    else:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def add_matrix(digest: Any, matrix: np.ndarray) -> None:
    """Add shape, type and values of a matrix to a digest, block by block as it may lie in a file."""
    digest.update(str((matrix.shape, matrix.dtype.str)).encode())
    for start in range(0, len(matrix), 8192):
        digest.update(np.ascontiguousarray(matrix[start : start + 8192]).tobytes())
