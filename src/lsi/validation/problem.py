"""The gate for features and target: what `Problem` promises holds, and is not checked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.validation.features import as_matrix, check_finite, name_some, to_float
from lsi.validation.labels import as_vector, check_hashable, check_labels
from lsi.validation.targets import check_indicators, check_numbers

MIN_SAMPLES = 3
"""With two samples of two classes, only one class would be left without one of them."""


@dataclass(frozen=True)
class Shape:
    """The size of a problem: all that its cost depends on.

    Attributes:
        n_samples: N.
        n_features: D, columns of the design matrix, the intercept among them.
        n_classes: C.
        n_scored: Samples to score.
    """

    n_samples: int
    n_features: int
    n_classes: int
    n_scored: int


@dataclass(frozen=True, eq=False)
class Problem:
    """Checked features and labels, made only by `check_problem`.

    Attributes:
        features: `(N, D)` C-contiguous array, float32 or float64, finite; no intercept column.
        target: `(N,)` int64 class codes `0 … C−1`; `(N, T)` finite float64 for regression; `(N, L)` int64
            zeros and ones for several labels a sample.
        classes: `(C,)` object array of the original labels, sorted if they can be, else in order of
            appearance; empty if the target is not a class.
        sample_id: `(N,)` array: given ids, or the pandas index, or `0 … N−1`.
        subset: `(n_scored,)` int64 positions to score, in the order given.
        outputs: Names of the T targets or L labels; empty for classes.
    """

    features: np.ndarray
    target: np.ndarray
    classes: np.ndarray
    sample_id: np.ndarray
    subset: np.ndarray
    outputs: tuple[str, ...] = ()

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.features)

    @property
    def n_features(self) -> int:
        """Number of features D, without the intercept."""
        return int(self.features.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)

    @property
    def labels(self) -> Any:
        """Labels or targets as `check_problem` takes them."""
        return labels_of(self.target, self.classes, self.outputs)

    def shape(self, intercept: bool = True) -> Shape:
        """Return the size of the problem with or without an intercept."""
        return Shape(self.n_samples, self.n_features + int(intercept), self.n_classes, len(self.subset))


def labels_of(target: np.ndarray, classes: np.ndarray, outputs: Sequence[str]) -> Any:
    """Return labels or targets as `check_problem` takes them. Shapes: as in `Problem`."""
    return pd.DataFrame(target, columns=pd.Index(outputs)) if len(outputs) else classes[target]


def check_problem(
    X: Any, y: Any, *, subset: Any = None, sample_id: Any = None, task: str = "classification"
) -> Problem:
    """Check features and labels before any work, and bring them into one form.

    X: `(N, D)` numbers or booleans as a numpy array, torch tensor or pandas DataFrame. float32 and float64
    stay as they are and are not copied, so memory-mapped arrays stay memory-mapped. y: `(N,)` labels of any
    hashable type; numbers for ``"regression"``; zeros and ones, one column a label, or a list of labels a
    sample for ``"multilabel"``. Classes with a single sample, exact duplicates and constant columns are
    legal.

    Examples:
        >>> problem = check_problem([[0, 1], [1, 0], [1, 1]], ["cat", "dog", "cat"])
        >>> problem.target, problem.classes, problem.features.dtype
        (array([0, 1, 0]), array(['cat', 'dog'], dtype=object), dtype('float32'))
    """
    matrix = as_matrix(X)
    target, classes, outputs = _check_target(y, task)
    _check_sizes(matrix, target)
    _check_same_index(X, y)
    ids = _check_sample_id(
        X.index if sample_id is None and isinstance(X, pd.DataFrame) else sample_id, len(matrix)
    )
    positions = check_subset(subset, len(matrix))
    features = to_float(matrix)
    check_finite(features, names=list(X.columns) if isinstance(X, pd.DataFrame) else None)
    return Problem(features, target, classes, ids, positions, outputs)


def _check_target(y: Any, task: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the target, the classes, and the names of the outputs."""
    if task != "classification":
        target, outputs = (check_numbers if task == "regression" else check_indicators)(y)
        return target, np.empty(0, dtype=object), outputs
    target, classes = check_labels(y)
    if len(classes) == 1 and len(target) >= MIN_SAMPLES:
        raise InputError(
            f"y holds one class only ({classes[0]!r}), so there is nothing to learn. Pass samples of "
            "two or more classes."
        )
    return target, classes, ()


