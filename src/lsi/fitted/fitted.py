"""`lsi.fit`: a probe trained and factorised once, then asked many times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.fitted.answer import Answer
from lsi.fitted.asked import Asked
from lsi.fitted.explain import explain_queries, smallest_changes
from lsi.fitted.groups import score_groups
from lsi.fitted.leaks import find_leaks
from lsi.fitted.values import value_groups, value_samples
from lsi.loo.attribution.steps import Steps
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Newton
from lsi.pipeline import check_pairless, make_run, score_run
from lsi.probes.linear import LinearProbe
from lsi.run.context import Clock, Run, check_audit
from lsi.scores import Scores
from lsi.system.device import exact_products
from lsi.system.machine import memory_explained
from lsi.system.progress import Progress
from lsi.tasks import task_of
from lsi.tasks.classification import NewtonFit
from lsi.tasks.sigmoid import HeadsEngine
from lsi.validation.problem import check_subset

TOL = 1e-2  # of answers, where the method has no tolerance
LIMIT = 20  # share of the samples, one in so many, that are removed at most to change a prediction


@memory_explained()
def fit(
    X: Any,
    y: Any,
    *,
    probe: Any = None,
    posterior: str = "diag",
    method: str | Newton = "newton",
    prior_precision: float = 1.0,
    sample_id: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    memory: int | str | None = None,
) -> Fitted:
    """Train a probe and factorise its curvature once; return what answers questions about the data.

    ``lsi.score(X, y)`` is ``lsi.fit(X, y).scores()``.

    Args:
        X: `(N, D)` features, as in `lsi.score`.
        y: `(N,)` labels, or targets of a `RidgeProbe`, or several labels a sample for a `SigmoidProbe`.
        probe: `LinearProbe`, `SigmoidProbe` or `RidgeProbe`; None: ``LinearProbe()``.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        method: ``"newton"``, or `lsi.Newton` with a tolerance, which every answer is certified to.
        prior_precision: τ > 0, precision of the Gaussian prior in the posterior.
        sample_id: `(N,)` unique ids; None: the index of X if it is a DataFrame, else `0 … N−1`.
        seed: Seed for choosing audited samples.
        device: Torch device; None: a GPU if there is one, else the processor.
        memory: What may be used, such as ``"4GiB"`` or bytes; None: what the machine has left.

    Returns:
        The fitted object. It keeps the features, the trained weights and the inverse of the curvature.

    Raises:
        InputError: Data or settings cannot be used, or the probe answers no such questions; the message names
            the cure.
        ConvergenceError: The probe did not reach its optimum.
        OutOfMemoryError: Memory ran out.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> fitted = fit(X, y)
        >>> table = fitted.groups([row // 10 for row in range(150)])
        >>> len(table)
        15
    """
    check_pairless(probe)
    run, settings = make_run(
        lambda task: task.problem(X, y, subset=None, sample_id=sample_id),
        LinearProbe() if probe is None else probe,
        posterior,
        method,
        prior_precision,
        True,
        seed=seed,
        device=device,
        memory=memory,
    )
    return fitted_of(run, settings)


def fitted_of(run: Run, method: Any) -> Fitted:
    """Train the probe of a run."""
    task = task_of(run.probe)
    if task.fit is None or not isinstance(method, Newton):
        kind = type(run.probe).__name__ if task.fit is None else "this method"
        raise InputError(
            f"{kind} keeps no factorised curvature to be asked about. Use LinearProbe, SigmoidProbe or "
            "RidgeProbe with method='newton', or lsi.score for the scores alone."
        )
    with exact_products():
        return Fitted(replace(run, fitted=task.fit(run, method)), method)


class Fitted:
    """A trained probe with its factorised curvature; made by `lsi.fit`.

    Attributes:
        run: Data and settings, with the trained probe in `run.fitted`.
        method: The settings of the method.
    """

    def __init__(self, run: Run, method: Newton) -> None:
        self.run, self.method = run, method
        # First-order steps of each head once a question has asked for them, without the head's solver: those
        # of all heads together might not fit in memory.
        self._steps: dict[int, tuple[Tensor, Tensor, float]] = {}

    @property
    def sample_id(self) -> np.ndarray:
        """Ids of the samples, `(N,)`."""
        return self.run.problem.sample_id

    @property
    def classes(self) -> np.ndarray:
        """The classes' labels, `(C,)`; empty if the target is not a class."""
        return self.run.problem.classes

    @property
    def tol(self) -> float:
        """Relative error that answers are certified to."""
        return TOL if self.method.tol is None else self.method.tol

    def engines(self) -> Iterator[NewtonEngine]:
        """Yield the engine of each head.

        Returns:
            One engine for classes, L for several labels.

        Raises:
            InputError: The probe has none: it is solved in closed form, or has too many weights.
        """
        found = self.run.fitted
        if isinstance(found, NewtonFit) and isinstance(found.engine, NewtonEngine):
            yield found.engine
        elif isinstance(found, HeadsEngine):
            yield from (found.head(label) for label in range(found.n_heads))
        elif isinstance(found, RidgeEngine):
            raise InputError(
                "This question is not answered for a RidgeProbe. Use a LinearProbe or a SigmoidProbe."
            )
        else:
            raise InputError(
                "This probe has too many weights for a dense curvature, and class blocks only rank. Raise "
                "memory=, or use fewer features (a projection) or fewer classes."
            )

    def scores(
        self,
        subset: Any = None,
        *,
        audit: bool | int = True,
        label_noise: bool | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Return what `lsi.score` returns for these data.

        Args:
            subset: Positions to score, or a boolean mask; None: all.
            audit: Whether a few samples are left out again by brute force, or how many.
            label_noise: Whether to estimate which labels are wrong; None: if that takes little time.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each scored sample, in the order requested.

        Raises:
            InputError: A subset that cannot be used.
        """
        check_audit(audit)
        problem = self.run.problem
        problem = replace(problem, subset=check_subset(subset, problem.n_samples))
        clock = Clock()
        clock.seconds.update(self.run.clock.seconds)
        run = replace(self.run, problem=problem, audit=audit, clock=clock, notes={})
        return score_run(run, self.method, label_noise=label_noise, progress=progress)

    def groups(self, groups: Any, *, interaction: bool = True, progress: Progress | None = None) -> Answer:
        r"""Return the Laplace Sample Information of leaving out whole groups of rows, in nats.

        .. math:: \mathrm{LSI}(G) = \mathrm{KL}\bigl(N(\theta, P^{-1})
                  \,\|\, N(\theta_{-G}, P_{-G}^{-1})\bigr)

        Args:
            groups: `(N,)` the group of each row: patient, source, annotator, day, …, as in scikit-learn.
                Missing entries (None, NaN) belong to no group.
            interaction: Whether to score the single rows as well, for the column `interaction`.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each group, sorted by its name: `group`, `n`, `lsi`, `lsi_per_row`, `mean_term`,
            `covariance_term`, `interaction`, `relative_error`. `interaction` is the group's LSI less the sum
            of its rows' LSI. Positive: its rows stand in for each other, so that only leaving out all of them
            shows what they are worth. Negative: one by one they are worth more than together, since their
            pulls cancel.

        Raises:
            InputError: Groups of another length, no group at all, or a group that is all of the data or all
                of a class.
        """
        with exact_products():
            return score_groups(self.engines(), self.run.problem, self.tol, groups, interaction, progress)

    def values(
        self, X_val: Any, y_val: Any, groups: Any = None, *, progress: Progress | None = None
    ) -> pd.DataFrame:
        r"""Return what every training sample is worth to a validation set: exact leave-one-out data values.

        .. math:: V_i = \frac1M \sum_{q=1}^{M} \bigl[\ell_q(\theta_{-i}) - \ell_q(\theta)\bigr]

        where ℓ_q is the cross-entropy of validation row q, and :math:`\theta_{-i}` the optimum of the probe
        without sample i. **Positive: the loss is higher without the sample, so the sample helps. Negative:
        the loss is lower without it, so the sample hurts.** The column `effect` says so in words. Values of
        several labels are sums over the labels.

        Args:
            X_val: `(M, D)` validation rows, with the features that the probe was trained on.
            y_val: Their labels, as in `fit`.
            groups: `(N,)` the group of each training row, as in `groups`; then values are those of leaving
                out whole groups. None: those of single samples.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each training sample, in the order of the training data, or for each group:
            `sample_id` (or `group`, `n`); `loss_change`, mean validation loss without it minus with it, nats;
            `effect`, "helps" or "hurts", or "unclear" where the error is as large as the value;
            `accuracy_change`, validation accuracy without it minus with it, for several labels the mean over
            them; and `relative_error`, an upper estimate of `|loss_change − exact| / |loss_change|`. Samples
            whose value is next to nothing have large relative errors. Of samples that were not walked to
            their optimum, `accuracy_change` is that of the first-order step.

        Raises:
            InputError: Validation rows with other columns, none at all, with NaN, or with labels that the
                probe was never trained on; groups that cannot be used; a probe that answers no such question.

        Source:
            Leave-one-out values as in Ghorbani and Zou, *Data Shapley*, 2019; computed from one factorisation
            as docs/explanation/method.md explains.

        Examples:
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> values = fit(X[::2], y[::2]).values(X[1::2], y[1::2])
            >>> values.columns.tolist()
            ['sample_id', 'loss_change', 'effect', 'accuracy_change', 'relative_error']
        """
        asked = self._asked(X_val, _given(y_val))
        with exact_products():
            if groups is None:
                return value_samples(self.engines(), asked, self.tol, progress)
            return value_groups(self.engines(), asked, groups, progress)

    def explain(
        self, X: Any, y: Any = None, k: int = 10, *, progress: Progress | None = None
    ) -> pd.DataFrame:
        r"""Return the training samples that made the probe's answers to some rows.

        For row q with label y, the change of its loss :math:`-\log p_y` and of its logit
        :math:`\log\frac{p_y}{1 - p_y}` when sample i is left out and the probe trained again. The samples of
        the largest changes are found by first-order steps; those that are returned are walked to their
        leave-one-out optimum.

        Args:
            X: `(Q, D)` rows, with the features that the probe was trained on.
            y: The labels whose losses are asked about; None: the probe's own predictions.
            k: How many samples to return on each side.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            Up to 2k rows for each query: `query`, its name in the index of a DataFrame, else its position;
            `rank`, 1 … k for the samples whose removal raises the loss the most, which spoke for the label,
            and −1 … −k for those whose removal lowers it the most, which spoke against it; `sample_id`;
            `loss_change`, loss without the sample minus with it, nats; `logit_change`, log-odds of the label
            without it minus with it, for several labels the sum over them; `changes_prediction`, whether
            another class is predicted without it; `relative_error`, an upper estimate of
            `|loss_change − exact| / |loss_change|`.

        Raises:
            InputError: Rows that cannot be used, labels that the probe was never trained on, k below one, or
                a probe that answers no such question.

        Examples:
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> fit(X[::2], y[::2]).explain(X[1:3], k=2)["rank"].tolist()
            [1, 2, -1, -2, 1, 2, -1, -2]
        """
        _check_count(k, "k")
        asked = self._asked(X, y)
        with exact_products():
            return explain_queries(self._heads, asked, k, progress)

    def smallest_change(
        self, X: Any, *, limit: int | None = None, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Return for each row the smallest set found of training samples that its prediction hangs on.

        Without these samples the prediction is another one. The set is found greedily: samples are priced by
        first-order steps, half of those that seem to be needed are removed, the probe is brought to its new
        optimum, and the others are priced again there. That the prediction has changed is read off an
        optimum, never off an approximation. A smaller set may exist, unless one sample does it.

        Args:
            X: `(Q, D)` rows, with the features that the probe was trained on.
            limit: Most samples that may be removed; None: a twentieth of the training data.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each query: `query`; `prediction` from all data; `changes_to`, the prediction without
            the set; `found`, whether there is a set within the limit; `n`, its size; `sample_ids`, the set,
            strongest first; `logit`, how far the old class is ahead of the new one without it, negative.

        Raises:
            InputError: Rows that cannot be used, a limit below one, or a probe that answers no such question.
        """
        most = max(1, self.run.problem.n_samples // LIMIT) if limit is None else limit
        _check_count(most, "limit")
        asked = self._asked(X)
        with exact_products():
            return smallest_changes(self._heads, asked, most, progress)

    def leaks(self, X_test: Any, y_test: Any = None, *, progress: Progress | None = None) -> pd.DataFrame:
        """Return which test rows training rows give away, and which no training row is like.

        Three things spoil a test set. A test row may be a near-copy of a training row: so much nearer to it
        than to the next ones that the chance of such a ratio of distances is tiny
        (docs/explanation/method.md). Its prediction may hang on one training row, without which it is
        another. And it may be far from everything: farther from its nearest training row than all but one in
        a hundred training rows are from theirs. One test row in a hundred is so by chance; many more mean
        that the test rows come from elsewhere.

        Args:
            X_test: `(M, D)` rows, with the features that the probe was trained on.
            y_test: Their labels, to tell copies that agree from copies that do not; None: without.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each test row: `query`; `prediction`; `nearest`, the nearest training row, in
            standardised columns; `distance` to it; `same_label`, whether it has the test row's label;
            `copy_p`, chance that a row which is no copy comes as near to one training row compared with the
            next ones; `far_p`, share of training rows that are as far from all others; `hangs_on`, the
            training row without which the prediction is another; and `finding`, in plain words, empty where
            nothing was found. A table of rows without copies names any as a copy with a chance of 5 %.

        Raises:
            InputError: Rows that cannot be used, labels that the probe was never trained on, or a probe that
                answers no such question.
        """
        asked = self._asked(X_test, y_test)
        with exact_products():
            return find_leaks(self._heads, asked, progress)

    def _asked(self, X: Any, y: Any = None) -> Asked:
        """Return new rows, checked, if the probe answers questions about such."""
        next(self.engines())
        return Asked.of(self.run, X, y)

    def _heads(self) -> Iterator[tuple[NewtonEngine, Steps]]:
        """Yield the engine of each head with its first-order steps, which are kept."""
        for head, engine in enumerate(self.engines()):
            kept = self._steps.get(head)
            steps = Steps.of(engine.solver) if kept is None else Steps(engine.solver, *kept)
            self._steps[head] = steps.m, steps.decay, steps.longest
            yield engine, steps


def _check_count(count: Any, name: str) -> None:
    """Refuse what is no number of samples."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {count!r}.")


def _given(y: Any) -> Any:
    """Refuse labels that are missing."""
    if y is None:
        raise InputError("y_val is None. Pass the label of each validation row.")
    return y
