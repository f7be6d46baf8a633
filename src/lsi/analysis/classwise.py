"""Informativeness by class, and how it goes together with accuracy on a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import View, view
from lsi.errors import InputError
from lsi.validation.labels import as_vector

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def by_class(table: pd.DataFrame, test: Any = None) -> pd.DataFrame:
    """Return one row a class: count, distribution of LSI, suspected labels, accuracy.

    Shapes: test `(labels, predictions)`.
    """
    seen = view(table)
    groups = _measure(seen).groupby(seen.codes)
    lsi = groups["lsi"]
    frame = pd.DataFrame({"label": pd.Series(seen.classes).infer_objects(), "n": groups.size()})
    frame["share"] = frame["n"] / len(table)
    frame["mean"] = lsi.mean()
    for name, level in QUANTILES.items():
        frame[name] = lsi.quantile(level)
    total = float(seen.lsi.sum())
    frame["information"] = lsi.sum() / total if total > 0 else 0.0
    for name in ("suspected", "loo_accuracy", "loo_cross_entropy"):
        frame[name] = groups[name].mean()
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
            "loo_accuracy": ~seen.disagrees,
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
            f"test has {len(given)} labels and {len(predicted)} predictions. Give one prediction a label."
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
        name: _spearman(measured[name].to_numpy(float), measured["test_accuracy"].to_numpy(float))
        for name in ("median", "suspected", "loo_accuracy")
    }


def _spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(spearmanr(left, right).statistic)


def label_summary(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a label."""
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
