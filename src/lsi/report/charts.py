"""Geometry of the page's drawings: turns values of the summary into percentages of the drawing's box.

The template draws shapes in a stretched SVG and sets all text as HTML, so that letters keep their
size on any screen. ``y`` grows downwards, as in SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lsi.report.format import number

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MAX_TICKS = 7
_BOX = ("low", "left", "middle", "right", "high")


def histogram(distribution: dict[str, Any]) -> dict[str, Any]:
    """Lay out the histogram of LSI on a logarithmic axis."""
    edges = distribution["log10_edges"]
    counts = distribution["counts"]
    planted = distribution["planted"] or [0] * len(counts)
    low, span = edges[0], edges[-1] - edges[0]
    largest = max(counts) or 1
    bars = []
    for left, right, count, wrong in zip(edges[:-1], edges[1:], counts, planted, strict=True):
        if not count:
            continue
        text = f"{number(10**left)} to {number(10**right)} nats: {count:,} samples"
        bars.append(
            {
                "x": 100 * (left - low) / span,
                "width": 100 * (right - left) / span,
                "height": 100 * count / largest,
                "planted": 100 * wrong / largest,
                "text": text + (f", {wrong:,} of them planted errors" if wrong else ""),
            }
        )
    median = distribution["quantiles"]["0.5"]
    place = 100 * (math.log10(median) - low) / span if median and median > 0 else 0.0
    return {"bars": bars, "ticks": decades(low, edges[-1]), "median": max(0.0, place), "largest": largest}


def decades(low: float, high: float) -> list[dict[str, Any]]:
    """Return ticks at whole powers of ten, at most seven of them."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    step = max(1, math.ceil((last - first + 1) / _MAX_TICKS))
    return [
        {"x": 100 * (exponent - low) / (high - low), "text": power(exponent)}
        for exponent in range(first, last + 1, step)
    ]


def power(exponent: int) -> str:
    """Return a power of ten as text.

    Examples:
        >>> power(-1), power(3), power(-5)
        ('0.1', '1,000', '10⁻⁵')
    """
    if -2 <= exponent <= 3:
        return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def detection_curve(curve: list[list[float]]) -> dict[str, str]:
    """Lay out the share of planted errors found against the share of samples inspected."""
    points = [f"{100 * x:.2f} {100 - 100 * y:.2f}" for x, y in curve]
    line = "M" + " L".join(points)
    return {"line": line, "area": f"{line} L100 100 L0 100 Z"}


def audit_scatter(pairs: list[list[float]]) -> dict[str, Any] | None:
    """Lay out reported against exact LSI, both axes logarithmic."""
    logs = [(math.log10(a), math.log10(b)) for a, b in pairs if a and b and a > 0 and b > 0]
    if len(logs) < 2:
        return None
    values = [value for pair in logs for value in pair]
    low, high = math.floor(min(values)), math.ceil(max(values))
    high = max(high, low + 1)
    points = [
        {"x": 100 * (a - low) / (high - low), "y": 100 - 100 * (b - low) / (high - low)} for a, b in logs
    ]
    ticks = decades(low, high)
    return {"points": points, "ticks": ticks if len(ticks) <= 4 else [*ticks[:: len(ticks) // 3]]}


def boxes(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Lay out one box plot per class on a common logarithmic axis."""
    values = [value for row in classes for value in row["quantiles"]]
    top = max(values, default=0.0)
    logs = [math.log10(value) for value in values if value > top * 1e-14]
    if not logs:
        return {"rows": [None] * len(classes), "ticks": []}
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low) if value > top * 1e-14 else 0.0

    rows = [dict(zip(_BOX, map(place, row["quantiles"]), strict=True)) for row in classes]
    return {"rows": rows, "ticks": decades(low, high)}


def curves(found: dict[str, Any]) -> dict[str, Any]:
    """Lay out curation curves: a metric against the share of samples kept."""
    shares = found["shares"]
    left, right = min(shares), max(shares)
    seen = [value for curve in found["curves"] for key in ("low", "high") for value in curve[key]]
    step = _round_step(max(seen) - min(seen))
    low, high = step * math.floor(min(seen) / step), step * math.ceil(max(seen) / step)
    high = max(high, low + step)

    def points(values: list[float]) -> list[str]:
        xs = [100 * (share - left) / (right - left) for share in shares]
        return [
            f"{x:.2f} {100 - 100 * (y - low) / (high - low):.2f}" for x, y in zip(xs, values, strict=True)
        ]

    lines = [
        {
            "name": curve["name"],
            "line": "M" + " L".join(points(curve["mean"])),
            "band": "M" + " L".join(points(curve["high"]) + points(curve["low"])[::-1]) + "Z",
        }
        for curve in found["curves"]
    ]
    count = round((high - low) / step)
    up = [{"y": 100 - 100 * k / count, "text": f"{low + k * step:.4g}"} for k in range(count + 1)]
    across = [
        {"x": 100 * (share - left) / (right - left), "text": f"{100 * share:.3g}\u202f%"} for share in shares
    ]
    return {"curves": lines, "up": up, "across": _thinned(across)}


def _round_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, whichever cuts `span` into about four parts."""
    rough = max(span, 1e-6) / 4
    power_of_ten = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power_of_ten for factor in (1, 2, 5, 10) if factor * power_of_ten >= rough)


def _thinned(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out ticks that are closer than a tenth of the axis to the one before."""
    kept: list[dict[str, Any]] = []
    for entry in sorted(ticks, key=lambda tick: tick["x"]):
        if not kept or entry["x"] - kept[-1]["x"] >= 10:
            kept.append(entry)
    return kept


def shade(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return how strongly to colour each count of a matrix, from 0 to 1."""
    largest = max((count for row in matrix for count in row), default=0) or 1
    return [[math.sqrt(count / largest) for count in row] for row in matrix]
