"""Which samples to score, where not all."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lsi.errors import InputError

_CURE = "Give a number (--subset 500), positions (--subset 0,7,12) or a range (--subset 100:200)."


def parse_subset(text: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the positions that a ``--subset`` value means.

    Args:
        text: ``500`` for that many samples drawn at random, stratified by class; ``0,7,12`` for
            positions; ``100:200`` for a range whose end is not included. Ranges and positions mix.
        labels: ``(N,)`` labels.
        seed: Seed of the draw.

    Returns:
        ``(n_scored,)`` int64 positions: sorted for a number, in the order given otherwise.

    Raises:
        InputError: If the text means no position or one outside ``0 … N−1``, or repeats one.
    """
    text = text.strip()
    if text.isdecimal():
        return stratified_subset(labels, int(text), seed)
    parts = [_positions(part.strip(), text, len(labels)) for part in text.split(",") if part.strip()]
    positions = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not len(positions):
        raise InputError(f"--subset {text!r} names no sample. {_CURE}")
    outside = positions[(positions < 0) | (positions >= len(labels))]
    if len(outside):
        raise InputError(
            f"--subset: position {outside[0]} is outside the data; positions are 0 to {len(labels) - 1}."
        )
    values, counts = np.unique(positions, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"--subset names position {values[counts > 1][0]} more than once. Name each once.")
    return positions


def stratified_subset(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` positions at random so that every class keeps its share.

    Classes get their share rounded down; the places left go to the classes with the largest
    remainders (the largest class first where remainders are equal).

    Args:
        labels: ``(N,)`` labels.
        count: Number of positions, ``1 … N``.
        seed: Seed of the draw.

    Returns:
        ``(count,)`` sorted int64 positions.

    Raises:
        InputError: If `count` is out of range.
    """
    if not 1 <= count <= len(labels):
        raise InputError(f"--subset {count}: there are {len(labels):,} samples. Ask for 1 to {len(labels)}.")
    codes, classes = pd.factorize(np.asarray(labels), use_na_sentinel=False)
    sizes = np.bincount(codes, minlength=len(classes))
    places = sizes * count // len(labels)
    remainder = sizes * count - places * len(labels)
    order = np.lexsort((-sizes, -remainder))
    places[order[: count - places.sum()]] += 1
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(codes == c))[: places[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _positions(part: str, text: str, n: int) -> np.ndarray:
    """Return the positions of one comma-separated part: ``7`` or ``100:200``."""
    start, colon, stop = part.partition(":")
    try:
        if not colon:
            return np.array([_position(start)], dtype=np.int64)
        first, last = _position(start or "0"), int(stop or n)
    except ValueError as error:
        raise InputError(f"--subset {text!r} is not understood: {part!r}. {_CURE}") from error
    if last > n or first < 0 or first > n:
        raise InputError(f"--subset: the range {part} leaves the data; positions are 0 to {n - 1}.")
    return np.arange(first, last, dtype=np.int64)


def _position(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 62:
        raise ValueError("no dataset is that long")
    return value
