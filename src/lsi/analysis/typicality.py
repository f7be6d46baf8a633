"""Typicality: where a sample stands in its class and overall, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lsi.analysis.view import View, ranks, view

HIGH = 0.75
"""Above this quantile of LSI a sample needs a reason."""
REASONS = ("mislabeled", "hard", "rare", "redundant", "typical")


def typicality(table: pd.DataFrame, task: str = "classification") -> pd.DataFrame:
    """Return how typical each sample is, overall and within its class, and the reason for its score.

    The reason is the first of these that holds:

    - `mislabeled`: the label is more likely wrong than right (`wrong_probability > ½`; for a run without
      that column: the model that never saw the sample prefers another label and gives this one less than
      10 %).
    - `hard`: without the sample the model prefers another label; or the score is in the highest quarter
      because the label surprises the model.
    - `rare`: the score is in the highest quarter although the label does not surprise: the sample stands
      where few others do. It has much leverage, or sharpens the posterior more than it moves it
      (`covariance_share ≥ ½`).
    - `redundant`: in a group of samples that carry the same information (column `redundancy_group`).
    - `typical`: everything else; the other samples say the same.

    In the highest quarter, `hard` and `rare` are told apart by ranks: surprise (how improbable the label is
    without the sample) against leverage (covariance share where the method gives no leverage).

    Args:
        table: One row a scored sample.
        task: The manifest's task; without classes nothing is `mislabeled` unless the table says so.

    Returns:
        One row a sample, in the order of the table: `sample_id`, `label`, `lsi` (nats), `rank` (1: the most
        typical), `rank_in_class`, `quantile` (share of samples of no higher LSI; ties take their mean),
        `reason`, `mean_share` and `covariance_share` (parts of the score, adding up to 1).

    Raises:
        InputError: The table is empty or a score is not finite.
    """
    seen = view(table, task)
    lsi = pd.Series(seen.lsi)
    covariance = _covariance_share(table)
    return pd.DataFrame(
        {
            "sample_id": table["sample_id"].to_numpy(),
            "label": table["label"].to_numpy(),
            "lsi": seen.lsi,
            "rank": lsi.rank(method="first").astype("int64"),
            "rank_in_class": lsi.groupby(seen.codes).rank(method="first").astype("int64"),
            "quantile": ranks(seen.lsi),
            "reason": _reasons(seen, covariance),
            "mean_share": 1.0 - covariance,
            "covariance_share": covariance,
        }
    )


def _covariance_share(table: pd.DataFrame) -> np.ndarray:
    """Return covariance term / LSI; 0 for a sample whose score is 0: nothing changed, nothing sharpened."""
    covariance = table["covariance_term"].to_numpy(dtype=np.float64)
    total = table["lsi"].to_numpy(dtype=np.float64)
    share = np.divide(covariance, total, out=np.zeros(len(total)), where=total > 0)
    return np.clip(share, 0.0, 1.0)


def _reasons(seen: View, covariance: np.ndarray) -> np.ndarray:
    high = ranks(seen.lsi) > HIGH
    surprise = ranks(1.0 - seen.table["loo_probability"].to_numpy(dtype=np.float64))
    rare = high & ((ranks(_reach(seen.table, covariance)) > surprise) | (covariance >= 0.5))
    conditions = [seen.suspected, seen.disagrees | (high & ~rare), rare, _grouped(seen.table)]
    return np.select(conditions, REASONS[:-1], REASONS[-1])


def _reach(table: pd.DataFrame, covariance: np.ndarray) -> np.ndarray:
    """Return leverage, or the covariance share where there is none."""
    if "leverage" in table:
        leverage = table["leverage"].to_numpy(dtype=np.float64)
        if np.isfinite(leverage).all():
            return leverage
    return covariance


def _grouped(table: pd.DataFrame) -> np.ndarray:
    if "redundancy_group" not in table:
        return np.zeros(len(table), dtype=bool)
    return np.asarray(table["redundancy_group"].to_numpy() >= 0)
