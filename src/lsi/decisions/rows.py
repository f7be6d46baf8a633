"""Decisions, matched to the rows of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lsi.decisions.files import Decisions
from lsi.errors import InputError, nearest

_SHOWN = 5
_LABEL_TOLERANCE = 1e-6  # numbers may have been read in single precision once, whose steps are 6e-8


def by_row(
    decisions: Decisions,
    ids: Sequence[Any] | np.ndarray,
    labels: np.ndarray,
    names: Mapping[Any, str] | None,
    *,
    new_classes: bool = False,
) -> tuple[np.ndarray, dict[int, Any]]:
    """Return which rows of a dataset stay, `(N,)` bool, and the new label of each relabelled row.

    A new label that no sample of the dataset has is refused without `new_classes`.
    Shapes: ids `(N,)`, labels `(N,)`.
    """
    text = [str(value) for value in np.asarray(ids).tolist()]
    row_of = {value: row for row, value in enumerate(text)}
    if len(row_of) < len(text):
        raise InputError(
            "the dataset's ids are not unique, so decisions cannot be matched to its rows. Pass unique ids."
        )
    named = [*(decisions.keep or ()), *decisions.remove, *decisions.relabel, *decisions.given]
    _check_known(named, row_of)
    keep = np.ones(len(text), dtype=bool)
    if decisions.rows is not None:
        keep = _from_rows(decisions.rows, len(text))
    if decisions.keep is not None:
        keep &= np.fromiter((value in decisions.keep for value in text), dtype=bool, count=len(text))
    for value in decisions.remove:
        keep[row_of[value]] = False
    known = _label_values(labels, names)
    for value, expected in decisions.given.items():
        found = labels[row_of[value]]
        if not _same_label(found, expected, known):
            raise InputError(
                f"sample {value!r} has the label {str(found)!r}, but the decision was about {expected!r}. "
                "These decisions belong to another version of the dataset."
            )
    new = {
        row_of[sample]: _as_label(told, known, labels, sample, new_classes)
        for sample, told in decisions.relabel.items()
    }
    changed = {row: label for row, label in new.items() if keep[row] and labels[row] != label}
    return keep, changed


def _same_label(found: Any, expected: str, known: Mapping[str, Any]) -> bool:
    if str(found) == expected or (expected in known and known[expected] == found):
        return True
    try:
        return math.isclose(float(found), float(expected), rel_tol=_LABEL_TOLERANCE)
    except (TypeError, ValueError):
        return False


def _check_known(named: list[str], row_of: Mapping[str, int]) -> None:
    unknown = list(dict.fromkeys(value for value in named if value not in row_of))
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", …" if len(unknown) > _SHOWN else "")
        raise InputError(
            f"{len(unknown):,} ids are not in the dataset: {shown}. Use the dataset that was scored, with "
            "the same --id-column."
        )


def _from_rows(rows: np.ndarray, n: int) -> np.ndarray:
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise InputError(
            "a .npy selection must hold the positions to keep, as a flat array of whole numbers."
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        raise InputError(f"the selection names row {int(rows.max())}, but the dataset has {n:,} rows.")
    keep = np.zeros(n, dtype=bool)
    keep[rows] = True
    return keep


def _label_values(labels: np.ndarray, names: Mapping[Any, str] | None) -> dict[str, Any]:
    """Return the dataset's labels by their text and by their class names."""
    present = {value: None for value in labels.tolist()}
    found: dict[str, Any] = {str(name): label for label, name in (names or {}).items()}
    return found | {str(value): value for value in present}


def _as_label(text: str, known: Mapping[str, Any], labels: np.ndarray, sample: str, new_classes: bool) -> Any:
    """Return the label that a text stands for, in the type of the dataset's labels."""
    if text in known:
        return known[text]
    if labels.dtype.kind in "iu" and text.endswith(".0") and text[:-2] in known:
        return known[text[:-2]]  # programs that know no missing integers write 3 as 3.0
    if not new_classes:
        raise InputError(
            f"the new label {text!r} of the sample {sample!r} is not a class of the dataset. "
            f"{nearest(text, list(known)[:200])} If it is a class that no sample has yet, add --new-classes."
        )
    if labels.dtype.kind in "iuf":
        try:
            return int(text) if labels.dtype.kind in "iu" else float(text)
        except ValueError:
            raise InputError(
                f"the new label {text!r} is no number, as the labels of the dataset are. Write a number."
            ) from None
    return text
