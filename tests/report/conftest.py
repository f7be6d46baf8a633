"""Scores built by hand: reports must not depend on an engine."""

import numpy as np
import pandas as pd
import pytest

from lsi.data import Samples
from lsi.results.audit import Audit
from lsi.scores import Scores


def build_scores(n=60, labels=("cat", "dog", "eel"), planted=0, audited=8, ids=None, source=None):
    """Return scores of `n` samples over `labels`, LSI from 1e-4 to 10 nats, the last ones planted errors."""
    rng = np.random.default_rng(0)
    names = np.empty(len(labels), dtype=object)
    names[:] = labels
    codes = np.arange(n) % len(labels)
    lsi = np.logspace(-4, 1, n)
    table = pd.DataFrame(
        {
            "sample_id": np.arange(n) if ids is None else ids,
            "position": np.arange(n),
            "label": names[codes],
            "lsi": lsi,
            "mean_term": 0.9 * lsi,
            "covariance_term": 0.1 * lsi,
            "loo_probability": rng.random(n),
            "loo_prediction": names[np.roll(codes, 1) if planted else codes],
            "leverage": rng.random(n),
            "relative_error": np.full(n, 1e-3),
        }
    )
    if planted:
        table["corrupted"] = np.arange(n) >= n - planted
        table["original_label"] = names[(codes + table["corrupted"]) % len(labels)]
    audit = None
    if audited:
        where = np.linspace(0, n - 1, audited).astype(int)
        audit = Audit.from_values(where, lsi[where], lsi[where] * 1.002, np.full(audited, 0.01), seconds=0.5)
    manifest = {
        "versions": {"lsi": "0.1.0", "python": "3.11"},
        "created": "2026-01-02T03:04:05+00:00",
        "config": {
            "probe": {"kind": "linear", "weight_decay": 1e-4, "fit_intercept": True},
            "posterior": "diag",
            "method": {"kind": "newton", "tol": 0.01},
            "prior_precision": 1.0,
            "seed": 0,
        },
        "data": {"n_samples": n, "n_features": 5, "n_classes": len(labels), "n_scored": n},
        "classes": list(labels),
        "timings": {"fit": 0.2, "leave-one-out": 1.3},
        "fit": {"gradient_norm": 1e-11, "train_accuracy": 0.97},
        "cost": "one factorisation",
        "source": source or {"kind": "named", "name": "animals", "description": "Three animals."},
    }
    if planted:
        manifest["corruption"] = {"kind": "symmetric", "rate": planted / n, "seed": 0, "n_corrupted": planted}
    return Scores(table, manifest, audit)


def build_samples(scores, images=True, name="animals"):
    """Return samples that match `scores`, with pictures or with features only."""
    frame, rng = scores.to_frame(), np.random.default_rng(1)
    return Samples(
        name=name,
        ids=frame["sample_id"].to_numpy(),
        labels=frame["label"].to_numpy(),
        features=rng.normal(size=(len(frame), 5)),
        images=rng.integers(0, 256, (len(frame), 8, 8), dtype=np.uint8) if images else None,
        description="Three animals.",
    )


@pytest.fixture
def make_scores():
    return build_scores


@pytest.fixture
def make_samples():
    return build_samples
