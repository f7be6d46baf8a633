"""Columns of the table and entries of the manifest about labels: one or several for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.loo.result import LooResult
from lsi.validation.problem import Problem

NONE = "(none)"
"""Text in the table for a sample without any label."""


@dataclass
class MultiLabelResult(LooResult):
    """Leave-one-out of L heads; `loo_prediction` is `(n_scored, L)`.

    Attributes:
        head_lsi: LSI of each head, nats, `(n_scored, L)`.
        head_probability: Probability of each label's given value, `(n_scored, L)`.
    """

    head_lsi: np.ndarray
    head_probability: np.ndarray

    @classmethod
    def summed(cls, heads: list[LooResult]) -> MultiLabelResult:
        """Add up heads that share no weights.

        Divergences and leverages are sums, and probabilities a product. The certificate is the mean of the
        heads' certificates weighted by their LSI, which bounds the relative error of the sum.
        """

        def each(name: str) -> np.ndarray:
            return np.stack([getattr(head, name) for head in heads], 1)

        lsi, probability = each("lsi"), each("loo_probability")
        total = np.maximum(lsi.sum(1), np.finfo(np.float64).tiny)
        certificate = (each("relative_error") * lsi).sum(1) / total
        return cls(
            each("mean_term").sum(1),
            each("covariance_term").sum(1),
            probability.prod(1),
            each("loo_prediction"),
            each("leverage").sum(1),
            certificate,
            head_lsi=lsi,
            head_probability=probability,
            done=heads[0].done,
        )


def columns(problem: Problem, result: LooResult) -> dict[str, np.ndarray]:
    """Return given and most likely labels, and the scores of each label's head."""
    if not isinstance(result, MultiLabelResult):
        return class_columns(problem, result)
    given = problem.target[problem.subset]
    named: dict[str, np.ndarray] = {}
    for column, name in enumerate(problem.outputs):
        named[f"label_{name}"] = given[:, column]
        named[f"lsi_{name}"] = result.head_lsi[:, column]
        named[f"loo_probability_{name}"] = result.head_probability[:, column]
    return {
        "label": label_texts(given, problem.outputs),
        "loo_probability": result.loo_probability,
        "loo_prediction": label_texts(result.loo_prediction, problem.outputs),
        **named,
    }


def manifest(problem: Problem) -> dict[str, Any]:
    """Return the classes, or the labels with the number of samples of each."""
    if not problem.outputs:
        return class_manifest(problem)
    counts = problem.target.sum(0).tolist()
    return {
        "task": "multilabel",
        "classes": [],
        "outputs": list(problem.outputs),
        "output_counts": counts,
    }


def label_texts(indicators: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Return the labels of every sample as text. Shapes: indicators `(n, L)`."""
    rows = [", ".join(names[k] for k in np.flatnonzero(row)) or NONE for row in indicators]
    return np.array(rows, dtype=object)


def class_columns(problem: Problem, result: LooResult) -> dict[str, np.ndarray]:
    """Return the given label, and probability and prediction without the sample."""
    labels = pd.Series(problem.classes).infer_objects().to_numpy()
    return {
        "label": labels[problem.target[problem.subset]],
        "loo_probability": result.loo_probability,
        "loo_prediction": labels[result.loo_prediction],
    }


def class_manifest(problem: Problem) -> dict[str, Any]:
    """Return the classes with the number of samples of each."""
    counts = np.bincount(problem.target, minlength=problem.n_classes)
    return {"classes": problem.classes.tolist(), "class_counts": counts.tolist()}
