"""The findings of a report as plain data: one summary feeds the page and the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis import detection_quality
from lsi.analysis.mislabeled import label_noise_of
from lsi.data import Samples
from lsi.errors import InputError
from lsi.report.cards import CardMaker
from lsi.report.errors import Validation, validation_summary
from lsi.report.findings import class_rows, curation, feature_check, groups, redundancy, weight_decay
from lsi.report.labels import class_namer
from lsi.report.suspects import find_suspects, suspects_summary
from lsi.results.marks import REPORT, Mark
from lsi.results.table import ScoreTable, json_value
from lsi.system.text import plain_text

GALLERY_SIZE = 24
"""Samples shown at each end of the distribution."""
N_BINS = 48
"""Bars of the histogram."""
CURVE_POINTS = 200
"""Most points of the detection curve."""
AUDIT_POINTS = 200
"""Most points of the audit's scatter plot."""


def summarize(
    scores: ScoreTable,
    samples: Samples | None = None,
    *,
    gallery_size: int = GALLERY_SIZE,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """Reduce scores to what a reader wants to know.

    Args:
        scores: The result of a run.
        samples: The data that were scored, for pictures, features and class names. Optional.
        gallery_size: Most samples shown at each end of the distribution.
        validation: Errors on validation rows, and the samples that caused them. Optional.

    Returns:
        JSON values only, under ``title``, ``run``, ``task``, ``overview``, ``detection``,
        ``distribution``, ``suspects``, ``noise``, ``classes``, ``groups``, ``validation``, ``gallery``,
        ``redundancy``, ``curation``, ``audit``, ``feature_check`` and ``weight_decay``; what a run did not
        have is None, and ``classes`` empty. LSI in nats.

    Raises:
        InputError: If `samples` are not the ones that were scored.
    """
    finite = scores.with_table(scores.to_frame()[np.isfinite(scores.lsi)])
    frame, manifest = finite.to_frame(), scores.manifest
    if frame.empty:
        raise InputError("there is no finite score to report. Run the scores again with --method newton.")
    if samples is not None:
        check_samples(scores, samples)
    name = class_namer(scores, samples)
    summary = {
        "title": plain_text(
            (manifest.get("source") or {}).get("name") or getattr(samples, "name", "") or "scores"
        ),
        "mark": Mark.of(manifest, REPORT).line(),
        "run": _run(manifest, samples),
        "task": scores.task,
        "overview": _overview(finite, len(scores) - len(frame)),
        "detection": _detection(frame, manifest),
        "distribution": _distribution(frame),
        "suspects": suspects_summary(frame, find_suspects(frame), manifest, name)
        if scores.has_classes
        else None,
        "noise": _noise(finite),
        "classes": class_rows(finite, name),
        "groups": groups(manifest),
        "validation": validation_summary(validation, samples, name),
        "gallery": _gallery(frame, CardMaker(finite, samples, name), gallery_size),
        "redundancy": redundancy(frame),
        "curation": curation(manifest),
        "audit": _audit(scores),
        "feature_check": feature_check(manifest),
        "weight_decay": weight_decay(manifest),
    }
    result: dict[str, Any] = json_value(summary)
    return result


def _noise(scores: ScoreTable) -> dict[str, Any] | None:
    """Return how many targets, or samples of several labels, are estimated to be wrong; None for classes."""
    if scores.task not in ("regression", "multilabel"):
        return None
    try:
        found = label_noise_of(scores)
    except InputError:
        return None
    return {"n_wrong": found.n_wrong, "n": len(scores), "interval": list(found.interval)}


def check_samples(scores: ScoreTable, samples: Samples) -> None:
    """Check that the scored rows are rows of `samples`."""
    frame = scores.to_frame()
    positions = frame["position"].to_numpy()
    expected = (scores.manifest.get("data") or {}).get("n_samples", len(samples))
    same = expected == len(samples) and bool((positions < len(samples)).all())
    if same:
        same = [str(i) for i in samples.ids[positions]] == [str(i) for i in frame["sample_id"]]
    if not same:
        raise InputError(
            f"the samples of {samples.name!r} are not the ones that were scored "
            f"({len(samples):,} samples here, {expected:,} there, or other ids). Give the data of that run."
        )
    if samples.features is not None and not np.isfinite(samples.features.sum(axis=0, dtype=np.float64)).all():
        raise InputError(
            f"the features of {samples.name!r} hold NaN or infinity, so they are not the ones that were "
            "scored. Give the data of that run."
        )


def _run(manifest: Mapping[str, Any], samples: Samples | None) -> dict[str, Any]:
    def part(key: str, *names: str) -> dict[str, Any]:
        """Return these entries of a section of the manifest; None for those that it lacks."""
        return {name: (manifest.get(key) or {}).get(name) for name in names}

    return {
        "description": samples.description
        if samples
        else (manifest.get("source") or {}).get("description", ""),
        "data": part("data", "n_samples", "n_features", "n_classes", "fingerprint"),
        "config": part("config", "probe", "posterior", "prior_precision", "method", "seed"),
        "fit": part("fit", "train_accuracy", "gradient_norm"),
        "timings": (manifest.get("timings") or {}),
        "cost": manifest.get("cost", ""),
        "created": manifest.get("created", ""),
        "versions": (manifest.get("versions") or {}),
    }


def _overview(finite: ScoreTable, n_not_finite: int) -> dict[str, Any]:
    """Return counts and the spread of LSI over the samples whose score is finite."""
    values = finite.lsi
    total = values.sum()
    share = np.sort(values)[::-1][: max(1, round(0.1 * len(values)))].sum() / total if total > 0 else math.nan
    return {
        "n_scored": len(finite),
        "n_not_finite": n_not_finite,
        "mean": values.mean(),
        "median": np.median(values),
        "highest": values.max(),
        "lowest": values.min(),
        "share_of_top_tenth": share,
        "n_disagree": finite.disagrees.sum() if finite.has_classes else None,
    }


def _detection(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how well LSI finds the planted errors; None where that cannot be measured."""
    if "corrupted" not in frame or frame["corrupted"].nunique() < 2:
        return None
    truth = frame["corrupted"].to_numpy(dtype=bool)
    order = np.argsort(-frame["lsi"].to_numpy(), kind="stable")
    found = np.cumsum(truth[order])
    n, planted = len(truth), int(truth.sum())
    steps = np.unique(np.linspace(0, n - 1, min(n, CURVE_POINTS)).round().astype(int))
    curve = [[0.0, 0.0], *([(k + 1) / n, found[k] / planted] for k in steps)]
    quality = detection_quality(frame["lsi"].to_numpy(), truth)
    corruption = {
        key: (manifest.get("corruption") or {}).get(key) for key in ("kind", "rate", "seed", "n_corrupted")
    }
    return {**quality, "found_at_n_positive": found[planted - 1], "curve": curve, "corruption": corruption}


def _distribution(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a histogram of log10 LSI; zero and vanishing values are only counted."""
    values = frame["lsi"].to_numpy(dtype=np.float64)
    top = values.max()
    shown = values > max(top * 1e-14, 0.0)
    logs = np.log10(values[shown])
    low, high = (math.floor(logs.min()), math.ceil(logs.max())) if shown.any() else (-1, 0)
    edges = np.linspace(low, max(high, low + 1), N_BINS + 1)
    planted = frame["corrupted"].to_numpy(dtype=bool) if "corrupted" in frame else np.zeros(len(frame), bool)
    return {
        "log10_edges": edges,
        "counts": np.histogram(logs, edges)[0],
        "planted": np.histogram(logs[planted[shown]], edges)[0] if planted.any() else None,
        "n_vanishing": (~shown).sum(),
        "quantiles": {str(q): np.quantile(values, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
    }


def _gallery(frame: pd.DataFrame, make: CardMaker, limit: int) -> dict[str, Any]:
    """Return cards for both ends of the distribution; they never overlap."""
    order = np.argsort(-frame["lsi"].to_numpy(), kind="stable")
    size = min(limit, math.ceil(len(order) / 2))
    rest = min(limit, len(order) - size)
    return {
        "kind": make.kind,
        "highest": [make(row, rank) for rank, row in enumerate(order[:size], start=1)],
        "lowest": [make(row, len(order) - k) for k, row in enumerate(order[::-1][:rest])],
    }


def _audit(scores: ScoreTable) -> dict[str, Any] | None:
    """Return the audit's figures, and pairs of exact and reported LSI."""
    if scores.audit is None:
        return None
    figures = dataclasses.asdict(scores.audit)
    pairs = list(zip(figures["exact"], figures["approximate"], strict=True))
    for name in ("positions", "exact", "approximate", "certificate"):
        del figures[name]
    figures |= {"broken": scores.audit.broken, "alarm": scores.audit.alarm()}
    return {**figures, "n": len(pairs), "pairs": pairs[:AUDIT_POINTS]}
