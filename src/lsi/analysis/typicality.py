"""Typicality: where a sample stands in its class and overall, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lsi.analysis.view import View, ranks, view
from lsi.results.table import ScoreTable

HIGH = 0.75
"""Above this quantile of LSI a sample needs a reason."""
REASONS = ("mislabeled", "hard", "rare", "redundant", "typical")


def typicality(scores: ScoreTable) -> pd.DataFrame:
    """Return rank, quantile and reason of each sample; `Scores.typicality` states the rules."""
    seen = view(scores)
    table = seen.table
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
    """Return covariance term / LSI, `(n,)`; 0 where LSI is 0, since such a sample sharpens nothing."""
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
    """Return the leverage, or the covariance share where the method gives no leverage."""
    if "leverage" in table:
        leverage = table["leverage"].to_numpy(dtype=np.float64)
        if np.isfinite(leverage).all():
            return leverage
    return covariance


def _grouped(table: pd.DataFrame) -> np.ndarray:
    if "redundancy_group" not in table:
        return np.zeros(len(table), dtype=bool)
    return np.asarray(table["redundancy_group"].to_numpy() >= 0)
