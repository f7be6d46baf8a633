"""`lsi.fit`: a probe trained and factorised once, then asked many times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.errors import InputError
from lsi.fitted.answer import Answer
from lsi.fitted.candidates import score_candidates
from lsi.fitted.choice import choose_rows
from lsi.fitted.groups import score_groups
from lsi.fitted.storage import read_fitted, write_fitted
from lsi.fitted.whatif import most_affected, relabelled, retrained, with_rows, without
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Newton
from lsi.pipeline import check_pairless, make_run, score_run
from lsi.probes.linear import LinearProbe
from lsi.run.context import Clock, Run, check_audit
from lsi.scores import Scores
from lsi.system.device import exact_products
from lsi.system.files import PathLike
from lsi.system.machine import memory_explained
from lsi.system.progress import Progress
from lsi.tasks import task_of
from lsi.tasks.classification import NewtonFit
from lsi.tasks.sigmoid import HeadsEngine
from lsi.validation.problem import Problem, check_subset

TOL = 1e-2  # of answers, where the method has no tolerance


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


@memory_explained()
def fit_problem(problem: Problem, notes: dict[str, Any], **settings: Any) -> Fitted:
    """Train on data that were checked before; `notes` go into the manifest of whatever is made from it."""
    run, method = make_run(lambda task: problem, audit=True, **settings)
    run.notes.update(notes)
    return fitted_of(run, method)


@memory_explained()
def load_fitted(
    path: PathLike, *, device: str | torch.device | None = None, memory: int | str | None = None
) -> Fitted:
    """Read a fitted object that `Fitted.save` or ``lsi fit`` wrote.

    Args:
        path: The folder.
        device: Torch device; None: a GPU if there is one, else the processor.
        memory: What may be used, such as ``"4GiB"`` or bytes; None: what the machine has left.

    Returns:
        The fitted object. On the same machine it answers with the same bytes as the one that was saved.

    Raises:
        InputError: There is no fitted object, it is damaged or of another version, or its parts do not belong
            together.
        OutOfMemoryError: Memory ran out.
    """
    with exact_products():
        return Fitted(*read_fitted(path, device, memory))


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
        return write_fitted(path, self.run, self.method, overwrite)

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
            intercept = self.run.probe.fit_intercept
            given = (self.run.problem, intercept, self.tol, X_new, y_new, ids, progress)
            return score_candidates(self.engines(), *given)

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
            heads = zip(self.engines(), before.engines(), strict=True)
            return most_affected(self.run, before.run, heads, k)
