"""What scores say about each label, where a sample can have several."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def label_summary(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a label.

    Args:
        table: The score table of a multi-label run.
        names: The labels.

    Returns:
        Columns `label`, `n` (scored samples that have it), `mean_lsi` and `median_lsi` of its head in nats
        over all scored samples, `mean_loo_probability` of its given value, and `loo_accuracy`, the share of
        samples whose given value is the likelier one.
    """
    rows = [
        {
            "label": name,
            "n": int(table[f"label_{name}"].sum()),
            "mean_lsi": table[f"lsi_{name}"].mean(),
            "median_lsi": table[f"lsi_{name}"].median(),
            "mean_loo_probability": table[f"loo_probability_{name}"].mean(),
            "loo_accuracy": (table[f"loo_probability_{name}"] >= 0.5).mean(),
        }
        for name in names
    ]
    return pd.DataFrame(rows)
