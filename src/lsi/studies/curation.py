"""Removal of samples in rounds, with the rest scored again after each one."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsi.analysis.selection import Order, keep_count
from lsi.errors import InputError
from lsi.pipeline import score
from lsi.scores import Scores
from lsi.system.progress import Progress
from lsi.validation.problem import check_problem


def curate(
    X: Any,
    y: Any,
    *,
    keep: float | int,
    rounds: int = 3,
    order: Order = "useful",
    balanced: bool | str = True,
    drop_mislabeled: bool | float | int = False,
    sample_id: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> tuple[np.ndarray, list[Scores]]:
    """Remove samples in several rounds, and score what is left after each one.

    Each round keeps the same share of what is left, so the number of samples falls geometrically from N to
    `keep`. A sample that looks typical among its near-duplicates may be the only one of its kind once they
    are gone, and a probe trained on fewer wrong labels sees the remaining ones better.

    Args:
        X: `(N, D)` features.
        y: `(N,)` labels.
        keep: Share in (0, 1] or number of samples that remain in the end.
        rounds: How many times samples are scored and some of them removed.
        order: As in `Scores.select`.
        balanced: As in `Scores.select`.
        drop_mislabeled: As in `Scores.select`; a share or number counts in each round.
        sample_id: `(N,)` unique ids.
        seed: Seed of random orders and of the audit.
        progress: Called as `progress(stage, done, total)`.
        **settings: Other arguments of `lsi.score`, such as `probe`, `posterior` or `method`.

    Returns:
        The ascending positions that are kept, and the scores of each round (positions count in X; the
        first covers everything).

    Raises:
        InputError: A setting cannot be used, or a round would leave a single class.
    """
    problem = check_problem(X, y, sample_id=sample_id)
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, got {rounds!r}.")
    n = problem.n_samples
    final = keep_count(keep, n, n)
    kept, history = np.arange(n), []
    for number in range(1, rounds + 1):
        labels = problem.classes[problem.target[kept]]
        found = score(
            problem.features[kept],
            labels,
            sample_id=problem.sample_id[kept],
            seed=seed,
            progress=progress,
            **settings,
        )
        target = final if number == rounds else round(n * (final / n) ** (number / rounds))
        rows = found.select(
            target, order=order, balanced=balanced, drop_mislabeled=drop_mislabeled, seed=seed
        )
        history.append(_in_terms_of(found, kept))
        kept = kept[rows]
    return kept, history


def _in_terms_of(scores: Scores, positions: np.ndarray) -> Scores:
    """Return scores whose positions count in the data from which `positions` were chosen."""
    table = scores.to_frame()
    table["position"] = positions[table["position"].to_numpy()]
    return scores.with_table(table)
