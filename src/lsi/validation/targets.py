"""Targets that are no classes: numbers for regression, several labels a sample.

Only `lsi.validation.problem` calls this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.errors import InputError
from lsi.validation.features import name_some, refuse_masked, tensor_to_numpy
from lsi.validation.labels import check_hashable


def check_numbers(y: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the targets of a regression. Shapes: y `(N,)`."""
    array, names = _matrix(y, "y", "Pass one number a sample, or one column a target.")
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported: y is complex. Pass real numbers.")
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y holds entries that are no numbers ({error}). Regression needs numbers; for classes use "
            "lsi.LinearProbe()."
        ) from error
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise InputError(
            f"y is NaN or infinite in {bad.size} of {len(values)} rows (first: {name_some(bad)}). Drop these "
            "rows: keep = numpy.isfinite(y); X, y = X[keep], y[keep]."
        )
    return np.array(values, order="C"), names  # a copy: what is read from a file may not be writable


def check_indicators(y: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which labels every sample has. Shapes: y `(N, L)`."""
    if has_label_lists(y):
        return _binarise(list(y))
    array, names = _matrix(y, "y", "Pass zeros and ones, one column a label, or a list of labels a sample.")
    if array.shape[1] == 0:
        raise InputError("y has no columns. Pass one column a label.")
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
    """Return whether y holds several labels a sample: a matrix, or collections of labels."""
    return has_label_lists(y) or len(getattr(y, "shape", np.shape(y) if _is_rows(y) else ())) == 2


def has_label_lists(y: Any) -> bool:
    """Return whether y holds one collection of labels a sample, such as `[["cat", "dog"], ["cat"], []]`."""
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
    """Return whether y is a list of rows of equal length that are no sets."""
    if not isinstance(y, list | tuple) or not len(y):
        return False
    if not all(isinstance(row, list | tuple | np.ndarray) for row in y):
        return False
    lengths = {len(row) for row in y}
    return len(lengths) == 1 and lengths != {0}


def _binarise(rows: list[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    flat = [label for row in rows for label in row]
    check_hashable(flat, "y")
    if not flat:
        raise InputError("no sample of y has a label. Pass labels, or zeros and ones.")
    known = list(dict.fromkeys(flat))
    try:
        known = sorted(known)
    except TypeError:
        pass
    code = {label: column for column, label in enumerate(known)}
    target = np.zeros((len(rows), len(known)), dtype=np.int64)
    for row, labels in enumerate(rows):
        target[row, [code[label] for label in labels]] = 1
    return target, _names(known)


def _matrix(values: Any, name: str, cure: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a matrix `(N, T)` of what was given, and names of its columns."""
    if values is None:
        raise InputError(f"This method requires {name} to be passed, but the target {name} is None.")
    refuse_masked(values, name)
    names: Iterable[Any] = ()
    if isinstance(values, pd.DataFrame):
        names = values.columns
    elif isinstance(values, pd.Series) and values.name is not None:
        names = (values.name,)
    try:
        array = tensor_to_numpy(values) if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} cannot be read as an array ({error}). {cure}") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} must be 1-D or 2-D with at least one column; got {array.shape}. {cure}")
    names = list(names)
    return array, _names(names or range(array.shape[1]))


def _names(labels: Iterable[Any]) -> tuple[str, ...]:
    """Return labels as texts, all different."""
    names: list[str] = []
    for label in labels:
        text = str(label)
        while text in names:
            text += "'"
        names.append(text)
    return tuple(names)
