"""Scores as a notebook shows them: a few lines, a small histogram, both ends of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from lsi.report.format import number, percent
from lsi.report.labels import class_namer
from lsi.results.table import ScoreTable
from lsi.system.text import plain_text

ROWS = 5
"""Samples shown at each end."""
_BINS, _WIDTH, _HEIGHT = 40, 480, 90
_TITLES = ("Sample", "Given", "Likely", "LSI (nats)", "P(given)")
_CELL = 'style="text-align:left;padding:.15em 1em .15em 0"'


def notebook_html(scores: ScoreTable) -> str:
    """Return HTML for the output of a notebook cell.

    It takes the notebook's own colours (``currentColor``), so it reads in light and dark themes. It runs no
    script and loads nothing.
    """
    first, *rest = (escape(line.strip()) for line in repr(scores).splitlines())
    parts = [f"<p><strong>{first}</strong><br/>{'<br/>'.join(rest)}</p>", _histogram(scores.lsi)]
    if len(scores):
        parts.append(_table("Highest LSI", scores.top(ROWS), scores))
        parts.append(_table("Lowest LSI", scores.bottom(ROWS), scores))
    return f'<div style="max-width:44em">{"".join(parts)}</div>'


def _histogram(values: np.ndarray) -> str:
    """Return an SVG histogram on a logarithmic axis; empty where fewer than two values are positive."""
    values = values[np.isfinite(values)]
    values = values[values > max(values.max(initial=0.0) * 1e-14, 0.0)]
    if len(values) < 2:
        return ""
    counts, edges = np.histogram(np.log10(values), _BINS)
    step, largest = _WIDTH / _BINS, counts.max()
    bars = "".join(
        f'<rect x="{k * step:.1f}" y="{_HEIGHT * (1 - n / largest):.1f}" width="{step - 1:.1f}" '
        f'height="{_HEIGHT * n / largest:.1f}"/>'
        for k, n in enumerate(counts)
        if n
    )
    low, high = (escape(number(10**edge)) for edge in (edges[0], edges[-1]))
    label = f"Histogram of LSI on a logarithmic axis from {low} to {high} nats"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" style="max-width:{_WIDTH}px" role="img" '
        f'aria-label="{label}" fill="currentColor" fill-opacity="0.6">{bars}</svg>'
        f'<p style="max-width:{_WIDTH}px;display:flex;justify-content:space-between;margin:0">'
        f"<small>{low}</small><small>LSI in nats, logarithmic</small><small>{high}</small></p>"
    )


def _table(title: str, frame: pd.DataFrame, scores: ScoreTable) -> str:
    head = "".join(f'<th scope="col" {_CELL}>{text}</th>' for text in _TITLES)
    name = class_namer(scores)
    rows = "".join(_row(row, name) for row in frame.to_dict("records"))
    caption = f"<caption {_CELL}>{title}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(row: Mapping[Any, Any], name: Callable[[object], str]) -> str:
    texts = (
        plain_text(row["sample_id"]),
        name(row["label"]),
        name(row["loo_prediction"]),
        number(row["lsi"]),
        percent(row["loo_probability"]),
    )
    return "<tr>" + "".join(f"<td {_CELL}>{escape(text)}</td>" for text in texts) + "</tr>"
