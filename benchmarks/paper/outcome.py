"""What an experiment returns, and how it is written: JSON, a table in Markdown, a plot."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

STRONG, WEAK, OTHER = "#1f4e79", "#9fb8d0", "#c8553d"
"""Colours of the plots: what is asked about, what it is compared with, what is known to be wrong."""


@dataclass
class Outcome:
    """One experiment's result.

    Attributes:
        claim: What the paper says, in a sentence.
        settings: Data, sizes and protocol.
        figures: The numbers that the claim stands or falls with.
        rows: The table.
        draw: Draws the plot into an empty matplotlib figure.
        size: Width and height of the plot in inches.
    """

    claim: str
    settings: dict
    figures: dict
    rows: list
    draw: Callable
    size: tuple = (7.0, 4.0)
    notes: list = field(default_factory=list)


def write(name, outcome, seconds, folder):
    """Write `NAME.json`, `NAME.md` and `NAME.png` into the folder; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "experiment": name,
        "claim": outcome.claim,
        "settings": outcome.settings,
        "figures": outcome.figures,
        "rows": outcome.rows,
        "notes": outcome.notes,
        "cpu_seconds": round(seconds, 1),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1, default=_plain, allow_nan=False))
    text = markdown(name, outcome, seconds)
    (folder / f"{name}.md").write_text(text)
    figure = _figure(outcome.size)
    outcome.draw(figure)
    figure.savefig(folder / f"{name}.png", dpi=80)
    return text


def markdown(name, outcome, seconds):
    """Return the experiment as a page: claim, settings, figures, table."""
    lines = [f"# {name}", "", outcome.claim, ""]
    lines += [f"- {key}: {cell(value)}" for key, value in outcome.settings.items()]
    lines += ["", *(f"- **{key}**: {cell(value)}" for key, value in outcome.figures.items()), ""]
    columns = list(dict.fromkeys(key for row in outcome.rows for key in row))
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(key)) for key in columns) + " |" for row in outcome.rows]
    lines += ["", *outcome.notes, f"{seconds:.0f} processor seconds.", ""]
    return "\n".join(lines)


def cell(value):
    """Return a value as the text of a table's cell."""
    if value is None:
        return ""
    if isinstance(value, dict) and set(value) == {"mean", "low", "high"}:
        return f"{cell(value['mean'])} ({cell(value['low'])}–{cell(value['high'])})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(entry) for entry in value)
    if isinstance(value, float | np.floating):
        return f"{value:.3g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.3f}"
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _figure(size):
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return Figure(figsize=size, layout="constrained")


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
