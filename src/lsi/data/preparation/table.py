"""`prepare_table`: a table of mixed columns as features; what a column is, by its type."""

from __future__ import annotations

from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from lsi.data.preparation.dates import plan_date
from lsi.data.preparation.numbers import ID_CURE, are_ids, plan_number
from lsi.data.preparation.plan import VECTOR, ColumnPlan, TablePreparation, left_out, refuse_empty
from lsi.data.preparation.texts import plan_text
from lsi.errors import InputError
from lsi.validation.features import name_some


def prepare_table(frame: pd.DataFrame) -> tuple[np.ndarray, TablePreparation]:
    """Return the features of a table of mixed columns, and what was done to each column.

    Numbers get mean 0 and standard deviation 1, and their median where a value is missing or infinite; a
    second feature marks the rows. Categories become zeros and ones for each frequent value. Dates become
    their time, and sine and cosine of year, week and day. Ids, constant columns, free text, paths of pictures
    and collections are left out, with the reason. All depends on the values alone, so that the same table
    gives the same features.

    Args:
        frame: N rows of columns of any type, without the label.

    Returns:
        `(N, D)` float64, finite, in the order of the rows; and the description: its ``feature_names``,
        ``describe()``, and ``transform(frame)`` for other rows.

    Raises:
        InputError: If two columns have one name, or no column can be learnt from.

    Examples:
        >>> table = pd.DataFrame({"age": [31, None, 45, 27], "plan": ["basic", "pro", "pro", "basic"]})
        >>> table = pd.concat([table] * 5, ignore_index=True)
        >>> X, how = prepare_table(table)
        >>> X.shape, how.feature_names
        ((20, 3), ('age', 'age is missing', 'plan=pro'))
        >>> how.sentence()
        '3 features from 2 of 2 columns: 1 number (1 with missing values), 1 category'
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"prepare_table takes a pandas DataFrame, got {type(frame).__name__}.")
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(
            f"the table has two columns of the same name: {name_some(twice)}. Rename one of them."
        )
    if not len(frame):
        raise InputError("the table has no rows.")
    plans = tuple(plan_column(name, frame.iloc[:, k]) for k, name in enumerate(names))
    refuse_empty(plans, "the table", "Add columns that say something about the label.")
    how = TablePreparation(plans)
    return how.transform(frame), how


def plan_column(name: str, values: pd.Series, asked: bool = False) -> ColumnPlan:
    """Return what is to be done to a column; `asked`: it was named as a feature, so numbers are no ids."""
    dtype = values.dtype
    if isinstance(dtype, pd.SparseDtype):
        return plan_column(name, pd.Series(values.to_numpy()), asked)
    if isinstance(dtype, pd.PeriodDtype):
        return plan_date(name, values, lambda column: seconds_of(column.dt.to_timestamp()))
    if isinstance(dtype, pd.CategoricalDtype):
        return plan_text(name, values, category=True)
    if pd.api.types.is_bool_dtype(dtype):
        return plan_text(name, values)
    if pd.api.types.is_complex_dtype(dtype):
        return left_out(name, "complex numbers")
    if pd.api.types.is_timedelta64_dtype(dtype):
        return plan_number(name, values, lambda column: column.dt.total_seconds().to_numpy(dtype=np.float64))
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return plan_date(name, values, seconds_of)
    if pd.api.types.is_numeric_dtype(dtype):
        return _plan_numeric(name, values, asked)
    return _plan_objects(name, values, asked)


def _plan_numeric(name: str, values: pd.Series, asked: bool) -> ColumnPlan:
    if not asked and pd.api.types.is_integer_dtype(values.dtype) and are_ids(name, _floats(values)):
        return left_out(name, ID_CURE)
    return plan_number(name, values, _floats)


def _floats(column: pd.Series) -> np.ndarray:
    """Return numbers as `(N,)` float64, NaN where one is missing."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def seconds_of(column: pd.Series) -> np.ndarray:
    """Return times as `(N,)` seconds since 1970-01-01 UTC, NaN where one is missing."""
    if column.dt.tz is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    times = column.to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(times), np.nan, times.astype(np.int64) / 1e6)


