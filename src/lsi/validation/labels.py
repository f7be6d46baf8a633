"""Labels and ids at the gate: numbers, words, anything hashable → vectors, class codes and classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from lsi.errors import InputError
from lsi.validation.features import name_some, refuse_masked, tensor_to_numpy


def check_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return class codes `(N,)` and classes `(C,)`. Shapes: y `(N,)`."""
    values = as_vector(y, "y")
    missing = np.flatnonzero(pd.isna(values))
    if missing.size:
        raise InputError(
            f"y has no label (NaN or None) in {missing.size} of {len(values)} rows (first: "
            f"{name_some(missing)}). Drop these rows: keep = ~pandas.isna(y); X, y = X[keep], y[keep]."
        )
    return _encode(values)


def as_vector(values: Any, name: str) -> np.ndarray:
    """Return labels or ids as a 1-D numpy array whose entries keep their type."""
    if isinstance(values, list | tuple | range) and not _is_nested(values):
        array = object_array([_plain(value) for value in values])
    elif scipy.sparse.issparse(values):
        array = values
    else:
        array = to_array(values, name, "Pass one label a sample.")
    if len(array.shape) != 1:
        shape = tuple(array.shape)
        raise InputError(f"{name} must be 1-D; got shape {shape}. {_flatten_cure(shape, name)}")
    return _tighten(array)


def to_array(values: Any, name: str, cure: str) -> np.ndarray:
    """Return labels, targets or ids as a numpy array of any shape."""
    if values is None:
        # The wording is scikit-learn's, which users of its estimators search for.
        raise InputError(f"This method requires {name} to be passed, but the target {name} is None.")
    refuse_masked(values, name)
    if isinstance(values, torch.Tensor):
        return tensor_to_numpy(values)
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} cannot be read as an array ({error}). {cure}") from error


def object_array(values: list[Any]) -> np.ndarray:
    """Return an object array of these entries; from tuples among them, numpy would make a second axis."""
    return np.fromiter(values, dtype=object, count=len(values))


def check_hashable(values: Iterable[Any], name: str) -> None:
    """Refuse entries that cannot be told apart by value."""
    for row, value in enumerate(values):
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"{name} holds entries that cannot be told apart by value: row {row} is a "
                f"{type(value).__name__}. Pass strings, numbers or tuples."
            ) from None


def _is_nested(values: list[Any] | tuple[Any, ...] | range) -> bool:
    first = values[0] if len(values) else None
    is_row = isinstance(first, list | np.ndarray | torch.Tensor) and np.ndim(first) > 0
    return bool(is_row)


def _flatten_cure(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 2 and shape[1] == 1:
        return f"Pass {name}.ravel() (numpy, torch) or {name}.squeeze() (pandas)."
    if len(shape) == 2:
        return f"If it is one-hot, pass {name}.argmax(axis=1); several labels a sample need one run for each."
    return f"Pass {name} as a flat list."


def _plain(value: Any) -> Any:
    """Return numpy scalars, 0-d arrays and 0-d tensors as Python values: tensors would hash by identity."""
    is_array = isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0
    return value.item() if is_array or isinstance(value, np.generic) else value


def _tighten(array: np.ndarray) -> np.ndarray:
    """Return object arrays of one simple type in that type, and text without lone surrogates.

    Names of files may hold bytes that are not characters. Python turns them into lone surrogates, which
    neither Parquet nor a terminal accepts; they are escaped.
    """
    if array.dtype.kind not in "OU":
        return array
    if not _is_encodable(array):
        array = object_array([_escape(value) for value in array.tolist()])
    return array if array.dtype.kind == "U" else pd.Series(array).infer_objects().to_numpy()


def _is_encodable(values: np.ndarray) -> bool:
    try:
        "".join(value for value in values.tolist() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _encode(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kind = values.dtype.kind
    if kind == "c":
        raise InputError("Complex data not supported: y is complex. Pass one class label a sample.")
    if kind == "f":
        values = _floats_to_integers(values)
    elif kind not in "biuUS":
        return _encode_objects([_plain(value) for value in pd.Series(values)])
    classes, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64).ravel(), object_array(classes.tolist())


def _floats_to_integers(values: np.ndarray) -> np.ndarray:
    fractions = np.flatnonzero(~(np.abs(values) < 2.0**63) | (values != np.round(values)))
    if fractions.size:
        raise InputError(
            f"a class label is a whole number or a text, and y holds {values[fractions[0]]} in row "
            f"{fractions[0]}: this looks like regression. Use probe=lsi.RidgeProbe() (lsi compute: --task "
            "regression), or bin y into classes, for example with pandas.cut(y, 5, labels=False)."
        )
    return values.astype(np.int64)


def _encode_objects(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    check_hashable(values, "y")
    classes = sorted_if_possible(list(dict.fromkeys(values)))
    code_of = {label: code for code, label in enumerate(classes)}
    codes = np.fromiter((code_of[value] for value in values), dtype=np.int64, count=len(values))
    return codes, object_array(classes)


def sorted_if_possible(values: list[Any]) -> list[Any]:
    """Return values in order, or as they are if some of them cannot be compared."""
    try:
        return sorted(values)
    except TypeError:
        return values
