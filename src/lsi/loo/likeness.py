"""How like its nearest neighbour each row is: twins are what approximations of leave-one-out miss first."""

from __future__ import annotations

import numpy as np

BLOCK = 8192  # rows read at a time
AXES = 16  # random directions that rows are compared in: lengths are right to about a quarter
LAGS = 2  # rows on each side that are looked at along each direction


def distances(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the distance from each row to the nearest other one that was found, `(N,)`.

    Rows are standardised and brought to unit length, so that two rows of a rare category are near however
    their other columns differ. Near rows are neighbours along every random direction, so only rows that are
    next to each other there are compared, which takes two passes over the data.

    Shapes: features `(N, D)`, of any type, in memory or mapped.
    """
    n, d = features.shape
    total = square = np.zeros(d)
    for start in range(0, n, BLOCK):
        x = np.asarray(features[start : start + BLOCK], dtype=np.float64)
        total, square = total + x.sum(0), square + (x**2).sum(0)
    mean = total / n
    spread = np.sqrt((square / n - mean**2).clip(0.0))
    inverse = np.divide(1.0, spread, out=np.zeros(d), where=spread > 1e-7 * np.abs(mean))
    axes = np.random.default_rng(seed).normal(size=(d, AXES)) / AXES**0.5
    seen = np.empty((n, AXES), dtype=np.float32)
    for start in range(0, n, BLOCK):
        x = (np.asarray(features[start : start + BLOCK], dtype=np.float64) - mean) * inverse
        length = np.sqrt((x**2).sum(1, keepdims=True))
        seen[start : start + BLOCK] = (x / np.where(length > 0, length, 1.0)) @ axes
    nearest = np.full(n, np.inf, dtype=np.float32)
    for axis in range(AXES):
        order = np.argsort(seen[:, axis], kind="stable")
        for lag in range(1, LAGS + 1):
            one, other = order[:-lag], order[lag:]
            apart = np.zeros(len(one), dtype=np.float32)
            for column in seen.T:  # a table of differences would be as large as what is seen
                apart += (column[one] - column[other]) ** 2
            nearest[one] = np.minimum(nearest[one], apart)
            nearest[other] = np.minimum(nearest[other], apart)
    return np.sqrt(nearest)
