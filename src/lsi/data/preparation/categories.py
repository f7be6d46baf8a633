"""Columns of categories: zeros and ones for the frequent values, one column for all others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from lsi.data.preparation.plan import CATEGORY, MIN_ROWS, ColumnPlan, left_out

MAX_LEVELS = 30
"""Most values of a column that get a feature of their own. Wrong labels in five tables of 800 rows, with
columns cut into a hundred uneven levels: average precision .257, .295, .341, .348, .346 and .310 with 5,
10, 20, 30, 60 and 100."""
_COVERED = 0.01
"""Share of the rows that the frequent values of a column have to cover. Where a million values stand in two
rows each and a few by chance in nine, features for these few say nothing of all others."""


def plan_category(
    name: str, values: pd.Series, read: Callable[[pd.Series], np.ndarray], doubt: str | None = None
) -> ColumnPlan:
    """Return the plan of a column that `read` turns into `(N,)` texts, None where there is none.

    The `MAX_LEVELS` most frequent values that have `MIN_ROWS` rows become a feature each, missing values one,
    and all other values together one. Of two, one says it all.
    """
    texts = read(values)
    levels, counts, missing = count_levels(texts)
    kept = levels[counts >= MIN_ROWS][:MAX_LEVELS]
    rest = int(counts.sum() - counts[: len(kept)].sum())
    groups = [f"{name}={level}" for level in kept]
    groups += [f"{name} is missing"] if missing >= MIN_ROWS else []
    groups += [f"{name}: other"] if rest >= MIN_ROWS else []
    if len(levels) < 2 and not missing:
        return left_out(name, "constant")
    if len(groups) < 2 or missing + counts[: len(kept)].sum() < _COVERED * len(texts):
        why = f"{len(levels):,} values, of which {len(kept):,} in {MIN_ROWS} rows or more"
        return left_out(name, why, missing)
    first = int(len(groups) == 2)
    place = {level: k for k, level in enumerate(kept)}
    gone = len(kept) if missing >= MIN_ROWS else -1
    other = len(groups) - 1 if rest >= MIN_ROWS else -1

    def make(column: pd.Series) -> np.ndarray:
        found = [gone if text is None else place.get(text, other) for text in read(column)]
        codes = np.fromiter(found, dtype=np.int64, count=len(found))
        return (codes[:, None] == np.arange(first, len(groups))).astype(np.float64)

    did = "zeros and ones" if first else f"one-hot, {len(kept)} values"
    if len(levels) > len(kept):
        did += f", and {len(levels) - len(kept):,} others together"
    return ColumnPlan(name, CATEGORY, did, tuple(groups[first:]), missing, doubt, make)


def count_levels(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distinct texts, the most frequent first, their counts, and the number of missing ones."""
    codes, found = pd.factorize(texts)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    # Ties in the order of the texts: the order of rows must not decide which values are kept.
    order = sorted(range(len(found)), key=lambda k: (-counts[k], found[k]))
    return np.asarray(found, dtype=object)[order], counts[order], int((codes < 0).sum())
