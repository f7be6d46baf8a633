"""How targets that are classes stand in the table and in the manifest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lsi.loo.result import LooResult
from lsi.problem import Problem


def class_columns(problem: Problem, result: LooResult) -> dict[str, np.ndarray]:
    """Return the given label, and probability and prediction without the sample.

    Args:
        problem: The checked problem.
        result: What the engine found.

    Returns:
        Columns `label`, `loo_probability` and `loo_prediction`, one entry a scored sample.
    """
    labels = pd.Series(problem.classes).infer_objects().to_numpy()
    return {
        "label": labels[problem.target[problem.subset]],
        "loo_probability": result.loo_probability,
        "loo_prediction": labels[result.loo_prediction],
    }


def class_manifest(problem: Problem) -> dict[str, Any]:
    """Return the classes and how many samples each has.

    Args:
        problem: The checked problem.

    Returns:
        Entries `classes` and `class_counts`.
    """
    counts = np.bincount(problem.target, minlength=problem.n_classes)
    return {"classes": problem.classes.tolist(), "class_counts": counts.tolist()}
