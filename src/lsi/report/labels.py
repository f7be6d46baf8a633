"""Labels as text, whatever the task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lsi.analysis.view import is_missing
from lsi.data import Samples
from lsi.report.format import number
from lsi.results.table import ScoreTable
from lsi.system.text import plain_text


def class_namer(scores: ScoreTable, samples: Samples | None = None) -> Callable[[object], str]:
    """Return the function that turns a label into the text to show."""
    names = dict(scores.manifest.get("class_names") or {})
    numeric = scores.task == "regression"
    if samples is not None and samples.class_names:
        names |= {str(label): text for label, text in samples.class_names.items()}

    def name(label: object) -> str:
        if is_missing(label):
            return "–"
        if numeric and isinstance(label, float | np.floating):
            return number(float(label))
        return plain_text(names.get(str(label), label))

    return name


def natural(text: str) -> tuple[bool, float, str]:
    """Return a sort key that orders texts as people do: whole numbers first, by value.

    Examples:
        >>> sorted(["cat", "10", "9"], key=natural)
        ['9', '10', 'cat']
    """
    return (False, float(text), "") if text.isascii() and text.isdigit() else (True, 0.0, text)
