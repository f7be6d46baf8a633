"""Groups around representatives, in one pass and without an N × N matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

ROWS = 1024
"""Rows that are compared with the representatives at a time."""
COLUMNS = 8192
"""Representatives that a block of rows is compared with at a time."""
_ROUNDING = 1e-5  # of float32 products: exact duplicates must reach a threshold of 1


@dataclass(frozen=True)
class Groups:
    """Groups of samples around representatives.

    Attributes:
        group: `(N,)` number of the group, the largest group 0; −1 for a sample on its own.
        representative: `(N,)` row that the sample was grouped with; a sample on its own has itself.
        similarity: `(N,)` similarity to that row; 1 for a representative.
    """

    group: np.ndarray
    representative: np.ndarray
    similarity: np.ndarray


def group_around(
    directions: Tensor, order: np.ndarray, threshold: float, *, rows: int = ROWS, columns: int = COLUMNS
) -> Groups:
    """Group samples around representatives, in one pass; `rows` and `columns` bound the blocks in memory.

    In the order given, a sample joins the most similar representative so far if their similarity reaches the
    threshold; otherwise it becomes a representative.

    Shapes: directions `(N, R)`, order `(N,)`.
    """
    count = len(directions)
    leader, similarity = np.arange(count), np.ones(count, dtype=np.float32)
    chosen = np.empty(0, dtype=np.int64)
    for start in range(0, count, rows):
        current = order[start : start + rows]
        block = directions[current]
        value, place = _most_similar(block, directions, chosen, threshold - _ROUNDING, columns)
        fresh = _settle(block, value, place, len(chosen), threshold - _ROUNDING)
        joined = np.flatnonzero(~fresh)
        # Places beyond the representatives so far are rows of this very block.
        leader[current[joined]] = np.concatenate([chosen, current])[place[joined]]
        similarity[current[joined]] = value[joined]
        chosen = np.concatenate([chosen, current[fresh]])
    return Groups(_numbered(leader), leader, similarity.clip(max=1.0))


def _most_similar(
    block: Tensor, directions: Tensor, chosen: np.ndarray, threshold: float, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity and place in `chosen` of each row's most similar representative; −1 for none."""
    value = np.full(len(block), -1.0, dtype=np.float32)
    place = np.full(len(block), -1, dtype=np.int64)
    for start in range(0, len(chosen), columns):
        found = (block @ directions[chosen[start : start + columns]].T).max(dim=1)
        best, where = found.values.numpy(), found.indices.numpy()
        better = (best >= threshold) & (best > value)
        value[better], place[better] = best[better], start + where[better]
    return value, place


def _settle(block: Tensor, value: np.ndarray, place: np.ndarray, offset: int, threshold: float) -> np.ndarray:
    """Let rows of a block join earlier rows of the same block; return which rows become representatives."""
    similar: np.ndarray = (block @ block.T).tril(-1).numpy()
    near = similar.max(axis=1) >= threshold
    fresh = np.zeros(len(value), dtype=bool)
    for row in range(len(value)):
        if near[row]:
            best = int(np.argmax(np.where(fresh[:row], similar[row, :row], -1.0)))
            if fresh[best] and similar[row, best] >= max(threshold, value[row]):
                value[row], place[row] = similar[row, best], offset + best
        fresh[row] = place[row] < 0
    return fresh


def _numbered(leader: np.ndarray) -> np.ndarray:
    """Return group numbers, 0 for the largest group; −1 for a row that is its own and only member."""
    size = np.bincount(leader, minlength=len(leader))
    leaders = np.flatnonzero(size > 1)
    number = np.full(len(leader), -1, dtype=np.int64)
    number[leaders[np.argsort(-size[leaders], kind="stable")]] = np.arange(len(leaders))
    return number[leader]
