"""Which labels to look at: the list of suspects, and how many of them are expected to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.targets import wrong_targets
from lsi.analysis.view import suggested_labels, wrong_probability
from lsi.errors import InputError
from lsi.results.table import ScoreTable


def mislabeled(scores: ScoreTable, fdr: float | None = None, top: int | None = None) -> pd.DataFrame:
    """Return one row per sample, the label that is most likely wrong first."""
    check_limits(fdr, top)
    table = scores.to_frame()
    if scores.task == "regression":
        frame = wrong_targets(table, len(scores.manifest["outputs"]))
        return frame if top is None else frame.head(top)
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "suggested_label": pd.Series(suggested_labels(table), dtype=object),
            "wrong_probability": wrong_probability(table)[0],
            "lsi": table["lsi"],
            **{name: table[name] for name in ("loo_prediction", "flip_gain") if name in table},
        }
    )
    frame = frame.sort_values(["wrong_probability", "lsi"], ascending=False, ignore_index=True)
    count = len(frame) if fdr is None else longest_list(frame["wrong_probability"].to_numpy(), fdr)
    return frame.head(count if top is None else min(count, int(top)))


def check_limits(fdr: Any, top: Any) -> None:
    """Refuse an `fdr` outside [0, 1] and a `top` that is not a positive integer."""
    number = isinstance(fdr, int | float | np.number) and not isinstance(fdr, bool)
    if fdr is not None and not (number and 0 <= fdr <= 1):
        raise InputError(
            f"fdr must be between 0 and 1, got {fdr!r}. 0.1: one in ten of the list may be right."
        )
    if top is not None and (isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1):
        raise InputError(f"top must be a positive integer, got {top!r}. Pass how many samples to return.")


def longest_list(wrong: np.ndarray, fdr: float) -> int:
    """Return the length of the longest list whose mean of `1 − wrong_probability` is at most `fdr`."""
    right = np.cumsum(1.0 - wrong) / np.arange(1, len(wrong) + 1)
    return int(np.searchsorted(right, fdr + 1e-12, side="right"))


@dataclass(frozen=True, eq=False)
class LabelNoiseSummary:
    """How many labels are wrong, and in which way.

    Attributes:
        n_wrong: Expected number of wrong labels among the scored samples.
        noise_matrix: Probability of each given label (columns) for each true class (rows).
        wrong_probability: `(n_scored,)`, descending.
    """

    n_wrong: float
    noise_matrix: pd.DataFrame
    wrong_probability: np.ndarray

    @classmethod
    def of(cls, scores: ScoreTable) -> LabelNoiseSummary:
        """Read what a run estimated."""
        entry, table = scores.manifest.get("label_noise"), scores.to_frame()
        if not entry or "wrong_probability" not in table:
            raise InputError(
                "these scores hold no estimate of label noise. Score again with lsi.score(..., "
                "label_noise=True); scores.mislabeled() ranks labels without it."
            )
        names = pd.Index(scores.classes)
        matrix = pd.DataFrame(entry["noise_matrix"], index=names, columns=names)
        matrix = matrix.rename_axis(index="true", columns="given")
        wrong = np.sort(table["wrong_probability"].to_numpy())[::-1]
        return cls(float(entry["n_wrong"]), matrix, wrong)

    def wrong_in_top(self, n: int) -> float:
        """Return how many of the `n` most suspicious labels are expected to be wrong."""
        check_limits(None, n)
        return float(self.wrong_probability[:n].sum())

    def __str__(self) -> str:
        n = min(len(self.wrong_probability), max(10, round(self.n_wrong)))
        return (
            f"About {self.n_wrong:,.0f} of {len(self.wrong_probability):,} labels are estimated to be wrong; "
            f"about {self.wrong_in_top(n):,.0f} of the top {n:,}."
        )
