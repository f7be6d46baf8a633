"""Drawings of scores with matplotlib, for notebooks and papers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsi.errors import InputError, nearest
from lsi.report.labels import class_namer, natural
from lsi.results.table import ScoreTable
from lsi.system.versions import install_hint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("distribution", "classes")
MOST_CLASSES = 40
"""Most classes that are drawn; those with the highest median come first."""
_BLUE, _ORANGE, _INK = "#2f62c4", "#c8501e", "#566070"
_BINS = 48


def plot(scores: ScoreTable, kind: str = "distribution", ax: Axes | None = None) -> Axes:
    """Draw scores."""
    if kind not in KINDS:
        raise InputError(f"there is no plot {kind!r}. {nearest(kind, KINDS)}")
    if find_spec("matplotlib") is None:
        raise InputError(f"plots need matplotlib. Install it: {install_hint('plot')}.")
    frame = scores.to_frame()
    frame = frame[np.isfinite(frame["lsi"]) & (frame["lsi"] > 0)]
    if frame.empty:
        raise InputError("no score is positive and finite, so there is nothing to draw. Look at scores.lsi.")
    if kind == "distribution":
        return _distribution(frame, _axes(ax, (7.0, 3.6)))
    if not scores.has_classes:
        raise InputError(
            f"this run is about {scores.task}, which has no classes. "
            'Draw scores.plot("distribution") instead.'
        )
    return _classes(scores, frame, ax)


def _distribution(frame: pd.DataFrame, ax: Axes) -> Axes:
    values = frame["lsi"].to_numpy(dtype=np.float64)
    values = values[values > values.max() * 1e-14]
    low, high = np.log10(values.min()), np.log10(values.max())
    edges = np.logspace(low, high if high > low else low + 1, _BINS + 1)
    edges[0], edges[-1] = values.min(), max(values.max(), edges[-1])
    ax.hist(values, edges.tolist(), color=_BLUE, rwidth=0.9, label="clean")
    if "corrupted" in frame and frame["corrupted"].any():
        planted = frame.loc[frame["corrupted"].astype(bool), "lsi"].to_numpy(dtype=np.float64)
        ax.hist(planted, edges.tolist(), color=_ORANGE, rwidth=0.9, label="planted error")
        ax.legend(frameon=False)
    ax.axvline(float(np.median(values)), color=_INK, linestyle="--", linewidth=1)
    ax.set(xscale="log", xlabel="LSI (nats); dashed: median", ylabel="Samples")
    return _tidy(ax)


def _classes(scores: ScoreTable, frame: pd.DataFrame, ax: Axes | None) -> Axes:
    name = class_namer(scores)
    grouped = frame["lsi"].groupby([name(label) for label in frame["label"]])
    groups = {str(text): values.to_numpy(dtype=np.float64) for text, values in grouped}
    order = sorted(groups, key=lambda text: (-np.median(groups[text]), natural(text)))
    shown = order[:MOST_CLASSES][::-1]
    ax = _axes(ax, (7.0, 1.2 + 0.28 * len(shown)))
    style: dict[str, Any] = {"color": _BLUE, "linewidth": 1}
    ax.boxplot(
        [groups[text] for text in shown],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": _BLUE + "55", "edgecolor": _BLUE},
        whiskerprops=style,
        capprops=style,
        medianprops={"color": "black", "linewidth": 1.5},
    )
    # Labels are foreign text: a pair of $ must not become mathematics.
    ax.set_yticks(range(1, len(shown) + 1), [text.replace("$", r"\$") for text in shown])
    ax.set(xscale="log", xlabel="LSI (nats); lines from the lowest to the highest 5 %")
    return _tidy(ax)


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _tidy(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax
