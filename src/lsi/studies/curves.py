"""Evidence that a selection helps: test accuracy against the share of samples kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.selection import select
from lsi.analysis.view import need_classes
from lsi.errors import InputError, nearest
from lsi.probes.linear import LinearProbe
from lsi.probes.softmax.quick_fit import QuickFit, probe_of, quick_fit, softmax
from lsi.results.table import ScoreTable
from lsi.system.progress import Progress
from lsi.validation.features import as_matrix, check_finite, to_float
from lsi.validation.labels import as_vector
from lsi.validation.problem import Problem, check_problem
from lsi.validation.settings import check_seed

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
BASELINES = (
    "random", "margin", "el2n", "margin-balanced", "el2n-balanced", "margin-hard", "el2n-hard",
)  # fmt: skip
"""What an order should beat."""
_RESAMPLES = 400  # of the test set, behind each interval
_LEVEL = 0.95


@dataclass(frozen=True)
class CurationCurves:
    """Test accuracy against the share of training samples kept.

    Attributes:
        table: One row per order and share: `order`, `share`, `n_kept`, `mean`, `low`, `high` (accuracy with
            its 95 % interval), `gain`, `gain_low`, `gain_high` (over random of the same share, paired).
        full: Accuracy of training on everything: mean, low and high.
        n_seeds: Draws of the training set behind each figure.
        pool: Share of the training set in each draw.
    """

    table: pd.DataFrame
    full: tuple[float, float, float]
    n_seeds: int
    pool: float

    def to_manifest(self) -> dict[str, Any]:
        """Return the curves as `manifest["curation"]` holds them."""
        curves = {}
        for name, rows in self.table.groupby("order", sort=False):
            columns = ("mean", "low", "high", "gain", "gain_low", "gain_high")
            curves[str(name)] = {column: rows[column].tolist() for column in columns}
        mean, low, high = self.full
        return {
            "metric": "accuracy",
            "shares": sorted(self.table["share"].unique().tolist()),
            "curves": curves,
            "n_seeds": self.n_seeds,
            "pool": self.pool,
            "full": {"mean": mean, "low": low, "high": high},
        }


def curation_curves(
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    scores: ScoreTable,
    *,
    shares: Iterable[float] = SHARES,
    n_seeds: int = 5,
    orders: Mapping[str, Mapping[str, Any]] | None = None,
    baselines: Iterable[str] = BASELINES[:3],
    probe: LinearProbe | None = None,
    pool: float = 0.9,
    seed: int = 0,
    progress: Progress | None = None,
) -> CurationCurves:
    """Train on what is kept, and measure accuracy on a test set, for several orders and shares.

    Each seed draws the share `pool` of the training samples without replacement. Within that draw each order
    keeps its share, a linear probe is trained on it, and its hits on the test set are stored. Intervals are
    percentiles over seeds and bootstrap resamples of the test set together. The gain over random is paired:
    same draw, same resample. Samples are not scored again: the scores are those of the whole data.

    The baselines come from one probe trained on all samples with their given labels: `margin` keeps the
    largest logit margins of the given label, `el2n` the smallest error norms ‖p − e_y‖ (Paul, Ganguli,
    Dziugaite, *Deep Learning on a Data Diet*, 2021); `-hard` keeps the other end, `-balanced` as many of
    each class. The others ignore classes.

    Args:
        X: `(N, D)` training features that were scored.
        y: `(N,)` their labels as given.
        X_test: `(T, D)` test features.
        y_test: `(T,)` their labels; clean ones, if the curves should show what cleaning is worth.
        scores: ScoreTable of all N samples.
        shares: Kept shares in (0, 1).
        n_seeds: Draws of the training set, at least 2.
        orders: Arguments of `Scores.select` by name; None: ``{"lsi": {}}``, its defaults.
        baselines: Names in `BASELINES`; `random` is always among them.
        probe: The probe that is trained; None: the probe of the scores.
        pool: Share of the training samples in each draw, in (0, 1].
        seed: Seed of all draws.
        progress: Called as `progress("curation", done, total)`.

    Returns:
        The curves; put ``curves.to_manifest()`` under ``scores.manifest["curation"]`` to store them.

    Raises:
        InputError: The scores are of another task or of other samples, the test set does not fit, or a
            setting cannot be used.
    """
    need_classes(scores.task, "curation_curves")
    problem = check_problem(X, y)
    test, test_codes = _check_test(X_test, y_test, problem)
    aligned = _aligned(scores, problem)
    wanted = _check_shares(shares, n_seeds, pool)
    check_seed("seed", seed)
    probe = probe or probe_of(scores.manifest)
    fitted = quick_fit(problem.features, problem.target, problem.classes, probe)
    choosers = _choosers({"lsi": {}} if orders is None else orders, baselines, fitted, problem)
    hits: dict[tuple[str, float], list[np.ndarray]] = {}
    n, n_pool = problem.n_samples, round(pool * problem.n_samples)
    total, done = n_seeds * (len(choosers) * len(wanted) + 1), 0
    for number, generator in enumerate(np.random.default_rng(seed).spawn(n_seeds)):
        drawn = np.sort(generator.permutation(n)[: max(2, n_pool)])
        draw = _Draw(aligned.with_table(aligned.to_frame().iloc[drawn]), drawn, seed + number)
        for name, share in [("", 1.0), *((name, share) for name in choosers for share in wanted)]:
            kept = drawn if not name else drawn[choosers[name](draw, share)]
            model = quick_fit(problem.features[kept], problem.target[kept], problem.classes, probe)
            hits.setdefault((name, share), []).append(model.predict(test) == test_codes)
            done += 1
            if progress is not None:
                progress("curation", done, total)
    return _summarise(hits, list(choosers), wanted, n_pool, n_seeds, pool, seed)


@dataclass(frozen=True)
class _Draw:
    """The training samples that one seed draws.

    Attributes:
        scores: Their scores.
        rows: Their rows in the training set.
        seed: Seed of random orders within the draw.
    """

    scores: ScoreTable
    rows: np.ndarray
    seed: int


_Chooser = Callable[[_Draw, float], np.ndarray]


def _choosers(
    orders: Mapping[str, Mapping[str, Any]], baselines: Iterable[str], fitted: QuickFit, problem: Problem
) -> dict[str, _Chooser]:
    """Return the function that chooses rows of a draw, for each order and baseline by name."""

    def ours(arguments: Mapping[str, Any]) -> _Chooser:
        return lambda draw, share: select(draw.scores, share, seed=draw.seed, **arguments)

    def baseline(values: np.ndarray | None, balanced: bool) -> _Chooser:
        def choose(draw: _Draw, share: float) -> np.ndarray:
            if values is None:
                return select(draw.scores, share, order="random", balanced=balanced, seed=draw.seed)
            # The order "largest", with the baseline's number in place of LSI.
            table = draw.scores.to_frame().assign(lsi=values[draw.rows])
            return select(draw.scores.with_table(table), share, order="largest", balanced=balanced)

        return choose

    found = {name: ours(arguments) for name, arguments in orders.items()}
    logits = fitted.logits(problem.features)
    margin, error = logit_margin(logits, problem.target), el2n(logits, problem.target)
    numbers = {"random": None, "margin": margin, "el2n": -error, "margin-hard": -margin, "el2n-hard": error}
    for name in dict.fromkeys(["random", *baselines]):
        if name not in BASELINES:
            raise InputError(f"unknown baseline {name!r}. {nearest(name, BASELINES)}")
        if name in found:
            raise InputError(f"an order cannot be called {name!r}: a baseline has this name.")
        found[name] = baseline(numbers[name.removesuffix("-balanced")], name.endswith("-balanced"))
    return found


def logit_margin(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return `z_y − max_{c≠y} z_c`, `(n,)`: how far the given label wins, negative where it loses."""
    rows = np.arange(len(target))
    others = np.array(logits, dtype=np.float64)
    own = others[rows, target].copy()
    others[rows, target] = -np.inf
    return np.asarray(own - others.max(axis=1))


def el2n(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the error norm `‖p − e_y‖₂`, `(n,)`."""
    error = softmax(np.asarray(logits, dtype=np.float64))
    error[np.arange(len(target)), target] -= 1.0
    return np.asarray(np.linalg.norm(error, axis=1))


def _check_test(X_test: Any, y_test: Any, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    features = to_float(as_matrix(X_test))
    check_finite(features)
    if features.shape[1] != problem.n_features:
        raise InputError(
            f"X_test has {features.shape[1]} features but X has {problem.n_features}. Use the same encoder."
        )
    labels = as_vector(y_test, "y_test").tolist()
    if len(labels) != len(features):
        raise InputError(f"X_test has {len(features)} rows but y_test has {len(labels)} labels.")
    code_of = {label: code for code, label in enumerate(problem.classes.tolist())}
    unknown = sorted({repr(label) for label in labels if label not in code_of})
    if unknown:
        raise InputError(f"y_test has classes that y lacks: {', '.join(unknown[:5])}. Use the same labels.")
    return features, np.array([code_of[label] for label in labels], dtype=np.int64)


def _aligned(scores: ScoreTable, problem: Problem) -> ScoreTable:
    """Return the scores in the order of X."""
    table = scores.to_frame().sort_values("position", kind="stable", ignore_index=True)
    if len(table) != problem.n_samples or (table["position"] != np.arange(len(table))).any():
        raise InputError(
            f"the scores are of {len(table):,} samples, but X has {problem.n_samples:,} rows. Score every "
            "row of X, in its order, first."
        )
    return scores.with_table(table)


def _check_shares(shares: Iterable[float], n_seeds: int, pool: float) -> list[float]:
    wanted = sorted({float(share) for share in shares})
    if not wanted or not 0 < wanted[0] <= wanted[-1] < 1:
        raise InputError(f"shares must lie between 0 and 1, got {wanted}. Leave them out for the default.")
    if n_seeds < 2:
        raise InputError(f"n_seeds must be at least 2, since one draw has no spread; got {n_seeds!r}.")
    if not 0 < pool <= 1:
        raise InputError(f"pool must lie in (0, 1], got {pool!r}.")
    return wanted


def _summarise(
    hits: dict[tuple[str, float], list[np.ndarray]],
    names: list[str],
    shares: list[float],
    n_pool: int,
    n_seeds: int,
    pool: float,
    seed: int,
) -> CurationCurves:
    """Return mean accuracies and percentiles over seeds and resamples of the test set together."""
    n_test = len(next(iter(hits.values()))[0])
    random = np.random.default_rng([seed, 1])
    weight = random.multinomial(n_test, np.full(n_test, 1.0 / n_test), size=_RESAMPLES).astype(np.float32)
    which = random.integers(0, n_seeds, (_RESAMPLES, n_seeds))
    drawn: dict[tuple[str, float], np.ndarray] = {}
    for key, found in hits.items():
        by_seed = weight @ np.stack(found).T.astype(np.float32) / n_test
        drawn[key] = np.take_along_axis(by_seed, which, axis=1).mean(axis=1)
    rows = []
    for name in names:
        for share in shares:
            mean = float(np.mean(hits[name, share]))
            low, high = _interval(drawn[name, share])
            gain = mean - float(np.mean(hits["random", share]))
            gain_low, gain_high = _interval(drawn[name, share] - drawn["random", share])
            rows.append([name, share, round(share * n_pool), mean, low, high, gain, gain_low, gain_high])
    columns = ["order", "share", "n_kept", "mean", "low", "high", "gain", "gain_low", "gain_high"]
    full = (float(np.mean(hits["", 1.0])), *_interval(drawn["", 1.0]))
    return CurationCurves(pd.DataFrame(rows, columns=columns), full, n_seeds, pool)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
