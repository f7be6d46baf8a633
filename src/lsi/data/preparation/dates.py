"""Dates and times: read in the usual forms, and turned into a trend and the phases of year, week and day."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from lsi.data.preparation.numbers import plan_number
from lsi.data.preparation.plan import DATE, ColumnPlan, few

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = f"(?P<name>{'|'.join(_MONTHS)})[a-z]*"
_TIME = (
    r"(?:(?:[T ]|, ?)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d{1,9})?))?"
    r"(?: ?(?P<half>[ap]m))?)?(?: ?(?:z|utc|(?P<zone>[+-]\d{2}:?\d{2})))?"
)
_FORMS = [
    re.compile(form + _TIME, re.IGNORECASE | re.ASCII)
    for form in (
        r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<one>\d{1,2})(?P<sep>[-/.])(?P<two>\d{1,2})[-/.](?P<year>\d{4})",
        rf"(?P<day>\d{{1,2}})\.?[ -]{_NAME}[.,]?[ -](?P<year>\d{{4}})",
        rf"{_NAME}\.? (?P<day>\d{{1,2}}),? (?P<year>\d{{4}})",
    )
]
_PHASES = {"time of year": 365.2425, "weekday": 7.0, "time of day": 1.0}
"""Periods in days. With a year's mean length, the phase of a date stays within a day for four centuries."""
_FLAT = 1e-6
"""Phases that differ by less are the same up to rounding; a millionth of a year is half a minute."""
_DAY = 86_400.0
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, eq=False)
class ReadDates:
    """Texts that were read as dates.

    Attributes:
        seconds: `(n,)` seconds since 1970-01-01 UTC, NaN where a text is no date.
        alike: `(n,)` bool, which texts are written like a date.
        doubts: What cannot be told from the texts, one sentence each.
        mixed: Whether some texts have the day first and others, written alike, the month.
    """

    seconds: np.ndarray
    alike: np.ndarray
    doubts: tuple[str, ...] = ()
    mixed: bool = False


def read_dates(texts: Sequence[str], counts: Sequence[int]) -> ReadDates:
    """Return n texts as dates; each stands in as many rows. A date without a time zone is taken as UTC.

    Which number of 3/4/2020 is the month, the other texts tell; if none does, month first is assumed with a
    slash, and day first with a dot or a hyphen.
    """
    found = [next(filter(None, (form.fullmatch(text) for form in _FORMS)), None) for text in texts]
    parts = [None if match is None else match.groupdict() for match in found]
    open_ = [part for part in parts if part is not None and "one" in part]
    first, doubts, mixed = _month_first(open_)
    seconds = [np.nan if part is None else _seconds(part, first) for part in parts]
    written: Counter[str] = Counter()
    for part, count in zip(parts, counts, strict=True):
        if part is not None:
            written[_form(part, first)] += count
    if len(written) > 1:
        doubts = (f"dates in {len(written)} forms: {few(written)}.", *doubts)
    alike = np.array([part is not None for part in parts], dtype=bool)
    return ReadDates(np.array(seconds, dtype=np.float64), alike, doubts, mixed)


def _month_first(parts: list[dict[str, str]]) -> tuple[dict[str, bool], tuple[str, ...], bool]:
    """Return by separator whether the month stands first, what is doubtful, and whether both orders occur."""
    first: dict[str, bool] = {}
    doubts, mixed = [], False
    for sep in sorted({part["sep"] for part in parts}):
        days = any(int(part["one"]) > 12 for part in parts if part["sep"] == sep)
        months = any(int(part["two"]) > 12 for part in parts if part["sep"] == sep)
        mixed |= days and months
        first[sep] = months or (sep == "/" and not days)
        if not days and not months:
            order = "month" if first[sep] else "day"
            doubts.append(f"nothing tells day from month in dates with {sep!r}: the {order} was taken first.")
    return first, tuple(doubts), mixed


def _form(part: dict[str, str], first: dict[str, bool]) -> str:
    """Return how a date is written, in words."""
    if "one" in part:
        words = ("month", "day", "year") if first[part["sep"]] else ("day", "month", "year")
        return part["sep"].join(words)
    if "name" in part:
        return "month's name, day, year" if part.get("day") and "sep" not in part else "month's name"
    return part["sep"].join(("year", "month", "day"))


def _seconds(part: dict[str, str], first: dict[str, bool]) -> float:
    """Return seconds since 1970; NaN for a day or a time that does not exist."""
    month, day = part.get("month"), part.get("day")
    if "one" in part:
        month, day = (part["one"], part["two"]) if first[part["sep"]] else (part["two"], part["one"])
    number = _MONTHS.index(part["name"].lower()) + 1 if part.get("name") else int(month or 0)
    try:
        days = date(int(part["year"]), number, int(day or 0)).toordinal() - _EPOCH
    except ValueError:
        return np.nan
    hour, minute, second = int(part["hour"] or 0), int(part["minute"] or 0), float(part["second"] or 0)
    if hour > 24 or minute > 59 or second > 60 or (part["half"] and not 1 <= hour <= 12):
        return np.nan
    if part["half"]:
        hour = hour % 12 + 12 * (part["half"].lower() == "pm")
    return days * _DAY + hour * 3600.0 + minute * 60.0 + second - _offset(part["zone"])


def _offset(zone: str | None) -> float:
    """Return by how many seconds clocks of a time zone are ahead of UTC."""
    if not zone:
        return 0.0
    digits = zone[1:].replace(":", "")
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 3600.0 + int(digits[2:]) * 60.0)


def plan_date(
    name: str, values: pd.Series, read: Callable[[pd.Series], np.ndarray], doubt: str | None = None
) -> ColumnPlan:
    """Return the plan of a column that `read` turns into `(N,)` seconds since 1970, NaN where there is none.

    A date becomes its time, scaled as a number is, and sine and cosine of its phase in the year, the week and
    the day, as far as the dates span such a period and differ in their phase. Missing dates become the
    median, and are marked as missing numbers are.
    """
    trend = plan_number(name, values, read, doubt)
    if trend.make is None:
        return trend
    days = read(values) / _DAY
    known = days[np.isfinite(days)]
    median = float(np.median(known))
    phases = [part for part, period in _PHASES.items() if _has_phase(known, period)]
    make_trend = trend.make

    def make(column: pd.Series) -> np.ndarray:
        found = read(column) / _DAY
        found = np.where(np.isfinite(found), found, median)
        angles = [2.0 * np.pi * np.mod(found / _PHASES[part], 1.0) for part in phases]
        return np.column_stack([make_trend(column), *(wave(a) for a in angles for wave in (np.sin, np.cos))])

    more = tuple(f"{name}: {part} ({wave})" for part in phases for wave in ("sine", "cosine"))
    did = ", ".join(["time, scaled", *phases]) + (", median where missing" if trend.missing else "")
    return ColumnPlan(name, DATE, did, trend.features + more, trend.missing, trend.doubt, make)


def _has_phase(days: np.ndarray, period: float) -> bool:
    """Return whether dates span a period and differ in their phase."""
    phase = np.mod(days / period, 1.0)
    away = np.abs(phase - phase[0])
    return bool(np.ptp(days) >= period and np.minimum(away, 1.0 - away).max() > _FLAT)
