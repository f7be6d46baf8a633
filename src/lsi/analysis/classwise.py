"""LSI by class, and its correlation with the accuracy on a test set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import View, need_classes, rank_correlation, view
from lsi.errors import InputError
from lsi.results.table import ScoreTable
from lsi.validation.labels import as_vector

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def by_class(scores: ScoreTable, test: Any = None) -> pd.DataFrame:
    """Return one row per class, hardest first; `Scores.by_class` describes the columns.

    Shapes: test `(labels, predictions)`.
    """
    need_classes(scores.task, "by_class")
    seen = view(scores)
    groups = _measure(seen).groupby(seen.codes)
    lsi, summary = groups["lsi"], scores.class_summary()
    frame = summary[["label", "n"]].assign(share=summary["n"] / len(scores), mean=summary["mean_lsi"])
    for name, level in QUANTILES.items():
        frame[name] = lsi.quantile(level)
    total = float(seen.lsi.sum())
    frame["information"] = lsi.sum() / total if total > 0 else 0.0
    frame["suspected"] = groups["suspected"].mean()
    frame["loo_accuracy"] = summary["loo_accuracy"]
    frame["loo_cross_entropy"] = groups["loo_cross_entropy"].mean()
    correlation = {}
    if test is not None:
        for name, values in _test_columns(test, seen.classes).items():
            frame[name] = values
        correlation = _correlations(frame)
    frame = frame.sort_values("median", ascending=False, kind="stable", ignore_index=True)
    frame.attrs["correlation"] = correlation
    return frame


def cross_entropy(probability: np.ndarray) -> np.ndarray:
    """Return −log p in nats, a probability of zero counted as the smallest positive float.

    Shapes: probability `(n,)`.
    """
    smallest = np.finfo(np.float64).tiny
    return np.asarray(-np.log(np.clip(probability, smallest, 1.0)))


def _measure(seen: View) -> pd.DataFrame:
    probability = seen.table["loo_probability"].to_numpy(dtype=np.float64)
    return pd.DataFrame(
        {
            "lsi": seen.lsi,
            "suspected": seen.suspected,
            "loo_cross_entropy": cross_entropy(probability),
        }
    )


def _test_columns(test: Any, classes: np.ndarray) -> dict[str, list[Any]]:
    if hasattr(test, "keys"):
        missing = [label for label in classes.tolist() if label not in test]
        if missing:
            raise InputError(
                f"test has no accuracy for the classes {missing[:5]}. Give one for every class, by its label."
            )
        return {"test_accuracy": [float(test[label]) for label in classes.tolist()]}
    try:
        given, predicted = test
    except (TypeError, ValueError) as error:
        raise InputError(
            "test must be (labels, predictions), or a mapping from label to accuracy, got "
            f"{type(test).__name__}. With a fitted model: test=(y_test, model.predict(X_test))."
        ) from error
    return _accuracy(as_vector(given, "test labels"), as_vector(predicted, "test predictions"), classes)


def _accuracy(given: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> dict[str, list[Any]]:
    if len(given) != len(predicted):
        raise InputError(
            f"test has {len(given)} labels and {len(predicted)} predictions. Give one prediction per label."
        )
    right = pd.Series([a == b for a, b in zip(given.tolist(), predicted.tolist(), strict=True)], dtype=bool)
    labels = pd.Series(given.tolist(), dtype=object)
    known = set(classes.tolist())
    if not labels.isin(known).any():
        raise InputError(
            f"none of the test labels is a class of the scores ({classes.tolist()[:5]} …). "
            "Use the same labels."
        )
    groups = right.groupby(labels)
    accuracy, count = groups.mean(), groups.size()
    return {
        "n_test": [int(count.get(label, 0)) for label in classes.tolist()],
        # A class without test samples has no accuracy: empty, never a number.
        "test_accuracy": [float(accuracy.get(label, np.nan)) for label in classes.tolist()],
    }


def _correlations(frame: pd.DataFrame) -> dict[str, float | None]:
    measured = frame[frame["test_accuracy"].notna()]
    return {
        name: rank_correlation(measured[name].to_numpy(float), measured["test_accuracy"].to_numpy(float))
        for name in ("median", "suspected", "loo_accuracy")
    }
