"""Tables of scores by hand, for the analyses that read nothing else."""

import numpy as np
import pandas as pd

from lsi.results.table import ScoreTable


def table(lsi, labels, predicted=None, probability=None, **more):
    n = len(lsi)
    columns = {
        "sample_id": [f"s{i}" for i in range(n)],
        "position": np.arange(n),
        "label": labels,
        "lsi": np.asarray(lsi, dtype=float),
        "mean_term": np.asarray(lsi, dtype=float),
        "covariance_term": np.zeros(n),
        "loo_probability": np.full(n, 0.8) if probability is None else probability,
        "loo_prediction": labels if predicted is None else predicted,
        "leverage": np.full(n, 0.01),
        "relative_error": np.full(n, np.nan),
    }
    return pd.DataFrame({**columns, **more})


def random_table(n=60, n_classes=3, seed=0, **more):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    probability = rng.random(n)
    predicted = np.where(probability > 0.4, labels, (labels + 1) % n_classes)
    return table(rng.gamma(1.0, size=n), labels, predicted, probability, **more)


def scored(rows, **manifest):
    """Return a table as the analyses take it."""
    return ScoreTable(rows, manifest)
