"""Scores of any size with everything that a report can show, drawn at random."""

import numpy as np
import pandas as pd

from lsi.data import Samples
from lsi.scores import Scores


def made_up_scores(n, n_classes, seed=0):
    """Return scores of `n` samples with everything that a report can show."""
    rng = np.random.default_rng(seed)
    names = np.array([f"class {k:03d}" for k in range(n_classes)], dtype=object)
    label, likely = rng.integers(n_classes, size=(2, n))
    likely = np.where(rng.random(n) < 0.85, label, likely)
    mean, covariance = np.exp(rng.normal(-4, 2.5, n)), np.exp(rng.normal(-9, 1.5, n))
    probability = np.where(likely == label, rng.uniform(0.3, 1, n), rng.uniform(0, 0.5, n))
    table = pd.DataFrame(
        {
            "sample_id": [f"train/{names[c].replace(' ', '_')}/IMG_{k:08d}.png" for k, c in enumerate(label)],
            "position": np.arange(n),
            "label": names[label],
            "lsi": mean + covariance,
            "mean_term": mean,
            "covariance_term": covariance,
            "loo_probability": probability,
            "loo_prediction": names[likely],
            "leverage": rng.random(n),
            "relative_error": np.exp(rng.normal(-7, 1, n)),
            "wrong_probability": 1 - probability,
            "suggested_label": names[likely],
            "redundancy_group": np.where(rng.random(n) < 0.2, rng.integers(0, n // 12, n), -1),
        }
    )
    data = {"n_samples": n, "n_features": 512, "n_classes": n_classes, "fingerprint": "0" * 64}
    return Scores(table, {"classes": list(names), "data": data, "source": {"name": "made up"}})


def made_up_samples(scores, seed=1):
    """Return smooth random pictures, one a sample."""
    rng = np.random.default_rng(seed)
    frame = scores.to_frame()
    coarse = rng.integers(0, 256, (len(frame), 8, 8, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    images += rng.integers(0, 24, images.shape, dtype=np.uint8)
    ids, labels = frame["sample_id"].to_numpy(), frame["label"].to_numpy()
    return Samples("made up", ids, labels, features=np.zeros((len(frame), 2)), images=images)
