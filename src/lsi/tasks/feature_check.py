r"""Do these features know the target? A verdict beside the audit, which only judges the computation.

Scores of an encoder that was never trained are computed as exactly as any others. What they say about samples
depends on whether the model can tell the classes apart: the share of labels that it names without the sample,
against that of the most frequent class, and against the nearest neighbours, which need no model at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lsi.loo.result import LooResult
from lsi.run.context import Run
from lsi.validation.problem import Problem

Z = 1.96  # of a 95 % interval
HALF = (
    0.5  # of the way from the most frequent class to no error (or of the variance), from which features know
)
QUERIES, REFERENCES = 1000, 10_000  # rows of the check by neighbours: right to 3 points, in a second
LEAST_REFERENCES, MOST_NUMBERS = 200, 10_000_000  # fewer rows where they are very wide: 80 MB
NEIGHBOURS = 10


def check_features(run: Run, problem: Problem, result: LooResult) -> dict[str, Any] | None:
    """Return what the manifest says about the features; None for several labels a sample, and pairs."""
    if problem.n_classes:
        hits = result.loo_prediction == problem.target[problem.subset]
        majority = np.bincount(problem.target).max() / problem.n_samples
        with run.clock("feature check"):
            near = neighbour_accuracy(problem.features, problem.target)
        return of_hits(len(hits), int(hits.sum()), float(majority), near)
    if problem.target.dtype.kind == "f" and problem.outputs:
        return of_residuals(
            problem.target, problem.subset, np.reshape(result.loo_prediction, (-1, len(problem.outputs)))
        )
    return None


def of_hits(n: int, hits: int, majority: float, near: dict[str, float]) -> dict[str, Any]:
    """Return the check of a classification from how many of n labels the model names without the sample."""
    low, high = wilson(hits, n)
    accuracy = hits / n
    rest = max(1.0 - majority, np.finfo(float).tiny)
    skill = (accuracy - majority) / rest
    verdict = "none" if low <= majority else "good" if skill >= HALF else "part"
    return {
        "verdict": verdict,
        "n": n,
        "hits": hits,
        "loo_accuracy": accuracy,
        "interval": [low, high],
        "majority": majority,
        **near,
    }


def of_residuals(target: np.ndarray, scored: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return the check of a regression: R² without the sample, with its interval.

    The mean of the other samples is what a model without features would say. Shapes: target `(N, T)`, scored
    `(n,)`, predicted `(n, T)`.
    """
    n = len(target)
    blind = ((target - target.mean(0)) * (n / (n - 1.0)))[scored] ** 2
    unit = np.where(blind.mean(0) > 0, blind.mean(0), 1.0)
    gain = ((blind - (target[scored] - predicted) ** 2) / unit).mean(1)
    found = float(gain.mean())
    error = Z * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
    low, high = found - error, found + error
    verdict = "none" if not low > 0 else "good" if found >= HALF else "part"
    return {"verdict": verdict, "n": len(gain), "loo_r_squared": found, "interval": [low, high]}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927).

    Examples:
        >>> [round(end, 3) for end in wilson(25, 100)]
        [0.175, 0.343]
    """
    share, square = hits / n, Z**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = Z / (1 + square / n) * (share * (1 - share) / n + square / (4 * n**2)) ** 0.5
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def neighbour_accuracy(features: np.ndarray, target: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the share of labels that the nearest and the ten nearest other rows name, on some random rows.

    Columns are brought to one spread. Shapes: features `(N, D)`, target `(N,)`.
    """
    random, n = np.random.default_rng(seed), len(features)
    most = max(LEAST_REFERENCES, min(REFERENCES, MOST_NUMBERS // features.shape[1]))
    known = np.sort(random.permutation(n)[:most])
    asked = np.sort(random.permutation(len(known))[:QUERIES])
    x = np.asarray(features[known], dtype=np.float64)
    spread = x.std(0)
    x = ((x - x.mean(0)) / np.where(spread > 1e-7 * np.abs(x).max(0), spread, np.inf)).astype(np.float32)
    codes, lengths = target[known], (x**2).sum(1)
    apart = lengths - 2.0 * (x[asked] @ x.T)
    apart[np.arange(len(asked)), asked] = np.inf
    k = min(NEIGHBOURS, len(known) - 1)
    nearest = np.argpartition(apart, k - 1, axis=1)[:, :k]
    nearest = np.take_along_axis(nearest, np.argsort(np.take_along_axis(apart, nearest, 1), 1, "stable"), 1)
    votes = np.zeros((len(asked), int(target.max()) + 1))
    # Nearer ones break ties.
    for rank in range(k):
        votes[np.arange(len(asked)), codes[nearest[:, rank]]] += 1.0 + 0.5 ** (rank + 2)
    given = codes[asked]
    return {
        "nearest_accuracy": float(np.mean(codes[nearest[:, 0]] == given)),
        "neighbours_accuracy": float(np.mean(votes.argmax(1) == given)),
        "n_neighbour_checks": len(asked),
    }
