"""What every analysis reads from a table of scores, checked once: class codes, doubtful labels, ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.results.audit import spearman
from lsi.results.table import ScoreTable
from lsi.validation.labels import check_labels

CONFIDENT = 0.9
"""Without a calibrated `wrong_probability`, a label is suspected where another one is this likely."""


@dataclass(frozen=True)
class View:
    """Columns that the analyses share.

    Attributes:
        table: One row per scored sample.
        codes: `(n,)` class codes; all zero without classes.
        classes: `(C,)` labels behind the codes; empty without classes.
        wrong: `(n,)` probability that the label is wrong: the column `wrong_probability` where the run has
            it, else one minus `loo_probability`.
        suspected: `(n,)` bool: more likely wrong than right by `wrong_probability`; without that column,
            where the model that never saw the sample prefers another label and gives this one less than
            10 %.
        disagrees: `(n,)` bool: the model that never saw the sample prefers another label.
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


def view(scores: ScoreTable) -> View:
    """Return what the analyses share; refuse scores that are missing or not finite."""
    if not len(scores):
        raise InputError("there are no scored samples. Score some first with lsi.score.")
    bad = int((~np.isfinite(scores.lsi)).sum())
    if bad:
        raise InputError(f"{bad:,} of {len(scores):,} scores are not finite. Score these samples again.")
    table, disagrees = scores.to_frame(), scores.disagrees
    wrong, calibrated = wrong_probability(table)
    codes, classes = np.zeros(len(table), dtype=np.int64), np.empty(0, dtype=object)
    if scores.has_classes:
        codes, classes = check_labels(table["label"])
    suspected = wrong > 0.5 if calibrated else disagrees & (wrong > CONFIDENT)
    return View(table, codes, classes, wrong, suspected, disagrees, calibrated)


def need_classes(task: str, what: str) -> None:
    """Refuse an analysis that is about classes where there are none."""
    if task != "classification":
        raise InputError(f"{what} is for classification, and these scores are of the task {task!r}.")


def wrong_probability(table: pd.DataFrame) -> tuple[np.ndarray, bool]:
    """Return how likely each label is wrong, `(n,)`, and whether that is the run's own estimate.

    Without an estimate it is one minus the label's probability under the model that never saw the sample.
    """
    estimated = "wrong_probability" in table
    wrong = table["wrong_probability"] if estimated else 1.0 - table["loo_probability"]
    return wrong.to_numpy(dtype=np.float64), estimated


def suggested_labels(table: pd.DataFrame) -> np.ndarray:
    """Return the label to put in place of each given one, `(n,)` objects; None where it is the given one.

    Without the run's suggestions it is the most likely label of the model that never saw the sample.
    """
    likely = table["suggested_label" if "suggested_label" in table else "loo_prediction"]
    suggested = np.empty(len(table), dtype=object)
    pairs = zip(likely.astype(object), table["label"].astype(object), strict=True)
    suggested[:] = [None if is_missing(new) or new == given else new for new, given in pairs]
    return suggested


def is_missing(value: object) -> bool:
    """Return whether a table's entry stands for "none".

    Examples:
        >>> is_missing(None), is_missing(float("nan")), is_missing("nan"), is_missing(0)
        (True, True, False, False)
    """
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


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


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float | None:
    """Return Spearman's correlation; None for fewer than three pairs, or constant or non-finite values.

    Shapes: left `(n,)`, right `(n,)`.
    """
    found = spearman(left, right)
    return None if len(left) < 3 or np.isnan(found) else found
