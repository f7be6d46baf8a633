"""`Scores`: the table of a run with the analyses, drawings and notebook view as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from lsi.analysis import classwise, difficulty, mislabeled, redundancy, selection, typicality
from lsi.analysis.difficulty import Difficulty
from lsi.analysis.label_noise import LabelNoise
from lsi.analysis.selection import Order
from lsi.errors import InputError
from lsi.report.notebook import notebook_html
from lsi.report.plots import plot
from lsi.results.table import ScoreTable
from lsi.system.files import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Scores", "load"]


class Scores(ScoreTable):
    """Laplace Sample Information of a dataset: a table in the order asked for, a manifest and an audit.

    Args:
        table: One row per scored sample, with the columns of docs/reference/formulas.md; copied.
        manifest: How the scores were made; copied as JSON values (numbers that JSON lacks become None, labels
            that are neither numbers, booleans nor strings their `repr`).
        audit: What the built-in audit measured; None where it was off.

    Raises:
        InputError: A column is missing.
    """

    def typicality(self) -> pd.DataFrame:
        """Return how typical each sample is, overall and in its class, and the reason for its score.

        The reason is the first of these that holds:

        - `mislabeled`: the label is more likely wrong than right (`wrong_probability > ½`; for a run without
          that column: the model that never saw the sample prefers another label and gives this one less than
          10 %).
        - `hard`: without the sample the model prefers another label; or the score is in the highest quarter
          because the label surprises the model.
        - `rare`: the score is in the highest quarter although the label does not surprise: the sample stands
          where few others do. It has much leverage, or sharpens the posterior more than it moves it
          (`covariance_share ≥ ½`).
        - `redundant`: in a group of samples that carry the same information (column `redundancy_group`).
        - `typical`: everything else; the other samples say the same.

        In the highest quarter, `hard` and `rare` are told apart by ranks: surprise (how improbable the label
        is without the sample) against leverage (covariance share where the method gives no leverage).

        Returns:
            One row per sample, in the order of the table: `sample_id`, `label`, `lsi` (nats), `rank` (1: the
            most typical), `rank_in_class`, `quantile` (share of samples of no higher LSI; ties take their
            mean), `reason`, `mean_share` and `covariance_share` (parts of the score, adding up to 1).

        Raises:
            InputError: The table is empty or a score is not finite.
        """
        return typicality.typicality(self)

    def by_class(self, test: Any = None) -> pd.DataFrame:
        """Return one row per class, hardest first: count, distribution of LSI, suspected labels, accuracy.

        Args:
            test: `(labels, predictions)` of a test set, or a mapping from label to accuracy.

        Returns:
            Columns `label`, `n`, `share` (of the samples), `mean`, `q05`, `q25`, `median`, `q75`, `q95` (LSI
            in nats), `information` (share of all LSI), `suspected` (share of labels that are suspected),
            `loo_accuracy`, `loo_cross_entropy` (nats per sample); with `test` also `n_test` and
            `test_accuracy`. `attrs["correlation"]` holds the rank correlations of `median`, `suspected` and
            `loo_accuracy` with the test accuracy over the classes.

        Raises:
            InputError: The scores are of another task, or `test` does not fit them.
        """
        return classwise.by_class(self, test)

    def difficulty(self, *, n_bootstrap: int = 500, seed: int = 0) -> Difficulty:
        """Return how hard the dataset is, as one figure that can be compared between datasets.

        Args:
            n_bootstrap: Resamples behind the interval, at least 20.
            seed: Seed of the resampling.

        Returns:
            The leave-one-out cross-entropy as a share of the label entropy, its interval, and the figures
            behind it.

        Raises:
            InputError: The scores are of another task or of one class, or `n_bootstrap` is below 20.
        """
        return difficulty.difficulty(self, n_bootstrap=n_bootstrap, seed=seed)

    def select(
        self,
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
            keep: Share in (0, 1] or number of samples; None: what the `drop_…` arguments leave.
            order: `"useful"` (right and informative), `"largest"` or `"smallest"` LSI, `"right"` (least
                doubtful label first), `"random"`, or shares of several such as
                ``{"largest": 0.7, "smallest": 0.3}``.
            balanced: True: equal numbers of each class, as far as there are; `"proportional"`: the same share
                of each class; False: classes do not count.
            drop_mislabeled: True: suspected labels go first, whatever the order; a share or number: that many
                of the most doubtful ones.
            drop_redundant: Whether all but the most informative of each redundancy group go first.
            seed: Seed of the random order.

        Returns:
            Ascending positions in X, exactly as many as `keep` asks for.

        Raises:
            InputError: A setting cannot be used, nothing would be left, or redundancy groups are missing.
        """
        rows = selection.select(
            self,
            keep,
            order=order,
            balanced=balanced,
            drop_mislabeled=drop_mislabeled,
            drop_redundant=drop_redundant,
            seed=seed,
        )
        return np.sort(self._column("position")[rows])

    def with_redundancy(
        self, X: Any, y: Any = None, *, threshold: float | None = None, by: str = "influence"
    ) -> Self:
        """Return the same scores with a column `redundancy_group` (−1: none; the largest group is 0).

        Args:
            X: `(N, D)` features that were scored.
            y: `(N,)` labels; needed where only some of the samples were scored.
            threshold: Least similarity to a group's representative, in (0, 1]; None: 0.7.
            by: `"influence"` or `"features"`, as in `lsi.redundancy`.

        Returns:
            New scores; `manifest["redundancy"]` says how the groups were found.

        Raises:
            InputError: The scores are of another task, or data or a setting cannot be used.
        """
        level = redundancy.THRESHOLD if threshold is None else threshold
        out = self.with_table(redundancy.group_scores(self, X, y, threshold=level, by=by))
        out.manifest["redundancy"] = {"threshold": level, "by": by}
        return out

    def mislabeled(
        self, *, fdr: float | None = None, top: int | None = None, pred_probs: Any = None
    ) -> pd.DataFrame:
        """Return one row per sample, the label that is most likely wrong first.

        Runs that estimated label noise (`label_noise` of `lsi.score`) have calibrated probabilities. For
        others `wrong_probability` is one minus the probability of the given label under the model that
        never saw the sample, and `suggested_label` that model's most likely label.
        For a regression see `lsi.analysis.targets`, for several labels a sample
        `lsi.analysis.several_labels`: columns `most_doubtful` and `wrong_probability_<name>` tell which.

        Args:
            fdr: Return the longest list of which at most this expected share is right after all; None: all.
                Counted by `wrong_at_least`: empty where the data do not show that any label is wrong.
            top: Return this many rows at most.
            pred_probs: Out-of-sample probabilities of another model, `(n_scored, C)` or `(N, C)`, with the
                columns of `classes`; they take the place of the run's own estimate, as in `lsi.label_noise`.

        Returns:
            Columns `sample_id`, `label`, `suggested_label` (None where it is the given one),
            `wrong_probability`, `lsi`, then `loo_prediction` and, where estimated, `flip_gain`: nats that
            the best other label is better predicted, without the sample, than the given one.

        Raises:
            InputError: `fdr` outside [0, 1], a `top` that is not a positive integer, or `pred_probs` that do
                not fit the scores.
        """
        return mislabeled.mislabeled(self, fdr, top, pred_probs)

    @property
    def label_noise(self) -> LabelNoise:
        """Expected number of wrong labels with its interval, the noise matrix, and `wrong_in_top(n)`.

        Raises:
            InputError: The run did not estimate label noise.
        """
        return mislabeled.label_noise_of(self)

    @property
    def groups(self) -> pd.DataFrame:
        """The LSI of leaving out each group of rows that the run was given, as `Fitted.groups` returns it.

        Raises:
            InputError: The run was given no groups.
        """
        found = self.manifest.get("groups")
        if not found:
            raise InputError("These scores have no groups. Score them again with lsi.score(..., groups=...).")
        return pd.DataFrame(found)

    def plot(self, kind: str = "distribution", ax: Axes | None = None) -> Axes:
        """Draw the scores with matplotlib (extra `plot`).

        Args:
            kind: `"distribution"`, a histogram of LSI, or `"classes"`, one box plot per class.
            ax: Where to draw; None: a new figure.

        Returns:
            The axes, to change or save: `ax.figure.savefig("lsi.pdf")`.

        Raises:
            InputError: matplotlib is missing, the kind is unknown, or there is nothing of that kind to draw.
        """
        return plot(self, kind, ax)

    def _repr_html_(self) -> str:
        return notebook_html(self)


def load(path: PathLike) -> Scores:
    """Read scores that `Scores.save` or the command line wrote.

    Args:
        path: Folder with the scores.

    Returns:
        The scores, equal to those that were saved. Labels and ids that are neither numbers, booleans, dates
        nor strings come back as their `repr`.

    Raises:
        InputError: There are no scores, they are damaged, or another program or version wrote them.
    """
    return Scores.load(path)
