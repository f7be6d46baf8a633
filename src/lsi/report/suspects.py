"""Which labels look wrong, read once from the score table for the page's figures and its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import suggested_labels, wrong_probability
from lsi.report.labels import natural
from lsi.system.text import plain_text

MOST_MATRIX_CLASSES = 20
"""Most classes for which suggestions are drawn as a matrix; with more, the most frequent pairs are listed."""
MOST_PAIRS = 24
"""Most pairs that are listed."""
MOST_LISTED = 30
"""Most suspects that are listed in print and where no script runs."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """What a table says about wrong labels.

    Attributes:
        wrong_probability: ``(n,)`` probability that the given label is wrong; NaN where unknown.
        suggested: ``(n,)`` suggested labels; None where there is none or it is the given one.
        rows: Rows that are more likely wrong than right and have a suggestion, worst first.
        estimated: Whether the run estimated the probabilities.
    """

    wrong_probability: np.ndarray
    suggested: np.ndarray
    rows: np.ndarray
    estimated: bool


def find_suspects(frame: pd.DataFrame) -> Suspects:
    """Return the labels of a table that are probably wrong."""
    (probability, estimated), suggested = wrong_probability(frame), suggested_labels(frame)
    order = np.lexsort((-frame["lsi"].to_numpy(), -np.nan_to_num(probability, nan=-1.0)))
    likely = np.array([label is not None for label in suggested]) & (probability >= 0.5)
    return Suspects(probability, suggested, order[likely[order]], estimated)


def suspects_summary(
    frame: pd.DataFrame, found: Suspects, manifest: Mapping[str, Any], name: Callable[[object], str]
) -> dict[str, Any]:
    """Return the figures about suspected labels that a page shows."""
    noise = manifest.get("label_noise")
    noise = noise if isinstance(noise, Mapping) else {}
    given = [name(label) for label in frame["label"].iloc[found.rows]]
    suggested = [name(label) for label in found.suggested[found.rows]]
    counts = Counter(zip(given, suggested, strict=True))
    names = sorted({*given, *suggested}, key=natural)
    first = zip(found.rows[:MOST_LISTED], given, suggested, strict=False)
    return {
        "n": len(found.rows),
        "estimated": found.estimated,
        "n_wrong": noise.get("n_wrong"),
        "interval": noise.get("interval"),
        "top": [entry for entry in noise.get("top") or [] if {"n", "wrong"} <= set(entry)],
        "pairs": [{"given": a, "suggested": b, "n": n} for (a, b), n in counts.most_common(MOST_PAIRS)],
        "matrix": _matrix(counts, names) if 2 < len(names) <= MOST_MATRIX_CLASSES else None,
        "noise": _noise(noise.get("noise_matrix"), [name(label) for label in manifest.get("classes") or []]),
        "rows": [
            {
                "sample_id": plain_text(frame["sample_id"].iloc[row]),
                "label": old,
                "suggested_label": new,
                "wrong_probability": found.wrong_probability[row],
                "lsi": frame["lsi"].iloc[row],
            }
            for row, old, new in first
        ],
    }


def _matrix(counts: Counter[tuple[str, str]], names: list[str]) -> dict[str, Any]:
    """Return counts of given (rows) against suggested label (columns)."""
    return {"classes": names, "counts": [[counts[a, b] for b in names] for a in names]}


def _noise(matrix: object, names: list[str]) -> dict[str, Any] | None:
    """Return an estimated noise matrix with rows that sum to one; None where there is none to show."""
    try:
        counts = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if not 2 <= len(names) <= MOST_MATRIX_CLASSES or counts.shape != (len(names), len(names)):
        return None
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts.sum(axis=1) <= 0).any():
        return None
    return {"classes": names, "shares": counts / counts.sum(axis=1, keepdims=True)}
