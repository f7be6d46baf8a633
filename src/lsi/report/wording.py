"""Findings as sentences, for the page and the terminal alike."""

from __future__ import annotations

import math
from typing import Any

from lsi.report.format import duration, number, percent
from lsi.text import plain_text


def sentences(summary: dict[str, Any]) -> dict[str, str]:
    """Return every sentence that a report needs.

    Args:
        summary: What `lsi.report.summarize` returns.

    Returns:
        Plain text by topic; an empty string where there is nothing to say.
    """
    return {
        "scored": scored(summary),
        "spread": spread(summary["overview"]),
        "verdict": verdict(summary["audit"])[0],
        "audit": audit(summary["audit"]),
        "detection": detection(summary["detection"]),
    }


def scored(summary: dict[str, Any]) -> str:
    """Say what was scored and how long it took."""
    data, n = summary["run"]["data"], summary["overview"]["n_scored"]
    total = data["n_samples"] or n
    which = f"All {total:,}" if n == total else f"{n:,} of {total:,}"
    timings = summary["run"]["timings"]
    seconds = timings.get("total") or sum(timings.values())
    took = f" The computation took {duration(seconds)}." if seconds else ""
    classes, features = data["n_classes"], data["n_features"]
    shape = f" in {classes} classes, with {features:,} features," if classes and features else ""
    return f"{which} samples{shape} were left out in turn to see what each one tells the model.{took}"


def spread(overview: dict[str, Any]) -> str:
    """Say how unequally information is spread."""
    share = overview["share_of_top_tenth"]
    if share is None:
        return "No sample carries measurable information."
    return (
        f"Half of the samples carry less than {number(overview['median'])} nats; "
        f"the tenth with the highest values holds {percent(share)} of all the information."
    )


def verdict(audit: dict[str, Any] | None) -> tuple[str, str]:
    """Judge the audit in one line.

    Args:
        audit: The summary's ``audit``.

    Returns:
        The line, and its level: ``good``, ``fair``, ``poor`` or ``none``.
    """
    if not audit or not audit["n"]:
        return "This run was not audited.", "none"
    rank, middle = audit["spearman"], audit["median_relative_error"]
    if rank is None or middle is None:
        return "The audit has too few distinct values to judge.", "none"
    if rank >= 0.99 and middle <= 0.02:
        return "The values and their order can be trusted.", "good"
    if rank >= 0.95:
        return "The order can be trusted; single values are approximate.", "fair"
    return "Treat these values with care: the approximation is rough here.", "poor"


def audit(audit: dict[str, Any] | None) -> str:
    """Say what the audit did and measured."""
    if not audit or not audit["n"]:
        return "No sample was left out again by brute force to check the result."
    text = (
        f"{audit['n']} samples, drawn at random, were left out again by brute force. "
        f"Half of the reported values are within {percent(audit['median_relative_error'])} of the exact "
        f"ones, 95\u202f% within {percent(audit['p95_relative_error'])}, "
        f"the worst is off by {percent(audit['max_relative_error'])}."
    )
    if audit["spearman"] is not None:
        text += f" Rank correlation (Spearman): {correlation(audit['spearman'])}."
    return text


def detection(found: dict[str, Any] | None) -> str:
    """Say how well LSI finds the errors that are known."""
    if not found:
        return ""
    planted, hits = found["n_positive"], found["found_at_n_positive"]
    kind = found.get("kind")
    what = f"{planted:,} labels were changed on purpose before training."
    if kind not in (None, "symmetric", "pairwise", "transition"):
        what = f"{planted:,} samples carry a known error ({plain_text(kind)})."
    return (
        f"{what} "
        f"Looking at the {planted:,} samples with the highest LSI finds {hits:,} of them "
        f"({percent(hits / planted)})."
    )


def correlation(value: float) -> str:
    """Return a correlation rounded down, so that only a perfect one reads as 1.

    Args:
        value: From −1 to 1.

    Returns:
        Four decimals.

    Examples:
        >>> correlation(0.99999), correlation(1.0 - 1e-15)
        ('0.9999', '1.0000')
    """
    return f"{math.floor(value * 10_000 + 1e-6) / 10_000:.4f}"
