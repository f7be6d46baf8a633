"""Which labels to look at: the list of suspects of a run, by its own estimate or by given probabilities."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd

from lsi.analysis.label_noise import (
    LabelNoise,
    check_limits,
    count_interval,
    doubtful_order,
    label_noise,
    noise_frame,
)
from lsi.analysis.several_labels import noise_of_labels, wrong_labels
from lsi.analysis.targets import noise_of_targets, wrong_targets
from lsi.analysis.view import need_classes, suggested_labels, wrong_probability
from lsi.errors import InputError
from lsi.results.table import ScoreTable

Table = TypeVar("Table", bound=ScoreTable)
TOP = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


def mislabeled(
    scores: ScoreTable, fdr: float | None = None, top: int | None = None, pred_probs: Any = None
) -> pd.DataFrame:
    """Return one row per sample, the label that is most likely wrong first."""
    check_limits(fdr, top)
    if pred_probs is not None:
        scores = with_probabilities(scores, pred_probs)
    table = scores.to_frame()
    if scores.task == "regression":
        frame = wrong_targets(table, scores.manifest["outputs"], fdr)
        return frame if top is None else frame.head(top)
    if scores.task == "multilabel":
        frame = wrong_labels(table, scores.manifest["outputs"], fdr)
        return frame if top is None else frame.head(top)
    wrong = wrong_probability(table)[0]
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "suggested_label": pd.Series(suggested_labels(table), dtype=object),
            "wrong_probability": wrong,
            "lsi": table["lsi"],
            **{name: table[name] for name in ("loo_prediction", "flip_gain") if name in table},
        }
    )
    at_least = table["wrong_at_least"].to_numpy() if "wrong_at_least" in table else wrong
    by_score = np.argsort(-table["lsi"].to_numpy(), kind="stable")  # between equals the larger score is first
    order = by_score[doubtful_order(wrong[by_score], at_least[by_score], fdr)]
    frame = frame.iloc[order if top is None else order[: int(top)]]
    return frame.sort_values(["wrong_probability", "lsi"], ascending=False, ignore_index=True)


def with_probabilities(scores: Table, pred_probs: Any) -> Table:
    """Return scores with the estimate from out-of-sample probabilities in place of the run's own.

    Rows of `pred_probs` are the scored samples, or all samples of the data; columns are `scores.classes`.
    """
    need_classes(scores.task, "pred_probs")
    table = scores.to_frame()
    total, shape = scores.manifest["data"]["n_samples"], np.shape(pred_probs)
    if len(shape) == 2 and shape[0] not in (len(table), total):
        raise InputError(
            f"pred_probs has {shape[0]:,} rows; pass one for each of the {len(table):,} scored samples, or "
            f"of all {total:,}."
        )
    if len(shape) == 2 and shape[0] != len(table):
        pred_probs = np.asarray(pred_probs)[table["position"].to_numpy()]
    classes = np.asarray(scores.classes, dtype=object)
    found = label_noise(pred_probs, table["label"].to_numpy(), classes=classes)
    out = scores.with_table(
        table.drop(columns="flip_gain", errors="ignore").assign(
            wrong_probability=found.wrong_probability,
            wrong_at_least=found.at_least,
            wrong_at_most=found.at_most,
            suggested_label=pd.Series(found.suggested.tolist(), index=table.index),
        )
    )
    out.manifest["label_noise"] = noise_entry(found)
    return out


def noise_entry(found: LabelNoise) -> dict[str, Any]:
    """Return the manifest's entry about the labels of a table, as JSON values."""
    wrong, at_least, at_most = found.wrong_probability, found.at_least, found.at_most
    order = np.argsort(-wrong, kind="stable")
    tops = []
    for n in sorted({n for n in TOP if n < len(order)} | {len(order)}):
        rows = order[:n]
        low, high = count_interval(wrong[rows], at_least[rows], at_most[rows])
        tops.append({"n": n, "wrong": float(wrong[rows].sum()), "low": low, "high": high})
    return {
        "n_wrong": found.n_wrong,
        "interval": list(found.interval),
        "kind": "conditional: row true class, column given label, rows sum to one",
        "noise_matrix": found.noise_matrix.to_numpy().tolist(),
        "top": tops,
    }


def label_noise_of(scores: ScoreTable) -> LabelNoise:
    """Return what a run estimated about its labels."""
    entry, table = scores.manifest.get("label_noise"), scores.to_frame()
    if scores.task in ("regression", "multilabel"):
        outputs = scores.manifest.get("outputs")
        if not outputs:
            raise InputError("the manifest of these scores names no outputs. Score the data again.")
        found = noise_of_targets if scores.task == "regression" else noise_of_labels
        return found(table, outputs)
    if not entry or "wrong_probability" not in table:
        raise InputError(
            "these scores hold no estimate of label noise. Score again with lsi.score(..., "
            "label_noise=True); scores.mislabeled() ranks labels without it."
        )
    wrong = table["wrong_probability"].to_numpy()
    # Scores of older versions have no ends: everything is possible.
    at_least = table["wrong_at_least"].to_numpy() if "wrong_at_least" in table else np.zeros_like(wrong)
    at_most = table["wrong_at_most"].to_numpy() if "wrong_at_most" in table else np.ones_like(wrong)
    known = entry.get("interval")
    interval = (known[0], known[1]) if known else count_interval(wrong, at_least, at_most)
    matrix = noise_frame(entry["noise_matrix"], scores.classes)
    suggested = table["suggested_label"].to_numpy()
    return LabelNoise(float(entry["n_wrong"]), interval, matrix, wrong, suggested, at_least, at_most)
