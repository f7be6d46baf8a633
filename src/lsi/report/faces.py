"""Which samples get a face (a picture, a text or a feature profile), so that the page stays small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lsi.report.cards import CardMaker
from lsi.report.encode import script_json

MOST_FACES = 2000
"""Most samples with a face."""
FACE_BYTES = 3_400_000
"""Most characters that all faces take in the page."""
DATA_BYTES = 7_000_000
"""Most characters that rows and faces take together; the rest of the page is much smaller."""
_LEAST_BYTES = 400_000
_ENDS, _SUSPECTS, _A_CLASS, _GROUPED = 60, 160, 4, 300
_CLASSED, _A_GROUP = 320, 6


def choose_faces(
    lsi: np.ndarray, codes: np.ndarray | None, suspects: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    """Order rows by how soon a reader will want to see them.

    Both ends of the distribution and the worst suspects come first, then the highest of each class and the
    largest redundancy groups. The whole distribution follows, in an order that covers it evenly wherever the
    list is cut.

    Shapes: lsi `(n,)`, codes `(n,)`, groups `(n,)`.
    """
    order = np.argsort(-lsi, kind="stable")
    wanted = [order[:_ENDS], order[::-1][:_ENDS], suspects[:_SUSPECTS]]
    if codes is not None:
        wanted.append(_first_of_each(codes[order], _A_CLASS, order)[:_CLASSED])
    if groups is not None:
        wanted.append(_largest_groups(groups[order], order)[:_GROUPED])
    wanted.append(order[_evenly(len(order))])
    rows = np.concatenate([np.asarray(part, dtype=np.int64) for part in wanted])
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)][:MOST_FACES]


def face_budget(rest: int, most: int = FACE_BYTES) -> int:
    """Return how many characters faces may take where the rest of the data takes `rest`."""
    return min(most, max(_LEAST_BYTES, DATA_BYTES - rest))


def make_faces(make: CardMaker, rows: Iterable[int], budget: int) -> tuple[list[int], list[dict[str, Any]]]:
    """Make faces in this order until the next one would exceed the budget; return their rows and faces."""
    if make.kind == "none":
        return [], []
    done, faces, size = [], [], 0
    for row, face in _each(make, rows):
        size += len(script_json(face))
        if size > budget:
            break
        done.append(row)
        faces.append(face)
    return done, faces


def _each(make: CardMaker, rows: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in rows:
        yield int(row), make.face(int(row))


def _first_of_each(codes: np.ndarray, k: int, order: np.ndarray) -> np.ndarray:
    """Return the first `k` rows of each class: the first of every class, then the second of every one."""
    place = np.zeros(len(codes), dtype=np.int64)
    by_class = np.argsort(codes, kind="stable")
    _, starts, sizes = np.unique(codes[by_class], return_index=True, return_counts=True)
    place[by_class] = np.arange(len(codes)) - np.repeat(starts, sizes)
    chosen = np.flatnonzero(place < k)
    return order[chosen[np.argsort(place[chosen], kind="stable")]]


def _largest_groups(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the first rows of each group, the largest group first, as the page lists them."""
    rows = np.flatnonzero(groups >= 0)
    names, inverse, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    turn = rows[np.lexsort((names[inverse], -sizes[inverse]))]
    _, starts = np.unique(groups[turn], return_index=True)
    first = np.zeros(len(turn), dtype=np.int64)
    first[starts] = starts
    place = np.arange(len(turn)) - np.maximum.accumulate(first)
    return order[turn[place < _A_GROUP]]


def _evenly(n: int) -> np.ndarray:
    """Return ``0 … n−1`` in van der Corput's order (base 2): any first part of it is spread evenly."""
    bits = max(1, int(n - 1).bit_length())
    index, turned = np.arange(2**bits), np.zeros(2**bits, dtype=np.int64)
    for bit in range(bits):
        turned |= ((index >> bit) & 1) << (bits - 1 - bit)
    return turned[turned < n]
