"""`lsi.fit`: a probe trained and factorised once, then asked many times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsi.errors import InputError
from lsi.execution.opening import open_work
from lsi.execution.work import Work
from lsi.fitted.answer import Answer
from lsi.fitted.storage import read_fitted, write_fitted
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Newton
from lsi.pipeline import check_pairless, make_run, score_run
from lsi.probes.linear import LinearProbe
from lsi.run.context import Clock, Run, check_audit
from lsi.run.key import run_key
from lsi.run.manifest import describe_run
from lsi.scores import Scores
from lsi.system.device import exact_products
from lsi.system.digests import digest_values
from lsi.system.files import PathLike
from lsi.system.machine import memory_explained
from lsi.system.progress import Progress
from lsi.tasks import task_of
from lsi.tasks.decay import with_weight_decay
from lsi.tasks.groups import TOL, check_membership, group_table, heads_of
from lsi.validation.problem import Problem, check_subset


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
        run = with_weight_decay(run, method, task.decay_curve)
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
        for engine in heads_of(self.run.fitted):
            if isinstance(engine, RidgeEngine):
                raise InputError(
                    "This question is not answered for a RidgeProbe. Use a LinearProbe or a SigmoidProbe."
                )
            yield engine

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
            return Answer(group_table(self.run.fitted, problem, self.tol, groups, interaction, work))

    def _work(
        self, asked: dict[str, Any], checkpoint: Any, cluster: str | None, progress: Progress | None
    ) -> AbstractContextManager[Work]:
        """Return where the blocks of a question are computed and kept; `asked` tells it from others."""
        task = task_of(self.run.probe)
        described = describe_run(task.name, self.run, self.method, task.data(self.run.problem))
        key = {**run_key(described, self.run), "asked": asked}
        return open_work(key, checkpoint, cluster, None, self.run.device, progress)
