"""Columns of texts: what they hold (numbers, dates, categories, ids, paths of pictures, free text)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pandas as pd

from lsi.data.preparation.categories import MAX_LEVELS, count_levels, plan_category
from lsi.data.preparation.dates import plan_date, read_dates
from lsi.data.preparation.numbers import ID_CURE, ID_ROWS, are_ids, plan_number
from lsi.data.preparation.plan import MIN_ROWS, ColumnPlan, left_out, shown_values
from lsi.data.readers.folder import IMAGE_SUFFIXES

MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "?", "-", "--"))
"""Texts, in lower case, that stand for a missing value: what Arrow's and pandas' readers of CSV take for one,
the question mark of the UCI repository, and dashes."""
MOSTLY = 0.9
"""Share of a column's values that have to be numbers or dates for the others to count as missing. A column
with more words among its numbers holds codes."""
_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
_WORDS = 4
"""Values of this many words on average, most of them distinct, are free text rather than names."""
_CODE = re.compile(r"[+-]?0\d")
"""A number that begins with a zero is a code, such as a postal code."""


def as_texts(values: pd.Series) -> np.ndarray:
    """Return a column as `(N,)` texts, None where a value is missing: ``12`` and ``"12"`` are the same."""
    gone = values.isna().to_numpy(dtype=bool)
    return np.array(
        [
            None if missing else _text(value)
            for value, missing in zip(values.to_numpy(dtype=object), gone, strict=True)
        ],
        dtype=object,
    )


def _text(value: Any) -> str | None:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    return None if text.lower() in MISSING else text


def plan_text(name: str, values: pd.Series, category: bool = False) -> ColumnPlan:
    """Return the plan of a column of texts; `category`: its type says that it holds categories."""
    texts = as_texts(values)
    levels, counts, missing = count_levels(texts)
    if not len(levels):
        return left_out(name, "no values", missing)
    if not category:
        plan = _plan_numbers(name, values, levels, counts) or _plan_dates(name, values, levels, counts)
        plan = plan or _refuse(name, levels, counts, missing)
        if plan is not None:
            return plan
    return plan_category(name, values, as_texts)


def _plan_numbers(name: str, values: pd.Series, levels: np.ndarray, counts: np.ndarray) -> ColumnPlan | None:
    """Return the plan of texts that are numbers, or of which few are words; None: they are not."""
    if any(_CODE.match(level) and "." not in level for level in levels):
        return None
    numbers = _numbers(levels.tolist())
    known = ~np.isnan(numbers)
    share = counts[known].sum() / counts.sum()
    if share < MOSTLY or (share < 1 and known.sum() <= MAX_LEVELS):
        return None
    if counts.max() == 1:
        numbers = numbers_of(as_texts(values), _numbers)
        if are_ids(name, numbers[~np.isnan(numbers)]):
            return left_out(name, ID_CURE)
    doubt = _strays(levels[~known], counts[~known], "numbers")
    return plan_number(name, values, lambda column: numbers_of(as_texts(column), _numbers), doubt)


def _plan_dates(name: str, values: pd.Series, levels: np.ndarray, counts: np.ndarray) -> ColumnPlan | None:
    """Return the plan of texts that are dates; None: they are not."""
    found = read_dates(levels.tolist(), counts.tolist())
    known = found.alike if found.mixed else ~np.isnan(found.seconds)
    if counts[known].sum() < MOSTLY * counts.sum():
        return None
    if found.mixed:
        if len(levels) <= MAX_LEVELS:
            return None
        return left_out(name, "dates with the day first and with the month first; write them as 2026-11-30")
    seconds = dict(zip(levels, found.seconds, strict=True))

    def read(column: pd.Series) -> np.ndarray:
        texts = as_texts(column)
        unseen = sorted({text for text in texts if text is not None} - seconds.keys())
        more = read_dates(unseen, [1] * len(unseen)).seconds
        known = seconds | dict(zip(unseen, more, strict=True))
        return np.array([np.nan if text is None else known[text] for text in texts], dtype=np.float64)

    strays = _strays(levels[~known], counts[~known], "dates")
    return plan_date(name, values, read, " ".join([*found.doubts, *([strays] if strays else [])]) or None)


def _strays(levels: np.ndarray, counts: np.ndarray, what: str) -> str | None:
    """Return a sentence on the values that are not what the column holds."""
    if not len(levels):
        return None
    return f"{counts.sum():,} values that are no {what} count as missing ({shown_values(levels)})."


def _refuse(name: str, levels: np.ndarray, counts: np.ndarray, missing: int) -> ColumnPlan | None:
    """Return the plan of texts that no category is made of; None: they are categories."""
    for suffixes, what, flag in ((IMAGE_SUFFIXES, "pictures", "image"), (_AUDIO, "recordings", "audio")):
        if all(level.lower().endswith(suffixes) for level in levels):
            return left_out(name, f"paths of {what}; to use them: --{flag}-column", missing)
    distinct = len(levels) > MOSTLY * counts.sum()
    if distinct and np.mean([len(level.split()) for level in levels]) >= _WORDS:
        return left_out(name, "free text; to use it: --text-column", missing)
    if counts.max() == 1 and len(levels) >= ID_ROWS and not missing:
        return left_out(name, ID_CURE)
    if counts.max() < MIN_ROWS and len(levels) > MIN_ROWS:
        return left_out(name, f"{len(levels):,} values, none in {MIN_ROWS} rows", missing)
    return None


def numbers_of(texts: np.ndarray, parse: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """Return `(N,)` texts as numbers, NaN where one is missing; each distinct text is read once."""
    codes, levels = pd.factorize(texts)
    return np.append(parse(list(levels)), np.nan)[codes]


def _numbers(texts: Sequence[str]) -> np.ndarray:
    """Return texts as numbers, NaN for those that are none."""
    return np.array([_number(text) for text in texts], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return np.nan if "_" in text else float(text)
    except ValueError:
        return np.nan
