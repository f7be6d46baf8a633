"""`lsi.fit` and `lsi.load_fitted`: where fitted objects come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lsi.errors import InputError
from lsi.fitted.fitted import Fitted
from lsi.fitted.storage import read_fitted
from lsi.methods import Newton
from lsi.pipeline import check_pairless, make_run
from lsi.probes.linear import LinearProbe
from lsi.run.context import Run
from lsi.system.device import exact_products
from lsi.system.files import PathLike
from lsi.system.machine import memory_explained
from lsi.tasks import task_of
from lsi.tasks.decay import with_weight_decay
from lsi.validation.problem import Problem


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
