"""The labels of several annotators at the gate: a table with gaps → who said what about which sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from lsi.analysis.label_noise import check_probabilities, codes_and_names
from lsi.errors import InputError
from lsi.validation.labels import as_vector, check_labels, to_array

CURE = "Pass one row a sample and one column an annotator, with NaN or None where she gave no label."


@dataclass(frozen=True, eq=False)
class Answers:
    """M labels by A annotators of N samples.

    Attributes:
        row: `(M,)` sample.
        annotator: `(M,)` place of the annotator.
        code: `(M,)` class code.
        classes: `(C,)` classes behind the codes.
        annotators: The A names.
        n: N.
    """

    row: np.ndarray
    annotator: np.ndarray
    code: np.ndarray
    classes: np.ndarray
    annotators: pd.Index
    n: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, A and C."""
        return self.n, len(self.annotators), len(self.classes)


def check_answers(labels: Any, p: np.ndarray | None = None, classes: Any = None) -> Answers:
    """Check the table of labels, and the probabilities that belong to it, before any work.

    Shapes: labels `(N, A)`, p `(N, C)`.
    """
    row, annotator, values, names, n = _long(labels)
    if scipy.sparse.issparse(labels) and classes is None and len(values) and (values != 0).all():
        raise InputError(
            "no stored entry of labels is 0, and scipy leaves zeros out unless they are stored explicitly. "
            "If no label is 0, name the labels by classes=."
        )
    if len(names) < 2:
        raise InputError(
            "labels has one annotator, whom nobody can be compared with. Use lsi.label_noise(pred_probs, y)."
        )
    if not names.is_unique:
        raise InputError(
            f"labels has several annotators called {names[names.duplicated()][0]!r}. Rename them."
        )
    if not len(values):
        raise InputError(f"labels is empty: every entry is a gap. {CURE}")
    if p is not None and len(p) != n:
        raise InputError(f"pred_probs has {len(p):,} rows and labels {n:,}. Pass one row a sample.")
    code, found = _coded(values, p, classes)
    if p is not None:
        check_probabilities(p)
    return Answers(row, annotator, code, found, names, n)


def _coded(values: np.ndarray, p: np.ndarray | None, classes: Any) -> tuple[np.ndarray, np.ndarray]:
    if p is None and classes is None:
        code, found = check_labels(values)
        return code, pd.Series(found).infer_objects().to_numpy()
    c = len(as_vector(classes, "classes")) if p is None else p.shape[1]
    return codes_and_names(values, (len(values), c), classes)


def _long(labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.Index, int]:
    """Return sample, annotator and label of every entry that is no gap, the annotators' names, and N."""
    if scipy.sparse.issparse(labels):
        return _long_sparse(labels)
    table = to_array(labels, "labels", CURE)
    if table.ndim != 2 or not table.size:
        raise InputError(f"labels must be a table of shape (samples, annotators), got {table.shape}. {CURE}")
    given = ~np.asarray(pd.isna(table))
    row, annotator = np.nonzero(given)
    names = labels.columns if isinstance(labels, pd.DataFrame) else pd.RangeIndex(table.shape[1])
    return row, annotator, table[given], names, len(table)


def _long_sparse(labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.Index, int]:
    entries = labels.tocoo()
    if len(entries.shape) != 2:
        raise InputError(
            f"labels must be a table of shape (samples, annotators), got {entries.shape}. {CURE}"
        )
    row, annotator = (np.asarray(at, dtype=np.int64) for at in entries.coords)
    twice = pd.DataFrame({"row": row, "annotator": annotator}).duplicated()
    if twice.any():
        raise InputError(f"labels holds two labels of one annotator for the sample in row {row[twice][0]}.")
    return row, annotator, entries.data, pd.RangeIndex(entries.shape[1]), entries.shape[0]
