"""What is done to each column of a table, in words and as a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError, nearest
from lsi.validation.features import name_some

MIN_ROWS = 3
"""Fewest rows that make a column of zeros and ones. With one row in it, the column is gone when that row is
left out; with two, each speaks for the other alone. From three on, a wrong label among them is outvoted."""
NUMBER, CATEGORY, DATE, VECTOR, LEFT_OUT = "number", "category", "date", "vector", "left out"
_PLURALS = {NUMBER: "numbers", CATEGORY: "categories", DATE: "dates", VECTOR: "vectors"}
_SHOWN = 6
"""Columns that a sentence on the terminal names; the manifest names all."""


@dataclass(frozen=True, eq=False)
class ColumnPlan:
    """What is done to one column.

    Attributes:
        column: Its name.
        kind: `NUMBER`, `CATEGORY`, `DATE`, `VECTOR` or `LEFT_OUT`.
        did: What was done, in words.
        features: Names of the features that it becomes; none where it is left out.
        missing: Rows without a value.
        doubt: What the user should know, as a sentence without the column's name; or None.
        make: `(N,)` column → `(N, len(features))` finite numbers.
    """

    column: str
    kind: str
    did: str
    features: tuple[str, ...] = ()
    missing: int = 0
    doubt: str | None = None
    make: Callable[[pd.Series], np.ndarray] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says about the column, as JSON values."""
        told = {"column": self.column, "kind": self.kind, "did": self.did, "features": len(self.features)}
        more = {"missing": self.missing, "doubt": self.doubt}
        return told | {name: value for name, value in more.items() if value}


@dataclass(frozen=True, eq=False)
class TablePreparation:
    """What was done to every column of a table, and how it is done to other rows.

    Attributes:
        columns: One `ColumnPlan` a column, in the table's order.
    """

    columns: tuple[ColumnPlan, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the D features, such as ``age``, ``plan=basic`` or ``age is missing``."""
        return tuple(name for plan in self.columns for name in plan.features)

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the features of other rows with the same columns.

        Args:
            frame: Rows of a table with these columns; others are ignored.

        Returns:
            `(N, D)` float64. A value that the first table did not have counts as missing (numbers, dates),
            or as another category.

        Raises:
            InputError: If a column is missing.

        Examples:
            >>> from lsi.data.preparation.table import prepare_table
            >>> _, how = prepare_table(pd.DataFrame({"height": [1.0, 2.0, 3.0]}))
            >>> how.transform(pd.DataFrame({"height": [2.0]})).tolist()
            [[0.0]]
        """
        names = [str(name) for name in frame.columns]
        out = np.empty((len(frame), len(self.feature_names)))
        start = 0
        for plan in self.columns:
            if plan.make is None:
                continue
            if plan.column not in names:
                raise InputError(
                    f"the rows have no column {plan.column!r}, which the features are made of. "
                    f"{nearest(plan.column, names)}"
                )
            stop = start + len(plan.features)
            try:
                out[:, start:stop] = plan.make(frame.iloc[:, names.index(plan.column)])
            except (AttributeError, TypeError, ValueError) as error:
                raise InputError(
                    f"the column {plan.column!r} does not hold what it held ({plan.kind}): {error}. Give "
                    "rows of the same types."
                ) from error
            start = stop
        return out

    def describe(self) -> list[dict[str, Any]]:
        """Return what was done to each column, as JSON values: column, kind, did, features, missing, doubt.

        Returns:
            One entry a column, in the table's order.
        """
        return [plan.describe() for plan in self.columns]

    def sentence(self) -> str:
        """Return in one line what was done.

        Returns:
            For example ``11 features from 4 of 6 columns: 2 numbers (1 with missing values), …``.
        """
        used = [plan for plan in self.columns if plan.features]
        counts = Counter(plan.kind for plan in used)
        parts = []
        for kind, count in counts.items():
            holes = sum(bool(plan.missing) for plan in used if plan.kind == kind)
            told = f"{count:,} {kind if count == 1 else _PLURALS[kind]}"
            parts.append(f"{told} ({holes:,} with missing values)" if holes else told)
        made = len(self.feature_names)
        features = "1 feature" if made == 1 else f"{made:,} features"
        return f"{features} from {len(used):,} of {len(self.columns):,} columns: {', '.join(parts)}"

    def notes(self) -> tuple[str, ...]:
        """Return what the user should be told about the columns.

        Returns:
            The sentence; the columns that are not used, with the reason; and what is doubtful.
        """
        notes = [f"{self.sentence()}. --no-prepare takes the numbers as they are."]
        if len(self.columns) > sum(bool(plan.features) for plan in self.columns):
            notes.append(f"not used: {_reasons(self.columns)}.")
        doubts = [f"{plan.column!r}: {plan.doubt}" for plan in self.columns if plan.features and plan.doubt]
        return (*notes, *doubts[:_SHOWN])


def left_out(column: str, why: str, missing: int = 0) -> ColumnPlan:
    """Return the plan of a column that is not used."""
    return ColumnPlan(column, LEFT_OUT, why, missing=missing)


def refuse_empty(plans: Sequence[ColumnPlan], name: str, cure: str) -> None:
    """Raise if no column of a table can be learnt from."""
    if not any(plan.features for plan in plans):
        why = _reasons(plans) if plans else "it has none besides the label"
        raise InputError(f"{name}: no column can be learnt from: {why}. {cure}")


def _reasons(plans: Sequence[ColumnPlan]) -> str:
    """Return why columns are left out, each reason once with the names of its columns."""
    names: dict[str, list[str]] = {}
    for plan in plans:
        if not plan.features:
            names.setdefault(plan.did, []).append(repr(plan.column))
    return "; ".join(f"{_some(columns)} ({why})" for why, columns in list(names.items())[:_SHOWN])


def _some(parts: Sequence[str]) -> str:
    """Return the first few parts of a list as text, and how many more there are."""
    shown = ", ".join(parts[:_SHOWN])
    return shown + (f" and {len(parts) - _SHOWN:,} more" if len(parts) > _SHOWN else "")


def shown_values(values: Sequence[Any] | np.ndarray, limit: int = 3) -> str:
    """Return the first few values of a column for messages, each cut to a readable length."""
    return name_some(
        [repr(value if len(str(value)) <= 30 else f"{str(value)[:30]}…") for value in values], limit
    )


def few(counts: Mapping[str, int]) -> str:
    """Return counts by name as text, the largest first: ``year-month-day 400, day.month.year 300``."""
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} {count:,}" for name, count in most)
