"""Which samples are used (those with a label, of some classes, the first ones), and which are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lsi.data.samples import Samples
from lsi.errors import InputError, nearest

_CURE = "Give a number (--subset 500), positions (--subset 0,7,12) or a range (--subset 100:200)."


def drop_unlabelled(samples: Samples, allowed: bool) -> Samples:
    """Return the samples that have a label; raise where one has none and that is not `allowed`."""
    missing = np.flatnonzero(pd.isna(samples.labels))
    if not len(missing):
        return samples
    if not allowed:
        first = ", ".join(str(row) for row in missing[:5])
        raise InputError(
            f"{len(missing):,} of {len(samples):,} rows have no label (first: {first}). Fill them in, or "
            "leave these rows out with --skip-broken."
        )
    kept = samples.select(np.setdiff1d(np.arange(len(samples)), missing))
    labels = pd.Series(kept.labels).infer_objects()
    if labels.dtype.kind == "f" and (labels == labels.round()).all():
        labels = labels.astype("int64")  # whole numbers that became floats because some were missing
    note = f"{len(missing):,} rows without a label were left out."
    return replace(kept, labels=labels.to_numpy(), notes=(*kept.notes, note))


def chosen_positions(labels: np.ndarray, classes: Sequence[str], first: int | None) -> np.ndarray:
    """Return the positions of the `first` samples that belong to `classes`; none named: to any class."""
    positions = np.arange(len(labels))
    if classes:
        positions = positions[np.isin(labels, match_classes(labels, classes, "--active-classes"))]
    if first is not None and first < 1:
        raise InputError(f"--first must be at least 1, got {first}.")
    return positions[:first]


def match_classes(labels: np.ndarray, given: Sequence[Any], flag: str) -> np.ndarray:
    """Return the classes of `(N,)` labels that were named as text, in the labels' own type; none: all."""
    classes = list(dict.fromkeys(labels.tolist()))
    if not len(given):
        return np.array(classes, dtype=labels.dtype)
    by_text = {str(label): label for label in classes}
    unknown = [str(name) for name in given if str(name) not in by_text]
    if unknown:
        known = sorted(by_text)
        hint = nearest(unknown[0], known) if len(known) <= 30 else f"There are {len(known)} classes."
        raise InputError(f"{flag}: no sample has the label {unknown[0]!r}. {hint}")
    return np.array([by_text[str(name)] for name in given], dtype=labels.dtype)


def parse_subset(text: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the positions that the text of ``--subset`` stands for.

    Args:
        text: ``500`` for that many samples drawn at random, stratified by class; ``0,7,12`` for
            positions; ``100:200`` for a range without its end. Ranges and positions can be combined.
        labels: ``(N,)`` labels.
        seed: Seed for the draw.

    Returns:
        ``(n_scored,)`` int64 positions: sorted for a number, in the order given otherwise.

    Raises:
        InputError: If the text names no position, one outside ``0 … N−1``, or one twice.
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

    Each class gets its share rounded down; the remaining places go to the classes with the largest
    remainders (the larger class first where remainders are equal).

    Args:
        labels: ``(N,)`` labels.
        count: Number of positions, ``1 … N``.
        seed: Seed for the draw.

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
        raise InputError(f"--subset {text!r} cannot be understood at {part!r}. {_CURE}") from error
    if last > n or first < 0 or first > n:
        raise InputError(f"--subset: the range {part} goes beyond the data; positions are 0 to {n - 1}.")
    return np.arange(first, last, dtype=np.int64)


def _position(text: str) -> int:
    value = int(text)
    if abs(value) >= 1 << 62:
        raise ValueError("no dataset is that long")
    return value
