"""Labels as text, whatever the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lsi.data import Samples
from lsi.report.format import number
from lsi.system.text import plain_text


def task_of(manifest: Mapping[str, Any]) -> str:
    """Return what a run was about.

    Args:
        manifest: The run's manifest.

    Returns:
        ``classification`` where the manifest says nothing else.
    """
    return str(manifest.get("task") or "classification")


def has_classes(manifest: Mapping[str, Any]) -> bool:
    """Tell whether every sample of a run belongs to one class."""
    return task_of(manifest) == "classification"


def class_namer(manifest: Mapping[str, Any], samples: Samples | None) -> Callable[[object], str]:
    """Return the function that turns a label into the text to show."""
    names = dict(manifest.get("class_names") or {})
    numeric = task_of(manifest) == "regression"
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
    """Return the key that orders texts as people do: whole numbers by value, before all others.

    Examples:
        >>> sorted(["cat", "10", "9"], key=natural)
        ['9', '10', 'cat']
    """
    return (False, float(text), "") if text.isascii() and text.isdigit() else (True, 0.0, text)


def is_missing(value: object) -> bool:
    """Tell whether a table's entry stands for "none".

    Examples:
        >>> is_missing(None), is_missing(float("nan")), is_missing("nan"), is_missing(0)
        (True, True, False, False)
    """
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
