"""What changes would do to a dataset, class by class, before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lsi.data import Samples

MOST = 20
"""Most classes that are shown: those that change most."""
_MOST_VALUES = 1000  # more different labels than this are numbers rather than classes


def class_counts(
    labels: np.ndarray, keep: np.ndarray, changed: Mapping[int, Any]
) -> dict[Any, dict[str, int]]:
    """Return for each class how many samples it has before and after, and what happens between.

    Shapes: labels, keep `(N,)`. For each class: after = before − removed − away + joining.
    """
    given = labels.tolist()
    before = Counter(given)
    removed = Counter(given[row] for row in np.flatnonzero(~keep).tolist())
    away = Counter(given[row] for row in changed)
    joining = Counter(changed.values())
    return {
        label: {
            "before": before[label],
            "removed": removed[label],
            "away": away[label],
            "joining": joining[label],
            "after": before[label] - removed[label] - away[label] + joining[label],
        }
        for label in [*before, *(label for label in joining if label not in before)]
    }


def show_plan(samples: Samples, keep: np.ndarray, changed: Mapping[int, Any]) -> None:
    """Print what stays, goes and gets another label in each class."""
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table
    from lsi.system.text import plain_text

    if samples.targets is not None:
        return
    counts = class_counts(samples.labels, keep, changed)
    if len(counts) > _MOST_VALUES:
        return
    order = sorted(counts, key=lambda label: -(counts[label]["removed"] + counts[label]["away"]))
    title = f"Plan, the {MOST} classes that change most" if len(order) > MOST else "Plan"
    table = plain_table(title)
    table.add_column("class", max_width=32)
    for name in ("before", "removed", "relabelled away", "relabelled to it", "after"):
        table.add_column(name, justify="right")
    for label in order[:MOST]:
        figures = (f"{value:,}" for value in counts[label].values())
        table.add_row(Text(plain_text(str(samples.class_name(label)), 32)), *figures)
    out_console().print(table)
