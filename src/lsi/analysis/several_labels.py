r"""Wrong labels where a sample has several: one noise layer for each label, present or absent.

.. math:: P(\text{any label of } i \text{ is wrong}) = 1 - \prod_l \bigl(1 - P(y_{il} \text{ is wrong})\bigr)

Each label is a problem of two classes for `lsi.label_noise`, with the head's leave-one-out probabilities.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lsi.analysis.label_noise import LabelNoise, doubtful_order, label_noise
from lsi.analysis.targets import any_of
from lsi.tasks.columns import label_texts


def noise_of_labels(table: pd.DataFrame, names: list[str]) -> LabelNoise:
    """Return the estimate for samples, a wrong one having any wrong label, and for each label in `each`."""
    each = {name: _of_label(table, name) for name in names}
    parts = list(each.values())
    wrong, at_least, at_most = (
        any_of([getattr(part, end) for part in parts]) for end in ("wrong_probability", "at_least", "at_most")
    )
    expected, ends = float(wrong.sum()), np.array([part.interval for part in parts])
    low, high = float(ends[:, 0].max()), min(float(len(table)), float(ends[:, 1].sum()))
    suggested = np.stack([part.suggested for part in parts], 1)
    return LabelNoise(
        expected,
        (min(low, expected), max(high, expected)),
        pd.concat({name: part.noise_matrix for name, part in each.items()}, names=["label"]),
        wrong,
        label_texts(suggested, tuple(names)),
        at_least,
        at_most,
        each,
        task="multilabel",
    )


def _of_label(table: pd.DataFrame, name: str) -> LabelNoise:
    given = table[f"label_{name}"].to_numpy(dtype=np.int64)
    right = table[f"loo_probability_{name}"].to_numpy(dtype=np.float64)
    yes = np.where(given == 1, right, 1.0 - right)
    return label_noise(np.stack([1.0 - yes, yes], 1), given, classes=[0, 1])


def wrong_labels(table: pd.DataFrame, names: list[str], fdr: float | None = None) -> pd.DataFrame:
    """Return one row per sample of several labels, the one that most likely has a wrong label first."""
    found = noise_of_labels(table, names)
    each = np.stack([part.wrong_probability for part in found.each.values()], 1)
    suggested = pd.Series(found.suggested, dtype=object)
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "suggested_label": suggested.where(suggested.to_numpy() != table["label"].to_numpy(), None),
            "wrong_probability": found.wrong_probability,
            "lsi": table["lsi"],
            "loo_prediction": table["loo_prediction"],
            "most_doubtful": np.array(names, dtype=object)[each.argmax(1)],
            **{f"wrong_probability_{name}": each[:, k] for k, name in enumerate(names)},
        }
    )
    by_score = np.argsort(-table["lsi"].to_numpy(), kind="stable")
    chosen = by_score[doubtful_order(found.wrong_probability[by_score], found.at_least[by_score], fdr)]
    return frame.iloc[chosen].reset_index(drop=True)
