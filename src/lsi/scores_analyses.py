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
        """Return how typical each sample is, overall and in its class, and the reason for its score.

        Returns:
            One row a sample, in the order of the table: `sample_id`, `label`, `lsi` (nats), `rank` (1: the
            most typical), `rank_in_class`, `quantile`, `reason` (`mislabeled`, `hard`, `rare`, `redundant` or
            `typical`, the first that holds; `lsi.analysis.typicality` has the rule), `mean_share` and
            `covariance_share`.
        """
        from lsi.analysis.typicality import typicality
        from lsi.analysis.view import task_name

        return typicality(self.to_frame(), task_name(self.manifest))

    def by_class(self: _Held, test: Any = None) -> pd.DataFrame:
        """Return one row a class, hardest first: count, distribution of LSI, suspected labels, accuracy.

        Args:
            test: `(labels, predictions)` of a test set, or a mapping from label to accuracy.

        Returns:
            `label`, `n`, `share`, `mean`, `q05`, `q25`, `median`, `q75`, `q95` of LSI (nats), `information`
            (share of all nats), `suspected` (share of doubtful labels), `loo_accuracy`, `loo_cross_entropy`,
            and with `test` also `n_test` and `test_accuracy`; then ``frame.attrs["correlation"]`` holds the
            rank correlations of `test_accuracy` with `median`, `suspected` and `loo_accuracy`.

        Raises:
            InputError: The task has no classes, or `test` does not fit.
        """
        from lsi.analysis.classwise import by_class
        from lsi.analysis.view import need_classes

        need_classes(self.manifest, "by_class")
        return by_class(self.to_frame(), test)

    def difficulty(self: _Held, *, n_bootstrap: int = 500, seed: int = 0) -> Difficulty:
        """Return how hard the dataset is, as one figure that can be compared between datasets.

        Args:
            n_bootstrap: Resamples behind the interval.
            seed: Of the resampling.

        Returns:
            `difficulty` (leave-one-out cross-entropy over label entropy) with `low` and `high`, and the
            figures beside it.

        Raises:
            InputError: The task has no classes, or samples of one class only were scored.
        """
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
        """Return the positions of the samples to keep: ``X[scores.select(0.5)]``.

        Args:
            keep: Share in (0, 1] if a float, number of samples if an integer; None: all that
                `drop_mislabeled` and `drop_redundant` leave.
            order: `"useful"` (right and informative), `"largest"`, `"smallest"`, `"right"` (least doubtful
                label first), `"random"`, or a mixed budget such as `{"largest": 0.7, "smallest": 0.3}`.
            balanced: True: equal numbers of each class as far as there are; `"proportional"`: the same share
                of each; False: classes are not looked at.
            drop_mislabeled: True: suspected labels go first, whatever the order; or how many go first, as a
                share or a number.
            drop_redundant: Whether all but the most informative of each redundancy group go first.
            seed: Of the random order.

        Returns:
            Ascending positions in X, exactly as many as `keep` asks for.

        Raises:
            InputError: A setting that cannot be used.
        """
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

        Args:
            X: `(N, D)` features that were scored.
            y: `(N,)` labels; None: those of the scores, where every row of X was scored.
            threshold: Least similarity to a group's most informative sample; None: 0.7.
            by: `"influence"` (the same effect on the weights) or `"features"` (near-duplicates, whatever
                their labels).

        Returns:
            New scores.

        Raises:
            InputError: The task has no classes, or X does not fit.
        """
        from lsi.analysis.redundancy import THRESHOLD, group_scores
        from lsi.scores import Scores

        level = THRESHOLD if threshold is None else threshold
        table = group_scores(self.to_frame(), self.manifest, X, y, threshold=level, by=by)
        found = {"threshold": level, "by": by}
        return Scores(table, {**self.manifest, "redundancy": found}, self.audit)
