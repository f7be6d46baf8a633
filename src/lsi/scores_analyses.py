"""What `Scores` can be asked: each method hands the table to one function of `lsi.analysis`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lsi.analysis.difficulty import Difficulty
    from lsi.analysis.selection import Order
    from lsi.scores import Scores


class _Held(Protocol):
    """What the methods need of `Scores`."""

    @property
    def manifest(self) -> dict[str, Any]: ...

    @property
    def audit(self) -> Any: ...

    def to_frame(self) -> pd.DataFrame: ...


class ScoresAnalyses:
    """Analyses of a table of scores, as methods of `Scores`."""

    def typicality(self: _Held) -> pd.DataFrame:
        """Return how typical each sample is, overall and in its class, and the reason for its score."""
        from lsi.analysis.typicality import typicality
        from lsi.analysis.view import task_name

        return typicality(self.to_frame(), task_name(self.manifest))

    def by_class(self: _Held, test: Any = None) -> pd.DataFrame:
        """Return one row a class, hardest first: count, distribution of LSI, suspected labels, accuracy.

        Shapes: test `(labels, predictions)`.
        """
        from lsi.analysis.classwise import by_class
        from lsi.analysis.view import need_classes

        need_classes(self.manifest, "by_class")
        return by_class(self.to_frame(), test)

    def difficulty(self: _Held, *, n_bootstrap: int = 500, seed: int = 0) -> Difficulty:
        """Return how hard the dataset is, as one figure that can be compared between datasets."""
        from lsi.analysis.difficulty import difficulty

        return difficulty(self.to_frame(), self.manifest, n_bootstrap=n_bootstrap, seed=seed)

    def select(
        self: _Held,
        keep: float | int | None = None,
        *,
        order: Order = "useful",
        balanced: bool | str = True,
        drop_mislabeled: bool | float | int = False,
        drop_redundant: bool = False,
        seed: int = 0,
    ) -> np.ndarray:
        """Return the positions of the samples to keep: ``X[scores.select(0.5)]``."""
        from lsi.analysis.selection import select
        from lsi.analysis.view import task_name

        table = self.to_frame()
        rows = select(
            table,
            keep,
            order=order,
            balanced=balanced,
            drop_mislabeled=drop_mislabeled,
            drop_redundant=drop_redundant,
            seed=seed,
            task=task_name(self.manifest),
        )
        return np.sort(table["position"].to_numpy()[rows])

    def with_redundancy(
        self: _Held, X: Any, y: Any = None, *, threshold: float | None = None, by: str = "influence"
    ) -> Scores:
        """Return the same scores with a column `redundancy_group` (−1: none; the largest group is 0).

        Shapes: X `(N, D)`, y `(N,)`.
        """
        from lsi.analysis.redundancy import THRESHOLD, group_scores
        from lsi.scores import Scores

        level = THRESHOLD if threshold is None else threshold
        table = group_scores(self.to_frame(), self.manifest, X, y, threshold=level, by=by)
        found = {"threshold": level, "by": by}
        return Scores(table, {**self.manifest, "redundancy": found}, self.audit)
