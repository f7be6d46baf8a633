r"""How hard a dataset is for its probe: one figure that can be compared between datasets.

A classifier that knew only how often each class occurs would pay the label entropy H(Y) a sample. Without the
sample, the probe pays the cross-entropy :math:`-\log p_{-i}(y_i \mid x_i)`. The difficulty is the share of
H(Y) that it still pays:

.. math:: \mathrm{difficulty} = \frac{\frac1n \sum_i -\log p_{-i}(y_i \mid x_i)}{H(Y)}

0: the features determine the label; 1: they say no more than the class frequencies do; above 1: the probe is
more confident than it is right. The mean over samples does not grow with n, dividing by H(Y) removes the
number and balance of the classes, and probabilities have no unit that the number of features could change.
The difference :math:`H(Y) - \mathrm{cross\ entropy}` is the V-usable information of Ethayarajh, Choi and
Swayamdipta, *Understanding Dataset Difficulty with V-Usable Information*, ICML 2022, with leave-one-out in
place of held-out data.

LSI itself shrinks with 1/n and grows with the number of weights: Σ LSI ≈ (C − 1) D / 2 nats for a
well-specified model of C classes and D features, the intercept's column included, with the full posterior:
each weight that the data tell is worth half a nat, and the same row added to all classes changes nothing.
`information_per_weight` = 2 Σ LSI / ((C − 1) D) takes out both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.classwise import cross_entropy
from lsi.analysis.view import View, need_classes, view
from lsi.errors import InputError
from lsi.results.table import ScoreTable
from lsi.system.files import PathLike

LEVEL = 0.95


@dataclass(frozen=True)
class Difficulty:
    """How hard a dataset is; figures in nats are means over samples.

    Attributes:
        difficulty: Leave-one-out cross-entropy as a share of the label entropy.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        cross_entropy: Leave-one-out cross-entropy, nats.
        label_entropy: Entropy of the class frequencies, nats.
        usable_information: `label_entropy − cross_entropy`: what the features say about a label, nats.
        loo_error: Share of samples for which a probe that has not seen them prefers another label.
        mean_lsi: Nats; compare it between runs with equal settings and N only.
        information_per_weight: `2 N mean_lsi / ((C − 1) D)`, about 1 for a well-specified model; None where
            the manifest does not say how many weights there are.
        n_scored: Scored samples.
        n_samples: Samples N.
        n_features: Features.
        n_classes: Classes C.
    """

    difficulty: float
    low: float
    high: float
    cross_entropy: float
    label_entropy: float
    usable_information: float
    loo_error: float
    mean_lsi: float
    information_per_weight: float | None
    n_scored: int
    n_samples: int
    n_features: int | None
    n_classes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """Return the main figures as one sentence."""
        return (
            f"Difficulty {self.difficulty:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}): of "
            f"{self.label_entropy:.3f} nats per label, the features provide {self.usable_information:.3f}; "
            f"the probe expects another label for {100 * self.loo_error:.1f} % of the samples."
        )


def difficulty(scores: ScoreTable, *, n_bootstrap: int = 500, seed: int = 0) -> Difficulty:
    """Return how hard a dataset is, with an interval."""
    need_classes(scores.task, "difficulty")
    if n_bootstrap < 20:
        raise InputError(f"n_bootstrap must be at least 20, got {n_bootstrap}.")
    seen, manifest = view(scores), scores.manifest
    if len(seen.classes) < 2:
        raise InputError(
            "difficulty needs scored samples of two or more classes. Score a random subset, not one class."
        )
    loss = cross_entropy(seen.table["loo_probability"].to_numpy(dtype=np.float64))
    drawn = _bootstrap(loss, seen.codes, n_bootstrap, seed)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    data = manifest.get("data") or {}
    n_samples = int(data.get("n_samples", len(scores)))
    mean_loss, entropy = float(loss.mean()), _entropy(np.bincount(seen.codes))
    return Difficulty(
        difficulty=mean_loss / entropy,
        low=float(low),
        high=float(high),
        cross_entropy=mean_loss,
        label_entropy=entropy,
        usable_information=entropy - mean_loss,
        loo_error=float(seen.disagrees.mean()),
        mean_lsi=float(seen.lsi.mean()),
        information_per_weight=_per_weight(seen, manifest, n_samples),
        n_scored=len(scores),
        n_samples=n_samples,
        n_features=data.get("n_features"),
        n_classes=len(scores.classes),
    )


def compare_datasets(
    datasets: Mapping[str, ScoreTable | PathLike], *, n_bootstrap: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Return the difficulty of several datasets, hardest first.

    Args:
        datasets: `Scores`, or folders with scores, by name.
        n_bootstrap: Resamples behind each interval, at least 20.
        seed: Seed of the resampling.

    Returns:
        One row per dataset: `dataset`, then the fields of `Difficulty`, then `probe`, `weight_decay` and
        `posterior`: where these differ, so do the runs and not the data alone.

    Raises:
        InputError: There are no datasets, one cannot be read, or one belongs to another task.
    """
    if not datasets:
        raise InputError("there are no datasets. Pass scores by name: {'digits': scores}.")
    rows = []
    for name, given in datasets.items():
        scores = given if isinstance(given, ScoreTable) else ScoreTable.load(given)
        figures = difficulty(scores, n_bootstrap=n_bootstrap, seed=seed)
        config = scores.manifest.get("config") or {}
        probe = config.get("probe") or {}
        settings = {"probe": probe.get("kind"), "weight_decay": probe.get("weight_decay")}
        rows.append({"dataset": name, **figures.to_dict(), **settings, "posterior": config.get("posterior")})
    return pd.DataFrame(rows).sort_values("difficulty", ascending=False, kind="stable", ignore_index=True)


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _bootstrap(loss: np.ndarray, codes: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """Return the difficulty of each resample, `(rounds,)`; a resample of a single class is drawn again."""
    rng, n, drawn = np.random.default_rng(seed), len(loss), np.empty(rounds)
    for k in range(rounds):
        entropy = 0.0
        while entropy == 0.0:
            chosen = rng.integers(0, n, n)
            entropy = _entropy(np.bincount(codes[chosen]))
        drawn[k] = loss[chosen].mean() / entropy
    return drawn


def _per_weight(seen: View, manifest: Mapping[str, Any], n_samples: int) -> float | None:
    """Return `2 N mean(LSI) / K`, None where the manifest does not give K, the number of weights."""
    data, probe = manifest.get("data") or {}, (manifest.get("config") or {}).get("probe") or {}
    if not isinstance(probe, Mapping) or probe.get("kind") != "linear":
        return None
    if not data.get("n_features") or (data.get("n_classes") or 0) < 2:
        return None
    weights = (int(data["n_features"]) + bool(probe.get("fit_intercept"))) * (int(data["n_classes"]) - 1)
    return 2.0 * n_samples * float(seen.lsi.mean()) / weights
