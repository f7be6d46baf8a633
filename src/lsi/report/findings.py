"""Parts of a summary that only some runs have: classes, redundancy groups, curves of a curation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lsi.results.table import ScoreTable
from lsi.system.text import plain_text

_BOX = (0.05, 0.25, 0.5, 0.75, 0.95)


def class_rows(scores: ScoreTable, name: Callable[[object], str]) -> list[dict[str, Any]]:
    """Return one entry for each class name, highest mean LSI first; empty without classes."""
    if not scores.has_classes:
        return []
    frame = scores.to_frame().assign(_disagrees=scores.disagrees)
    names = [name(label) for label in frame["label"]]
    rows = []
    for label, group in frame.groupby(names, sort=False):
        values = group["lsi"].to_numpy(dtype=np.float64)
        rows.append(
            {
                "label": label,
                "n": len(group),
                "mean": values.mean(),
                "median": np.median(values),
                "highest": values.max(),
                "quantiles": np.quantile(values, _BOX),
                "n_disagree": group["_disagrees"].sum(),
                "n_planted": group["corrupted"].sum() if "corrupted" in group else None,
            }
        )
    return sorted(rows, key=lambda row: -row["mean"])


MOST = 0.5
"""What “most of” means: more than half. Measured on digits: interaction is 10 to 38 % of the LSI of random
groups of 128, and 67 to 85 % where the rows of a group are of one hand (docs/how-to/groups.md)."""


def groups(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the groups that a run left out, worth the most for each sample first; None for a run without.

    `finding` says what a person wants to know of a group: `"others"`, its samples say what others say (one is
    worth less than half of the median over all groups); `"together"`, most of its worth shows only when all
    its samples leave (their own LSI add up to less than half of it); `"single"`, most of what its samples are
    worth one by one cancels; or None.
    """
    rows = manifest.get("groups")
    if not rows:
        return None
    middle = float(np.median([row["lsi_per_row"] for row in rows]))
    found = [{**row, "group": plain_text(row["group"], 80), "finding": _finding(row, middle)} for row in rows]
    found.sort(key=lambda row: -row["lsi_per_row"])
    source = (manifest.get("source") or {}).get("options") or {}
    return {"column": source.get("group_column"), "median": middle, "rows": found}


def _finding(row: Mapping[str, Any], middle: float) -> str | None:
    """Return what stands out about a group; `middle` is the median over all groups of the LSI a sample."""
    error, interaction = row["relative_error"], row["interaction"]
    if error is None or error >= MOST:
        return None
    if row["lsi_per_row"] < MOST * middle:
        return "others"
    if interaction is None or row["n"] == 1:
        return None
    alone = row["lsi"] - interaction
    if alone < MOST * row["lsi"]:
        return "together"
    return "single" if row["lsi"] < MOST * alone else None


def redundancy(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Count the redundancy groups, the samples in them and the largest; None where none were asked for."""
    if "redundancy_group" not in frame:
        return None
    groups = frame["redundancy_group"].fillna(-1).to_numpy(dtype=np.int64)
    _, sizes = np.unique(groups[groups >= 0], return_counts=True)
    return {"n_groups": len(sizes), "n_samples": sizes.sum(), "largest": sizes.max(initial=0)}


def curation(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the curves of a curation that can be drawn; None where there are none."""
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
    """Return whether there is one number for each share."""
    return (
        isinstance(values, Sequence)
        and len(values) == len(shares)
        and all(isinstance(value, int | float) for value in values)
    )


def feature_check(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return whether the features know the target; None for a run that did not check it."""
    found = manifest.get("feature_check")
    if not isinstance(found, Mapping) or found.get("verdict") not in ("good", "part", "none"):
        return None
    figures = {name: value for name, value in found.items() if isinstance(value, int | float)}
    needed = {"loo_r_squared"} if "loo_r_squared" in figures else {"loo_accuracy", "majority"}
    if not needed <= set(figures) or not _fits(found.get("interval"), (0, 0)):
        return None
    train = (manifest.get("fit") or {}).get("train_accuracy")
    probe = (manifest.get("config") or {}).get("probe") or {}
    return {
        **figures,
        "verdict": found["verdict"],
        "interval": list(found["interval"]),
        "train_accuracy": train if isinstance(train, int | float) else None,
        "chosen_decay": "weight_decay" in manifest,
        "linear": isinstance(probe, Mapping) and probe.get("kind") in ("linear", "sigmoid"),
    }


def weight_decay(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the weight decay that a run chose, and the likelihoods it was chosen from; None for others."""
    found = manifest.get("weight_decay")
    curve = found.get("curve") if isinstance(found, Mapping) else None
    if not isinstance(curve, Sequence) or not curve or not all(_fits(pair, (0, 0)) for pair in curve):
        return None
    assert isinstance(found, Mapping)
    whole, n = bool(found.get("whole", True)), found.get("n_samples")
    return {
        "chosen": max(curve, key=lambda pair: pair[1])[0],
        "curve": [list(pair) for pair in curve],
        "n_samples": n if isinstance(n, int) and not whole else None,
    }
