"""New rows at the gate that a fitted probe is asked about: the columns and labels that it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.validation.features import as_matrix, check_finite, name_some, to_float
from lsi.validation.labels import as_vector, check_hashable
from lsi.validation.problem import Problem
from lsi.validation.targets import check_indicators, check_numbers, has_label_lists


def check_queries(X: Any, problem: Problem) -> np.ndarray:
    """Return new rows as features, `(M, D)`."""
    matrix = as_matrix(X)
    if matrix.shape[1] != problem.n_features:
        raise InputError(
            f"X has {matrix.shape[1]} columns, but the probe was trained on {problem.n_features}. Pass rows "
            "with the same features, in the same order and from the same encoder."
        )
    features = to_float(matrix)
    check_finite(features)
    return features


def query_names(X: Any) -> np.ndarray:
    """Return what new rows are called: the index of a DataFrame, else their positions."""
    return X.index.to_numpy() if isinstance(X, pd.DataFrame) else np.arange(len(X))


def check_query_labels(y: Any, problem: Problem, rows: int) -> np.ndarray:
    """Return labels of new rows as a problem's: codes `(M,)`, zeros and ones `(M, L)` or numbers `(M, T)`."""
    if problem.target.dtype.kind == "f":
        target = _numbers(y, problem)
    else:
        target = _indicators(y, problem) if problem.outputs else _codes(y, problem)
    if len(target) != rows:
        raise InputError(f"X has {rows} rows but y has {len(target)} labels. Pass one label for each row.")
    return target


def _numbers(y: Any, problem: Problem) -> np.ndarray:
    target, _ = check_numbers(y)
    if target.shape[1] != problem.target.shape[1]:
        raise InputError(
            f"y has {target.shape[1]} targets, but the probe was trained on {problem.target.shape[1]}. Pass "
            "the same targets in the same order."
        )
    return target


def _codes(y: Any, problem: Problem) -> np.ndarray:
    values = as_vector(y, "y")
    if values.dtype == object:
        check_hashable(values, "y")
    code = {label: place for place, label in enumerate(problem.classes.tolist())}
    found = [code.get(label, -1) for label in values.tolist()]
    unknown = [repr(label) for label, place in zip(values.tolist(), found, strict=True) if place < 0]
    if unknown:
        known = name_some([repr(label) for label in problem.classes.tolist()])
        raise InputError(
            f"y has labels that the probe was never trained on: {name_some(list(dict.fromkeys(unknown)))}; "
            f"it knows {known}. Drop these rows, or train with samples of these classes."
        )
    return np.array(found, dtype=np.int64)


def _indicators(y: Any, problem: Problem) -> np.ndarray:
    names = problem.outputs
    target, given = check_indicators(y)
    if has_label_lists(y):
        unknown = [repr(name) for name in given if name not in names]
        if unknown:
            raise InputError(
                f"y has labels that the probe was never trained on: {name_some(unknown)}; it knows "
                f"{name_some(names)}. Drop them, or train with samples that have them."
            )
        ordered = np.zeros((len(target), len(names)), dtype=np.int64)
        ordered[:, [names.index(name) for name in given]] = target
        return ordered
    if target.shape[1] != len(names):
        raise InputError(
            f"y has {target.shape[1]} columns of labels, but the probe was trained on {len(names)}. Pass the "
            "same labels in the same order."
        )
    return target
