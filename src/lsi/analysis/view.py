"""A table of scores as the analyses read it: classes, how likely a label is wrong, who is suspected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.validation.labels import check_labels

CONFIDENT = 0.9
"""Without a calibrated `wrong_probability`, a label is suspected where another one is this likely."""


@dataclass(frozen=True)
class View:
    """Columns that every analysis needs, checked once.

    Attributes:
        table: One row a scored sample.
        codes: `(n,)` class codes; all zero where the target is no class.
        classes: `(C,)` labels behind the codes; empty where the target is no class.
        wrong: `(n,)` probability that the label is wrong: the column `wrong_probability` where the run has
            it, else one minus `loo_probability`.
        suspected: `(n,)` bool: more likely wrong than right by `wrong_probability`; without that column,
            where the model that never saw the sample prefers another label and gives this one less than
            10 %.
        disagrees: `(n,)` bool: the likely label without the sample is not the given one.
        calibrated: Whether `wrong` is the run's own estimate.
    """

    table: pd.DataFrame
    codes: np.ndarray
    classes: np.ndarray
    wrong: np.ndarray
    suspected: np.ndarray
    disagrees: np.ndarray
    calibrated: bool

    @property
    def lsi(self) -> np.ndarray:
        """LSI in nats, `(n,)`."""
        return self.table["lsi"].to_numpy(dtype=np.float64)


def view(table: pd.DataFrame, task: str = "classification") -> View:
    """Return what the analyses read from a table of scores."""
    if not len(table):
        raise InputError("there are no scored samples. Score some first with lsi.score.")
    bad = int((~np.isfinite(table["lsi"].to_numpy(dtype=np.float64))).sum())
    if bad:
        raise InputError(f"{bad:,} of {len(table):,} scores are not finite. Score these samples again.")
    calibrated = "wrong_probability" in table
    source = table["wrong_probability"] if calibrated else 1.0 - table["loo_probability"]
    wrong = source.to_numpy(dtype=np.float64)
    if task == "classification":
        codes, classes = check_labels(table["label"])
        disagrees = (table["loo_prediction"].astype(object) != table["label"].astype(object)).to_numpy()
    else:
        codes, classes = np.zeros(len(table), dtype=np.int64), np.empty(0, dtype=object)
        disagrees = np.zeros(len(table), dtype=bool)
    suspected = wrong > 0.5 if calibrated else disagrees & (wrong > CONFIDENT)
    return View(table, codes, classes, wrong, suspected, disagrees, calibrated)


def task_name(manifest: Any) -> str:
    """Return the task of a manifest; folders that do not say it are of classification."""
    return str(manifest.get("task") or "classification")


def need_classes(manifest: Any, what: str) -> None:
    """Refuse an analysis that is about classes where there are none."""
    task = task_name(manifest)
    if task != "classification":
        raise InputError(f"{what} is for classification, and these scores are of the task {task!r}.")


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value as a share in (0, 1]: 1 for the largest, ties their mean.

    Examples:
        >>> ranks(np.array([5.0, 1.0, 5.0, 9.0]))
        array([0.625, 0.25 , 0.625, 1.   ])

    Shapes: values `(n,)`.
    """
    return pd.Series(values).rank(pct=True).to_numpy(dtype=np.float64)


def ranks_within(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the rank of each value among those of its class, as a share in (0, 1].

    Shapes: values `(n,)`, codes `(n,)`.
    """
    return pd.Series(values).groupby(codes).rank(pct=True).to_numpy(dtype=np.float64)