def _check_sizes(matrix: np.ndarray, target: np.ndarray) -> None:
    rows, labels = len(matrix), len(target)
    if rows != labels:
        raise InputError(f"X has {rows} rows but y has {labels} labels. Pass one label for each row of X.")
    if rows < MIN_SAMPLES:
        counted = "1 sample" if rows == 1 else f"{rows} samples"
        raise InputError(
            f"X has {counted}, but at least {MIN_SAMPLES} are needed to leave one out. Add samples."
        )


def _check_same_index(X: Any, y: Any) -> None:
    if not (isinstance(X, pd.DataFrame) and isinstance(y, pd.Series | pd.DataFrame)):
        return
    if X.index.equals(y.index):
        return
    differing = np.flatnonzero(np.asarray(X.index != y.index))
    if differing.size == 0:  # equal values of different types
        return
    where = int(differing[0])
    raise InputError(
        f"X and y have different indexes (first at row {where}: {X.index[where]!r} and {y.index[where]!r}). "
        "Align them with y = y.loc[X.index], or pass y.to_numpy() if the rows already match one to one."
    )


def _check_sample_id(sample_id: Any, rows: int) -> np.ndarray:
    if sample_id is None:
        return np.arange(rows)
    if isinstance(sample_id, pd.MultiIndex):
        raise InputError("X has an index of several levels. Pass one id a sample: sample_id=[...].")
    ids = as_vector(sample_id, "sample_id")
    if len(ids) != rows:
        raise InputError(
            f"sample_id has {len(ids)} entries but X has {rows} rows. Pass one id for each row of X."
        )
    missing = np.flatnonzero(pd.isna(ids))
    if missing.size:
        raise InputError(f"sample_id is missing in rows {name_some(missing)}. Give every sample an id.")
    check_unique_ids(ids)
    return ids


def check_unique_ids(ids: np.ndarray) -> None:
    """Refuse ids that are given twice, or cannot be told apart. Shapes: ids `(N,)`."""
    if ids.dtype == object:
        check_hashable(ids, "sample_id")
    repeated = pd.unique(ids[pd.Series(ids).duplicated()])
    if len(repeated):
        shown = name_some([repr(value) for value in repeated.tolist()])
        raise InputError(
            f"sample_id is not unique; repeated: {shown}. Make the ids unique, or drop them (with pandas: "
            "X.reset_index(drop=True))."
        )


def check_subset(subset: Any, rows: int) -> np.ndarray:
    """Return positions to score, in the order given; all of them for None."""
    if subset is None:
        return np.arange(rows, dtype=np.int64)
    values = as_vector(subset, "subset")
    if values.dtype.kind == "b":
        values = _mask_to_positions(values, rows)
    if values.size == 0:
        raise InputError("subset is empty. Pass at least one position, or None to score every sample.")
    if values.dtype.kind not in "iu":
        raise InputError(
            f"subset must hold integer positions or be a boolean mask, got {values.dtype}. Pass positions "
            "such as np.flatnonzero(condition), not sample ids."
        )
    _check_positions(values, rows)
    return values.astype(np.int64)


def _mask_to_positions(mask: np.ndarray, rows: int) -> np.ndarray:
    if len(mask) != rows:
        raise InputError(
            f"subset is a mask of length {len(mask)} but X has {rows} rows. Pass one entry for each row."
        )
    return np.flatnonzero(mask)


def _check_positions(positions: np.ndarray, rows: int) -> None:
    outside = positions[(positions < 0) | (positions >= rows)]
    if outside.size:
        raise InputError(
            f"subset has positions outside of X: {name_some(outside)}. They must lie between 0 and "
            f"{rows - 1}."
        )
    values, counts = np.unique(positions, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"subset repeats positions: {name_some(values[counts > 1])}. Name each once, for example with "
            "np.unique(subset)."
        )