_TEXT, _NUMBER, _DURATION, _LIST, _OTHER = "text", "number", "duration", "list", "other"
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    (_TEXT, (str, bool, np.bool_, date, time, np.datetime64)),  # a datetime is a date, a bool is no number
    (_DURATION, (timedelta, np.timedelta64)),
    (_NUMBER, (Real, Decimal, np.number)),
    (_LIST, (list, tuple, np.ndarray)),
)


def _kind(kind: type) -> str:
    return next((name for name, types in _KINDS if issubclass(kind, types)), _OTHER)


def _plan_objects(name: str, values: pd.Series, asked: bool) -> ColumnPlan:
    """Return the plan of a column whose values have types of their own."""
    present = values[values.notna()].to_numpy(dtype=object)
    missing = len(values) - len(present)
    types = {type(value) for value in present}
    kinds = {_kind(kind) for kind in types}
    if not types:
        return left_out(name, "no values", missing)
    if kinds == {_NUMBER}:
        return _plan_numeric_objects(name, values, asked)
    if kinds <= {_TEXT, _NUMBER}:
        return plan_text(name, values)
    if kinds == {_DURATION}:
        return plan_number(name, values, _durations)
    if kinds == {_LIST}:
        return _plan_vectors(name, values, present)
    shown = name_some(sorted(kind.__name__ for kind in types))
    return left_out(name, f"values of type {shown}, which are no numbers, texts or dates", missing)


def _plan_numeric_objects(name: str, values: pd.Series, asked: bool) -> ColumnPlan:
    def read(column: pd.Series) -> np.ndarray:
        gone = column.isna().to_numpy(dtype=bool)
        pairs = zip(column.to_numpy(dtype=object), gone, strict=True)
        return np.array(
            [np.nan if missing else _as_float(value) for value, missing in pairs], dtype=np.float64
        )

    numbers = read(values)
    whole = all(isinstance(value, int | np.integer) for value in values.to_numpy(dtype=object))
    if whole and not asked and are_ids(name, numbers):
        return left_out(name, ID_CURE)
    return plan_number(name, values, read)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):  # 10**400, complex numbers, words among other rows
        return np.inf if isinstance(value, int) else np.nan


def _durations(column: pd.Series) -> np.ndarray:
    return pd.to_timedelta(column).dt.total_seconds().to_numpy(dtype=np.float64)


def _plan_vectors(name: str, values: pd.Series, present: np.ndarray) -> ColumnPlan:
    """Return the plan of a column of lists: features as they are where all hold as many numbers."""
    lengths = {len(value) if np.ndim(value) else 0 for value in present}
    missing = len(values) - len(present)
    if len(lengths) > 1 or lengths == {0}:
        return left_out(name, "lists of different lengths", missing)
    numbers = _vectors(values, width := lengths.pop())
    known = np.isfinite(numbers)
    if not known.any(axis=0).all():
        return left_out(name, "lists of other things than numbers", missing)
    means = np.array([column[good].mean() for column, good in zip(numbers.T, known.T, strict=True)])
    return vector_plan(name, width, means, int((~known.all(axis=1)).sum()))


def vector_plan(name: str, width: int, means: np.ndarray | None = None, missing: int = 0) -> ColumnPlan:
    """Return the plan of a column of vectors; `means` `(width,)` stand where numbers are missing."""

    def make(column: pd.Series) -> np.ndarray:
        found = _vectors(column, width)
        return found if means is None else np.where(np.isfinite(found), found, means)

    did = "as they are" + (", means where missing" if missing else "")
    return ColumnPlan(name, VECTOR, did, tuple(f"{name}[{k}]" for k in range(width)), missing, None, make)


def _vectors(column: pd.Series, width: int) -> np.ndarray:
    return np.array([_vector(value, width) for value in column.to_numpy(dtype=object)], dtype=np.float64)


def _vector(value: Any, width: int) -> np.ndarray:
    """Return a list of numbers as `(width,)`; NaN where it is none."""
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.full(width, np.nan)
    return found if found.shape == (width,) else np.full(width, np.nan)
