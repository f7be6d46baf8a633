"""The pipeline from features and labels to scores: a table of contents of the library."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint, digest_of
from lsi.execution.opening import open_work
from lsi.execution.work import Shard
from lsi.label_noise.stage import add_label_noise, check_label_noise, check_label_noise_room
from lsi.methods import METHODS, Method, Newton, Retrain, as_method
from lsi.posterior import POSTERIORS
from lsi.probes.linear import LinearProbe
from lsi.run.context import Clock, Run, check_audit
from lsi.run.key import run_key
from lsi.run.manifest import build_manifest, build_table, describe_run, fingerprint
from lsi.run.shards import check_shard, describe_shard
from lsi.scores import Scores
from lsi.system.machine import Machine
from lsi.system.progress import Progress
from lsi.system.text import parse_size
from lsi.tasks import task_of
from lsi.validation.settings import check_choice, check_positive

__all__ = ["METHODS", "Run", "check_device", "check_settings", "fingerprint", "score"]


def score(
    X: Any,
    y: Any,
    *,
    probe: Any = None,
    posterior: str = "diag",
    method: str | Newton | Retrain = "newton",
    prior_precision: float = 1.0,
    subset: Any = None,
    sample_id: Any = None,
    audit: bool | int = True,
    seed: int = 0,
    device: str | torch.device | None = None,
    memory: int | str | None = None,
    label_noise: bool | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    cluster: str | None = None,
    shard: str | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Scores:
    r"""Return the Laplace Sample Information of training samples, in nats.

    .. math:: \mathrm{LSI}(i) = \mathrm{KL}\bigl(N(\theta, P^{-1}) \,\|\, N(\theta_{-i}, P_{-i}^{-1})\bigr)

    with :math:`\theta` the trained weights, P the posterior precision in the chosen structure, and the
    subscript −i for the same without sample i. High: atypical, hard or mislabeled. Low: typical or redundant.

    Args:
        X: `(N, D)` features: numpy, torch or pandas.
        y: `(N,)` labels of any hashable type; `(N,)` or `(N, T)` numbers for a `RidgeProbe`; for a
            `SigmoidProbe` labels of two classes, or `(N, L)` zeros and ones, or a list of labels a sample.
        probe: What is trained: `LinearProbe`, `RidgeProbe`, `SigmoidProbe`, …; it decides what y has to be.
            None: ``LinearProbe()``.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        method: ``"newton"`` (the leave-one-out optimum), ``"retrain"`` (the paper's stopped training), or
            either with settings.
        prior_precision: τ > 0, precision of the Gaussian prior in the posterior.
        subset: Positions to score, or a boolean mask; None: all.
        sample_id: `(N,)` unique ids; None: the index of X if it is a DataFrame, else `0 … N−1`.
        audit: Whether a few samples are left out again by brute force, or how many.
        seed: Of the choice of audited samples.
        device: Torch device; None: a GPU where there is one, else the processor.
        memory: What a `Newton` run may use, such as ``"4GiB"`` or bytes, features included: it decides
            solver and block sizes, which move values by rounding only; None: what the machine has left.
        label_noise: Whether to estimate which labels are wrong (`Scores.mislabeled`) in the same run; for
            classification only. None: where it is quick beside the scoring.
        checkpoint: Folder for finished blocks. The same call, made again after any end of the process, goes
            on from them to the same bytes. Remove it when the scores are saved; None: nothing is kept.
        cluster: Address of a Ray cluster, or ``"local"`` for the processors of this machine; None: this
            process.
        shard: Which part of the samples to score, as ``"3/16"``: the parts of runs with the same data and
            settings make up the whole by `lsi.merge`.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        One row a scored sample, in the order asked for, with audit and manifest.

    Raises:
        InputError: Data or settings cannot be used; the message names the cure. It is a ValueError too.
        ConvergenceError: The probe did not reach its optimum.
        OutputError: The checkpoint cannot be written, or another run is at work in it.
        KeyboardInterrupt: The run was interrupted; with a checkpoint, it says how much is kept.

    Source:
        Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> scores = score(X, y, audit=4)
        >>> int(scores.top(1)["position"].iloc[0])
        83
    """
    probe = LinearProbe() if probe is None else probe
    settings = check_settings(probe, posterior, method, prior_precision, audit)
    check_label_noise(label_noise)
    limit, part = parse_size(memory), None if shard is None else Shard.parse(shard)
    task = task_of(probe)
    check_shard(part, task)
    problem = task.problem(X, y, subset=subset, sample_id=sample_id)
    where = check_device(device)
    machine = Machine(where, limit)
    task.plan(problem, posterior, settings, machine)
    if label_noise and problem.n_classes:
        check_label_noise_room(problem.shape(), limit)
    run = Run(problem, probe, posterior, float(prior_precision), audit, int(seed), machine, Clock())
    described = describe_run(task, run, settings)
    key = {**run_key(described, run), "label_noise": label_noise}
    with open_work(key, checkpoint, cluster, part, where, progress) as work:
        run = replace(run, work=work)
        result, measured, report = task.run(run, settings)
        if task.name == "classification" and problem.n_classes:  # several labels a sample are no classes
            add_label_noise(run, result, label_noise)
    if part is not None:
        run.notes["shard"] = describe_shard(part, digest_of(key), result.done)
        problem, result = replace(problem, subset=problem.subset[result.done]), result.select(result.done)
        described["data"]["n_scored"] = len(problem.subset)
    table, manifest = build_table(task, problem, result), build_manifest(task, run, described, report)
    return Scores(table, manifest, measured)


def check_settings(
    probe: Any,
    posterior: Any,
    method: Any,
    prior_precision: Any,
    audit: Any,
) -> Method:
    """Check everything that does not need the data."""
    task = task_of(probe)
    check_choice("posterior", posterior, POSTERIORS)
    check_positive("prior_precision", prior_precision)
    check_audit(audit)
    settings = as_method(method)
    task.check(probe, posterior, settings)
    return settings


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the torch device to run on: the one named, else a GPU where there is one."""
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        float(torch.zeros(1, device=where))  # the device "meta" makes tensors, but they hold nothing
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device={device!r} cannot be used ({reason}). Use 'cpu', or 'cuda' with a GPU."
        ) from error
    return where
