"""`Fitted`: a probe that was trained and factorised once, and every question it can be asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.opening import open_work
from lsi.execution.work import Work
from lsi.fitted.answer import Answer
from lsi.fitted.asked import Asked
from lsi.fitted.candidates import score_candidates
from lsi.fitted.choice import choose_rows
from lsi.fitted.errors import find_errors
from lsi.fitted.explain import explain_queries, smallest_changes
from lsi.fitted.leaks import find_leaks
from lsi.fitted.ridge import RidgeAnswers
from lsi.fitted.storage import write_fitted
from lsi.fitted.values import value_groups, value_samples
from lsi.fitted.whatif import (
    is_worth_factorising,
    most_affected,
    rank_changes,
    refactorised,
    relabelled,
    retrained,
    with_rows,
    without,
)
from lsi.loo.attribution.steps import Steps
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Newton
from lsi.pipeline import score_run
from lsi.run.context import Clock, Run, check_audit
from lsi.run.key import run_key
from lsi.run.manifest import describe_run
from lsi.scores import Scores
from lsi.system.device import exact_products
from lsi.system.digests import digest_values
from lsi.system.files import PathLike
from lsi.system.progress import Progress
from lsi.tasks import task_of
from lsi.tasks.groups import TOL, check_membership, group_table, heads_of
from lsi.validation.problem import Problem, check_subset

LIMIT = 20  # share of the samples, one in so many, that are removed at most to change a prediction


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
        self._factorise()
        yield from self._near()

    def _near(self, n_rows: int = 0) -> Iterator[NewtonEngine]:
        """Yield the engine of each head, perhaps with the inverse of a curvature near to that of the probe.

        What certifies itself by true gradients can do with that, for so few rows that factorising would take
        longer.
        """
        self._factorise(n_rows)
        for engine in heads_of(self.run.fitted):
            if isinstance(engine, RidgeEngine):
                raise InputError(
                    "A RidgeProbe predicts numbers: it has no class that a removal could turn into another. "
                    "Ask explain(X, y) for the changes of its predictions."
                )
            yield engine

    @property
    def _ridge(self) -> RidgeAnswers | None:
        """What answers for a `RidgeProbe`."""
        held = self.run.fitted
        return RidgeAnswers(self.run, held) if isinstance(held, RidgeEngine) else None

    def _factorise(self, n_rows: int | None = None) -> None:
        """Factorise the curvature after a change, if solving for so many rows takes as long; None: anyway."""
        if n_rows is None or is_worth_factorising(self.run, n_rows):
            self.run = refactorised(self.run, self.method)

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
        with exact_products():
            self._factorise(len(problem.subset))
        clock = Clock()
        clock.seconds.update(self.run.clock.seconds)
        run = replace(self.run, problem=problem, audit=audit, clock=clock, notes=dict(self.run.notes))
        return score_run(run, self.method, label_noise=label_noise, progress=progress)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write everything into a folder: features, labels, ids, weights, inverse and settings.

        The folder holds plain ``.npy`` arrays and ``manifest.json``. It is written as a whole or not at all.

        Args:
            path: The folder.
            overwrite: Whether a fitted object that is already there is replaced.

        Returns:
            The folder's full path.

        Raises:
            InputError: Ids or labels are neither text nor numbers, or the probe is of a class of your own.
            OutputError: The folder cannot be written, or holds something else.
        """
        with exact_products():
            self._factorise()
        return write_fitted(path, self.run, self.method, overwrite)

    def groups(
        self,
        groups: Any,
        *,
        interaction: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        cluster: str | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        r"""Return the Laplace Sample Information of leaving out whole groups of rows, in nats.

        .. math:: \mathrm{LSI}(G) = \mathrm{KL}\bigl(N(\theta, P^{-1})
                  \,\|\, N(\theta_{-G}, P_{-G}^{-1})\bigr)

        Args:
            groups: `(N,)` the group of each row: patient, source, annotator, day, …, as in scikit-learn.
                Missing entries (None, NaN) belong to no group.
            interaction: Whether to score the single rows as well, for the column `interaction`.
            checkpoint: Folder for finished groups, from which the same call goes on after an interruption.
            cluster: Address of a Ray cluster, or ``"local"``; None: this process.
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
        problem = self.run.problem
        asked = {"groups": digest_values(check_membership(groups, problem)), "interaction": interaction}
        with self._work(asked, checkpoint, cluster, progress) as work, exact_products():
            self._factorise(problem.n_samples)
            return Answer(group_table(self.run.fitted, problem, self.tol, groups, interaction, work))

    def _work(
        self, asked: dict[str, Any], checkpoint: Any, cluster: str | None, progress: Progress | None
    ) -> AbstractContextManager[Work]:
        """Return where the blocks of a question are computed and kept; `asked` tells it from others."""
        task = task_of(self.run.probe)
        described = describe_run(task.name, self.run, self.method, task.data(self.run.problem))
        key = {**run_key(described, self.run), "asked": asked}
        return open_work(key, checkpoint, cluster, None, self.run.device, progress)

    def candidates(
        self, X_new: Any, y_new: Any = None, ids: Any = None, *, progress: Progress | None = None
    ) -> Answer:
        r"""Return the Laplace Sample Information that new rows would have if they joined the data, in nats.

        .. math:: \mathrm{LSI}(x, y) = \mathrm{KL}\bigl(N(\theta_+, P_+^{-1}) \,\|\, N(\theta, P^{-1})\bigr)

        with the weights and the precision after the row has joined (+): what `scores` gives for it once it is
        part of the data, as if no other candidate were. Without labels it is the expectation over the probe's
        own prediction, :math:`\sum_c p_c\, \mathrm{LSI}(x, c)`. With ``class_weight="balanced"``, weights
        stay those of the data as they are.

        Args:
            X_new: `(M, D)` rows with the same features, in the same order.
            y_new: `(M,)` labels that the probe knows, or `(M, L)` for several labels; None: not known.
            ids: `(M,)` unique names of the rows; None: the index of X_new if it is a DataFrame, else
                `0 … M−1`.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each candidate, in the order given: `candidate`, `label` where it was given, `lsi`,
            `mean_term`, `covariance_term`, `relative_error`, and without labels `most_informative_label`,
            the label with which the row would be worth most.

        Raises:
            InputError: Other columns than those of the data, labels never seen, ids given twice, or a probe
                that answers no such question.
        """
        with exact_products():
            if ridge := self._ridge:
                return ridge.candidates(X_new, y_new, ids)
            intercept = self.run.probe.fit_intercept
            given = (self.run.problem, intercept, self.tol, X_new, y_new, ids, progress)
            return score_candidates(self._near(len(X_new)), *given)

    def choose(
        self, X_new: Any, budget: int, ids: Any = None, *, progress: Progress | None = None
    ) -> pd.DataFrame:
        r"""Return which rows to label, greedily: each pick knows those before it.

        .. math:: I(x) = \tfrac12 \ln\det\bigl(I + S\, E^\top H_t^{-1} E\bigr), \qquad
                  S = \mathrm{diag}(p) - p p^\top

        is the information, in nats, that the label of a row is expected to give on the weights; a row that
        was taken adds its expected curvature to H, so that a row like it is worth less from then on.

        Args:
            X_new: `(M, D)` rows with the same features, in the same order.
            budget: How many to take.
            ids: `(M,)` unique names of the rows, as in `candidates`.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            One row for each pick, in the order taken: `candidate`, `position` in X_new, and `gain`, the
            information in nats that it adds to those before.

        Raises:
            InputError: Other columns than those of the data, ids given twice, a budget that is not between 1
                and M, or a probe that answers no such question.

        Source:
            Houlsby et al., *Bayesian Active Learning for Classification and Preference Learning*, 2011 (the
            information); Minoux, *Accelerated greedy algorithms*, 1978 (the lazy search).
        """
        with exact_products():
            if ridge := self._ridge:
                return ridge.choose(X_new, budget, ids, progress)
            intercept = self.run.probe.fit_intercept
            return choose_rows(self.engines(), self.run.problem, intercept, X_new, budget, ids, progress)

    def without(self, ids: Any) -> Fitted:
        """Return the fitted object of the data without some rows.

        Weights and inverse are updated from those that are there, and polished to the optimum: it is the one
        that `lsi.fit` finds.

        Args:
            ids: Ids of the rows, of `sample_id`.

        Returns:
            A new fitted object; this one stays as it is.

        Raises:
            InputError: An id that no row has or that is given twice, or a class of which no row would be
                left.
        """
        return self._of(without(self.run.problem, ids))

    def with_rows(self, X: Any, y: Any, ids: Any = None) -> Fitted:
        """Return the fitted object of the data with more rows, which come last.

        Args:
            X: `(M, D)` rows with the same features, in the same order; they take the data's type.
            y: `(M,)` labels that the probe knows, or targets as in `lsi.fit`.
            ids: `(M,)` ids; None: the index of X if it is a DataFrame, else the whole numbers that follow.

        Returns:
            A new fitted object, as in `without`.

        Raises:
            InputError: Other columns, labels never seen (train with `lsi.fit` on all rows to add a class), or
                ids that are taken.
        """
        return self._of(with_rows(self.run.problem, X, y, ids))

    def relabel(self, labels: Mapping[Any, Any]) -> Fitted:
        """Return the fitted object of the data with other labels for some rows.

        Args:
            labels: The new label of each row by its id.

        Returns:
            A new fitted object, as in `without`.

        Raises:
            InputError: An id that no row has, a label never seen, or a class of which no row would be left.
        """
        return self._of(relabelled(self.run.problem, labels))

    def _of(self, problem: Problem) -> Fitted:
        with exact_products():
            return Fitted(retrained(self.run, self.method, problem, self.tol), self.method)

    def affected(self, before: Fitted, k: int = 1000) -> np.ndarray:
        """Return the rows whose scores a change moves most, for ``scores(subset=...)``.

        They are ranked by the change of LSI to first order, `½ gᵀ H⁻¹ g` with the gradient g of the row's
        loss; rows that joined come first.

        Args:
            before: The fitted object before the change.
            k: How many rows.

        Returns:
            Positions in the changed data, most affected first.

        Raises:
            InputError: The probe has no engine to ask, or k is below 1.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}.")
        with exact_products():
            if (new := self._ridge) and (old := before._ridge):
                return rank_changes(self.run, before.run, [(new.lsi(), old.lsi())], k)
            heads = zip(self._near(), before._near(), strict=True)
            return most_affected(self.run, before.run, heads, k)

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
            them, and none for numbers; and `relative_error`, an upper estimate of
            `|loss_change − exact| / |loss_change|`. Samples whose value is next to nothing have large
            relative errors. Of samples that were not walked to their optimum, `accuracy_change` is that of
            the first-order step.

        Raises:
            InputError: Validation rows with other columns, none at all, with NaN, or with labels that the
                probe was never trained on; groups that cannot be used; a probe that answers no such question.

        Source:
            Leave-one-out values as in Ghorbani and Zou, *Data Shapley*, 2019; computed from one factorisation
            as docs/explanation/method.md explains.

        Examples:
            >>> import lsi
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> values = lsi.fit(X[::2], y[::2]).values(X[1::2], y[1::2])
            >>> values.columns.tolist()
            ['sample_id', 'loss_change', 'effect', 'accuracy_change', 'relative_error']
        """
        y_val = _given(y_val)
        with exact_products():
            if ridge := self._ridge:
                return ridge.values(X_val, y_val, groups, progress)
            asked = self._asked(X_val, y_val)
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
            `loss_change`, loss without the sample minus with it, nats; for a `RidgeProbe`
            `prediction_change` of each target, whose signs are the sides if y is None; else `logit_change`,
            log-odds of the label without it minus with it, for several labels the sum over them, and
            `changes_prediction`, whether another class is predicted without it; `relative_error`, an
            upper estimate of `|loss_change − exact| / |loss_change|`.

        Raises:
            InputError: Rows that cannot be used, labels that the probe was never trained on, k below one, or
                a probe that answers no such question.

        Examples:
            >>> import lsi
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> lsi.fit(X[::2], y[::2]).explain(X[1:3], k=2)["rank"].tolist()
            [1, 2, -1, -2, 1, 2, -1, -2]
        """
        _check_count(k, "k")
        with exact_products():
            if ridge := self._ridge:
                return ridge.explain(X, y, k, progress)
            asked = self._asked(X, y)
            return explain_queries(self._heads, asked, k, progress)

    def errors(self, X_val: Any, y_val: Any) -> pd.DataFrame:
        r"""Return the rows that the probe predicts wrongly, those of the highest loss first.

        The loss of row q with label y is :math:`-\log p_y`; of several labels a sample it is their sum.

        Args:
            X_val: `(M, D)` rows, with the features that the probe was trained on.
            y_val: Their labels, as in `fit`.

        Returns:
            One row for each error: `query`, its name in the index of a DataFrame, else its position;
            `position`; `label`; `prediction`; and `loss` in nats. ``fitted.explain(X_val[position],
            y_val[position])`` says which training samples made them.

        Raises:
            InputError: Rows that cannot be used, labels that the probe was never trained on, or a probe that
                answers no such question.

        Examples:
            >>> import lsi
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> lsi.fit(X[::2], y[::2]).errors(X[1::2], y[1::2])["position"].tolist()
            [66, 41, 64, 65]
        """
        asked = self._asked(X_val, _given(y_val))
        with exact_products():
            return find_errors(self.engines(), asked)

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
        with exact_products():
            if ridge := self._ridge:
                return ridge.leaks(X_test, y_test)
            asked = self._asked(X_test, y_test)
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
