"""Features at the gate: numpy, torch or pandas → one finite, C-contiguous float array.

Shape and kind of the entries are checked first, since that is cheap. The conversion and the pass over all
entries come last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from lsi.errors import InputError

CHUNK_BYTES = 1 << 25
"""How much is read at a time, so that a large memory-mapped array is never loaded whole."""


def name_some(values: Sequence[Any] | np.ndarray, limit: int = 5) -> str:
    """Return the first few values as text, for messages: ``0, 7, 12, …``."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (", …" if len(values) > limit else "")


def as_matrix(X: Any) -> np.ndarray:
    """Return X as a 2-D numpy array of real numbers, not yet converted, and without a copy if possible.

    Shapes: X `(N, D)`.
    """
    _refuse_sparse(X)
    if isinstance(X, pd.DataFrame):
        matrix = _frame_to_numpy(X)
    elif isinstance(X, torch.Tensor):
        matrix = tensor_to_numpy(X)
    else:
        matrix = _array_to_numpy(X)
    _check_shape(matrix)
    _check_kind(matrix)
    return matrix


def to_float(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix as float32 or float64, C-contiguous; the same object if nothing has to change.

    float32 and float64 stay, float16 and booleans become float32, and wider floats become float64. Integers
    become float32 if it holds them as exactly as float64, else float64.

    Shapes: matrix `(N, D)`.
    """
    dtype = _float_dtype(matrix)
    if matrix.dtype == dtype and matrix.flags.c_contiguous:
        return matrix
    with np.errstate(over="ignore"):  # overflow gives infinities, which check_finite reports
        return np.ascontiguousarray(matrix, dtype=dtype)


def check_finite(
    features: np.ndarray, chunk_bytes: int = CHUNK_BYTES, names: Sequence[Any] | None = None
) -> None:
    """Refuse features with NaN or infinite entries, or entries whose squares overflow.

    `names` are those of the columns, where they have any. Shapes: features `(N, D)`.
    """
    chunks = list(_chunks(features, chunk_bytes))
    bad = np.concatenate([start + np.flatnonzero(~np.isfinite(chunk).all(axis=1)) for start, chunk in chunks])
    if bad.size:
        told = f"X has NaN or infinite values in {bad.size} of {len(features)} rows (first: {name_some(bad)})"
        if names is None:
            raise InputError(
                f"{told}. Remove these rows from X and y, or fill them in, for example with "
                "sklearn.impute.SimpleImputer()."
            )
        raise InputError(
            f"{told}: {_holes(features, names, chunk_bytes)}. Fill them in: X, how = lsi.prepare_table(X) "
            "(lsi compute: without --no-prepare), or remove these rows from X and y."
        )
    largest = float(max((max(chunk.max(), -chunk.min()) for _, chunk in chunks if chunk.size), default=0.0))
    # Every curvature is a sum of squares over rows, which overflows beyond this bound.
    if largest > 1e-3 * float(np.finfo(features.dtype).max) ** 0.5:
        raise InputError(
            f"X holds values as large as {largest:.1e}: their squares are infinite as {features.dtype}. "
            "Bring features to comparable scales, for example with sklearn.preprocessing.StandardScaler()."
        )
    if 0.0 < largest < float(np.finfo(features.dtype).tiny) ** 0.5:
        raise InputError(
            f"X holds no values larger than {largest:.1e}: their squares are zero as {features.dtype}. "
            "Bring features to comparable scales, for example with sklearn.preprocessing.StandardScaler()."
        )


def _holes(features: np.ndarray, names: Sequence[Any], chunk_bytes: int) -> str:
    """Return which columns have entries that are not finite, and how many, the worst first."""
    counts = sum((~np.isfinite(chunk)).sum(axis=0) for _, chunk in _chunks(features, chunk_bytes))
    worst = [k for k in np.argsort(-np.asarray(counts), kind="stable") if np.asarray(counts)[k]]
    return name_some([f"{str(names[k])!r} in {np.asarray(counts)[k]}" for k in worst])


def tensor_to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a dense tensor from any device as numpy, sharing memory if possible."""
    known = {torch.float16, torch.float32, torch.float64}
    detached = tensor.detach().cpu()
    if detached.is_floating_point() and detached.dtype not in known:
        detached = detached.to(torch.float32)
    return detached.resolve_conj().resolve_neg().numpy()


def refuse_masked(values: Any, name: str) -> None:
    """Refuse numpy masked arrays with masked entries: a conversion would silently drop the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise InputError(
            f"{name} is a masked array with masked entries. Remove these rows, or fill them in first."
        )


def _refuse_sparse(X: Any) -> None:
    is_tensor = isinstance(X, torch.Tensor) and X.layout != torch.strided
    if scipy.sparse.issparse(X) or is_tensor:
        cure = "X.to_dense()" if is_tensor else "X.toarray()"
        raise InputError(
            f"X is a sparse matrix of shape {tuple(X.shape)}; dense features are needed. Pass {cure}, or "
            "reduce it first, for example with sklearn.decomposition.TruncatedSVD(256)."
        )


def _array_to_numpy(X: Any) -> np.ndarray:
    refuse_masked(X, "X")
    if type(X) in (np.ndarray, np.memmap):
        return X
    try:
        return np.asarray(X)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"X cannot be read as an array ({error}). Pass a 2-D array in which all rows have the same "
            "length."
        ) from error


def _frame_to_numpy(frame: pd.DataFrame) -> np.ndarray:
    dtypes = [_numpy_dtype(dtype) for dtype in frame.dtypes]
    pairs = zip(frame.columns, dtypes, strict=True)
    bad = [repr(name) for name, dtype in pairs if dtype is None or dtype.kind not in "biufc"]
    if bad:
        raise InputError(
            f"X has columns that are not numbers: {name_some(bad)}. Make features of them: "
            "X, how = lsi.prepare_table(X). Or drop them."
        )
    if not dtypes:
        return np.empty(frame.shape)
    common = np.result_type(*(dtype for dtype in dtypes if dtype is not None))
    if all(isinstance(dtype, np.dtype) for dtype in frame.dtypes):
        return frame.to_numpy(dtype=common)
    if common.kind in "biu" and frame.isna().to_numpy().any():
        common = np.dtype(np.float64)
    if common.kind != "f":
        return frame.to_numpy(dtype=common)
    return frame.to_numpy(dtype=common, na_value=np.nan)


def _numpy_dtype(dtype: Any) -> np.dtype | None:
    """Return the numpy type behind a pandas column type, None if it is not numeric."""
    if not pd.api.types.is_numeric_dtype(dtype):
        return None
    inner = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))
    return inner if isinstance(inner, np.dtype) else None


def _check_shape(matrix: np.ndarray) -> None:
    if matrix.ndim and len(matrix) == 0:
        raise InputError(
            f"X is empty: its shape is {matrix.shape}. Check how the samples were loaded or selected."
        )
    if matrix.ndim != 2:
        cure = (
            "Reshape it with X.reshape(-1, 1) if it is a single feature."
            if matrix.ndim == 1
            else "Flatten it with X.reshape(len(X), -1), or pass the features of an encoder."
        )
        raise InputError(f"X must be 2-D, one row a sample; got shape {matrix.shape}. {cure}")
    if matrix.shape[1] == 0:
        # The wording is scikit-learn's, which users of its estimators search for.
        raise InputError(
            f"X has 0 feature(s) (shape={matrix.shape}) while a minimum of 1 is required. Check how its "
            "columns were selected."
        )


def _check_kind(matrix: np.ndarray) -> None:
    if matrix.dtype.kind in "biuf":
        return
    if matrix.dtype.kind == "c":
        raise InputError(
            "Complex data not supported: X is complex. Pass its real parts, for example np.hstack([X.real, "
            "X.imag])."
        )
    columns = _columns_not_numbers(matrix)
    if matrix.dtype.kind == "O" and not columns:
        raise InputError(
            "X is an object array, though its entries are numbers. Pass X.astype(np.float32), or float64."
        )
    raise InputError(
        f"X has columns that are not numbers ({matrix.dtype}): columns {name_some(columns)}. Drop them, or "
        "encode them as numbers, for example with sklearn.preprocessing.OneHotEncoder()."
    )


def _columns_not_numbers(matrix: np.ndarray) -> list[int]:
    if matrix.dtype.kind != "O":
        return list(range(matrix.shape[1]))
    numbers = (bool, int, float, np.bool_, np.integer, np.floating)
    return [j for j, column in enumerate(matrix.T) if not all(isinstance(entry, numbers) for entry in column)]


def _float_dtype(matrix: np.ndarray) -> np.dtype:
    kind, size = matrix.dtype.kind, matrix.dtype.itemsize
    if kind == "f":
        return np.dtype(np.float32 if size <= 4 else np.float64)
    if kind == "b" or size <= 2:
        return np.dtype(np.float32)
    exact = all(_fits_float32(chunk) for _, chunk in _chunks(matrix, CHUNK_BYTES))
    return np.dtype(np.float32 if exact else np.float64)


def _fits_float32(integers: np.ndarray) -> bool:
    as_double = integers.astype(np.float64)
    return bool(np.array_equal(as_double.astype(np.float32), as_double))


def _chunks(matrix: np.ndarray, chunk_bytes: int) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, chunk_bytes // max(1, matrix.shape[1] * matrix.itemsize))
    for start in range(0, len(matrix), step):
        yield start, matrix[start : start + step]
