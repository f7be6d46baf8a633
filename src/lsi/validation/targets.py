"""Targets other than classes at the gate: numbers for regression, several labels for each sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.validation.features import name_some
from lsi.validation.labels import check_hashable, sorted_if_possible, to_array


def check_numbers(y: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the targets of a regression `(N, T)` and their names. Shapes: y `(N,)` or `(N, T)`."""
    array, names = _matrix(y, "Pass one number a sample, or one column a target.")
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: y is complex. Pass real numbers.")
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y holds entries that are not numbers ({error}). Regression needs numbers; for classes use "
            "lsi.LinearProbe()."
        ) from error
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise InputError(
            f"y is NaN or infinite in {bad.size} of {len(values)} rows (first: {name_some(bad)}). Drop these "
            "rows: keep = numpy.isfinite(y); X, y = X[keep], y[keep]."
        )
    return np.array(values, order="C"), names  # a copy, since an array from a file may be read-only


def check_indicators(y: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of every sample as zeros and ones `(N, L)`, and their names."""
    if has_label_lists(y):
        return _binarise(list(y))
    array, names = _matrix(y, "Pass zeros and ones, one column a label, or a list of labels a sample.")
    missing = np.flatnonzero(pd.isna(array).any(axis=1))
    if missing.size:
        raise InputError(
            f"y has no entry (NaN or None) in {missing.size} of {len(array)} rows (first: "
            f"{name_some(missing)}). Drop these rows, or fill them with 0."
        )
    wrong = np.argwhere(~np.isin(array, (0, 1)))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"y must hold zeros and ones, one column a label; row {row} of column {names[column]!r} is "
            f"{array[row, column]!r}. For several numbers a sample use lsi.RidgeProbe()."
        )
    return np.ascontiguousarray(array.astype(np.int64)), names


def is_multilabel(y: Any) -> bool:
    """Return whether y holds several labels for each sample: a matrix, or collections of labels."""
    return has_label_lists(y) or len(getattr(y, "shape", np.shape(y) if _is_rows(y) else ())) == 2


def has_label_lists(y: Any) -> bool:
    """Return whether y holds a collection of labels for each sample: `[["cat", "dog"], ["cat"], []]`."""
    if isinstance(y, pd.Series):
        y = y.tolist()
    if isinstance(y, np.ndarray) and y.dtype == object and y.ndim == 1:
        y = y.tolist()
    if not isinstance(y, list | tuple) or not len(y):
        return False
    collections = [isinstance(entry, list | tuple | set | frozenset | np.ndarray) for entry in y]
    if not all(collections):
        return False
    # Rows of zeros and ones of equal length are a matrix; anything else is a list of labels.
    return not (_is_rows(y) and all(value in (0, 1) for row in y for value in row))


def _is_rows(y: Any) -> bool:
    """Return whether y is a list of rows of equal length, none of them a set."""
    if not isinstance(y, list | tuple) or not len(y):
        return False
    if not all(isinstance(row, list | tuple | np.ndarray) for row in y):
        return False
    lengths = {len(row) for row in y}
    return len(lengths) == 1 and lengths != {0}


def _binarise(rows: list[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return collections of labels as zeros and ones `(N, L)`, and the names of the labels."""
    flat = [label for row in rows for label in row]
    check_hashable(flat, "y")
    if not flat:
        raise InputError("no sample of y has a label. Pass labels, or zeros and ones.")
    known = sorted_if_possible(list(dict.fromkeys(flat)))
    code = {label: column for column, label in enumerate(known)}
    target = np.zeros((len(rows), len(known)), dtype=np.int64)
    for row, labels in enumerate(rows):
        target[row, [code[label] for label in labels]] = 1
    return target, _names(known)


def _matrix(y: Any, cure: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return y as a matrix `(N, T)`, and the names of its columns."""
    array = to_array(y, "y", cure)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"y must be 1-D or 2-D with at least one column; got {array.shape}. {cure}")
    names: Iterable[Any] = range(array.shape[1])
    if isinstance(y, pd.DataFrame):
        names = y.columns
    elif isinstance(y, pd.Series) and y.name is not None:
        names = (y.name,)
    return array, _names(names)


def _names(labels: Iterable[Any]) -> tuple[str, ...]:
    """Return labels as distinct texts."""
    names: list[str] = []
    for label in labels:
        text = str(label)
        while text in names:
            text += "'"
        names.append(text)
    return tuple(names)
