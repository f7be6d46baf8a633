"""Groups around representatives, in one pass and without an N × N matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

_ROWS = 1024  # rows compared with the representatives at a time
_COLUMNS = 8192
_ROUNDING = 1e-5  # of float32 products: exact duplicates reach a threshold of 1


@dataclass(frozen=True)
class Groups:
    """Groups of samples around representatives.

    Attributes:
        group: `(N,)` number of the group, the largest group 0; −1 for a sample on its own.
        representative: `(N,)` row that the sample was grouped with; a sample on its own has itself.
        similarity: `(N,)` similarity to that row; 1 for the representative itself.
    """

    group: np.ndarray
    representative: np.ndarray
    similarity: np.ndarray


def group_around(directions: Tensor, order: np.ndarray, threshold: float) -> Groups:
    """Group rows around representatives, in one pass.

    In the order given, a row joins the most similar representative so far if that is similar enough, else
    it becomes one.

    Shapes: directions `(N, R)`, order `(N,)`.
    """
    count = len(directions)
    leader, similarity = np.arange(count), np.ones(count, dtype=np.float32)
    chosen = np.empty(0, dtype=np.int64)
    for start in range(0, count, _ROWS):
        rows = order[start : start + _ROWS]
        block = directions[rows]
        value, place = _most_similar(block, directions, chosen, threshold - _ROUNDING)
        fresh = _settle(block, value, place, len(chosen), threshold - _ROUNDING)
        joined = np.flatnonzero(~fresh)
        # Places beyond the representatives so far are rows of this very block.
        leader[rows[joined]] = np.concatenate([chosen, rows])[place[joined]]
        similarity[rows[joined]] = value[joined]
        chosen = np.concatenate([chosen, rows[fresh]])
    return Groups(_numbered(leader), leader, similarity.clip(max=1.0))


def _most_similar(
    block: Tensor, directions: Tensor, chosen: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return similarity and place in `chosen` of each row's most similar representative; −1 for none."""
    value = np.full(len(block), -1.0, dtype=np.float32)
    place = np.full(len(block), -1, dtype=np.int64)
    for start in range(0, len(chosen), _COLUMNS):
        found = (block @ directions[chosen[start : start + _COLUMNS]].T).max(dim=1)
        best, where = found.values.numpy(), found.indices.numpy()
        better = (best >= threshold) & (best > value)
        value[better], place[better] = best[better], start + where[better]
    return value, place


def _settle(block: Tensor, value: np.ndarray, place: np.ndarray, offset: int, threshold: float) -> np.ndarray:
    """Let rows of a block join earlier rows of it, and return which rows become representatives."""
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
    """Return group numbers, the largest group first, −1 for a row that leads nobody and follows nobody."""
    size = np.bincount(leader, minlength=len(leader))
    leaders = np.flatnonzero(size > 1)
    number = np.full(len(leader), -1, dtype=np.int64)
    number[leaders[np.argsort(-size[leaders], kind="stable")]] = np.arange(len(leaders))
    return number[leader]
