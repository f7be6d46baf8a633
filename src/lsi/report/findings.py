"""Parts of a summary that only some runs have: classes, redundancy groups, evidence of a curation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

_BOX = (0.05, 0.25, 0.5, 0.75, 0.95)


def class_rows(frame: pd.DataFrame, name: Callable[[object], str]) -> list[dict[str, Any]]:
    """Return one entry a class, most informative first."""
    keyed = frame.assign(_class=[name(label) for label in frame["label"]], _differs=disagrees(frame))
    rows = []
    for label, group in keyed.groupby("_class", sort=False):
        values = group["lsi"].to_numpy(dtype=np.float64)
        rows.append(
            {
                "label": label,
                "n": len(group),
                "mean": values.mean(),
                "median": np.median(values),
                "highest": values.max(),
                "quantiles": np.quantile(values, _BOX),
                "n_disagree": group["_differs"].sum(),
                "n_planted": group["corrupted"].sum() if "corrupted" in group else None,
            }
        )
    return sorted(rows, key=lambda row: -row["mean"])


def disagrees(frame: pd.DataFrame) -> pd.Series:
    """Tell for each row whether the model that never saw the sample gives it another label."""
    return frame["loo_prediction"].astype(object) != frame["label"].astype(object)


def redundancy(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Count groups of samples that carry the same information.

    Args:
        frame: The score table.

    Returns:
        ``n_groups``, ``n_samples`` (in any group) and ``largest``; None where no groups were asked for.
    """
    if "redundancy_group" not in frame:
        return None
    groups = frame["redundancy_group"].fillna(-1).to_numpy(dtype=np.int64)
    _, sizes = np.unique(groups[groups >= 0], return_counts=True)
    return {"n_groups": len(sizes), "n_samples": sizes.sum(), "largest": sizes.max(initial=0)}


def curation(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the evidence of a curation, as far as it can be drawn."""
    found = manifest.get("curation")
    if not isinstance(found, Mapping) or not isinstance(found.get("curves"), Mapping):
        return None
    shares = found.get("shares") or []
    curves = [
        {"name": str(name), **{key: list(curve[key]) for key in ("mean", "low", "high")}}
        for name, curve in found["curves"].items()
        if isinstance(curve, Mapping)
        and all(_fits(curve.get(key), shares) for key in ("mean", "low", "high"))
    ]
    if len(set(shares)) < 2 or not curves:
        return None
    return {
        "metric": str(found.get("metric") or "accuracy"),
        "n_seeds": found.get("n_seeds"),
        "shares": list(shares),
        "curves": curves,
    }


def _fits(values: object, shares: Sequence[float]) -> bool:
    """Tell whether there is one number a share."""
    return (
        isinstance(values, Sequence)
        and len(values) == len(shares)
        and all(isinstance(value, int | float) for value in values)
    )
