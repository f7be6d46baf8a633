"""The pipeline from features and labels to scores: a table of contents of the library."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint, digest_of
from lsi.execution.opening import open_work
from lsi.execution.work import Shard
from lsi.methods import METHODS, Method, Newton, Retrain, as_method
from lsi.noisy_labels.stage import add_label_noise, check_label_noise, check_label_noise_room
from lsi.posterior import POSTERIORS
from lsi.probes.contrastive import ContrastiveProbe
from lsi.probes.linear import LinearProbe
from lsi.run.context import Clock, Run, check_audit
from lsi.run.key import run_key
from lsi.run.manifest import build_manifest, build_table, describe_run, fingerprint
from lsi.run.shards import check_shard, describe_shard
from lsi.scores import Scores
from lsi.system.device import exact_products
from lsi.system.digests import digest_values
from lsi.system.machine import Machine, memory_explained
from lsi.system.progress import Progress
from lsi.system.text import parse_size
from lsi.tasks import Task, task_of
from lsi.tasks.decay import with_weight_decay
from lsi.tasks.feature_check import check_features
from lsi.tasks.groups import describe_groups, groups_of
from lsi.validation.problem import Problem
from lsi.validation.settings import check_choice, check_positive, check_seed

__all__ = ["METHODS", "Run", "check_device", "check_settings", "fingerprint", "score", "score_pairs"]


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
    groups: Any = None,
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
        groups: `(N,)` the group of each row, such as a patient, source or annotator, as in scikit-learn; None
            or NaN: no group. `Scores.groups` then holds the LSI of leaving out each whole group, as
            `Fitted.groups` of `lsi.fit` returns it.
        audit: Whether a few samples are left out again by brute force, or how many.
        seed: Seed for choosing the audited samples.
        device: Torch device; None: a GPU if there is one, else the processor.
        memory: What a `Newton` run may use, such as ``"4GiB"`` or bytes, features included: it decides
            solver and block sizes, which move values by rounding only; None: what the machine has left.
        label_noise: Whether to estimate which labels are wrong (`Scores.mislabeled`) in the same run; for
            classification only. None: if that takes little time compared with the scoring.
        checkpoint: Folder for finished blocks. The same call, made again after any end of the process,
            resumes from them and gives the same bytes. Remove it once the scores are saved; None: nothing is
            kept.
        cluster: Address of a Ray cluster, or ``"local"`` for the processors of this machine; None: this
            process.
        shard: Which part of the samples to score, such as ``"3/16"``: `lsi.merge` puts the parts of runs with
            the same data and settings together.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        One row for each scored sample, in the order requested, with audit and manifest.

    Raises:
        InputError: Data or settings cannot be used; the message names the cure. It is a ValueError too.
        ConvergenceError: The probe did not reach its optimum.
        OutputError: The checkpoint cannot be written, or another run is using it.
        OutOfMemoryError: Memory ran out all the same. It is a MemoryError too.
        KeyboardInterrupt: The run was interrupted; with a checkpoint, the message says how much is kept.

    Source:
        Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> scores = score(X, y, audit=4)
        >>> int(scores.top(1)["position"].iloc[0])
        83
    """
    check_pairless(probe)
    check_label_noise(label_noise)
    return _score(
        lambda task: task.problem(X, y, subset=subset, sample_id=sample_id),
        LinearProbe() if probe is None else probe,
        posterior,
        method,
        prior_precision,
        audit,
        seed=seed,
        device=device,
        memory=memory,
        groups=groups,
        label_noise=label_noise,
        checkpoint=checkpoint,
        cluster=cluster,
        shard=shard,
        progress=progress,
    )


def score_pairs(
    left: Any,
    right: Any,
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
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    cluster: str | None = None,
    shard: str | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Scores:
    r"""Return the Laplace Sample Information of pairs, in nats; no labels are needed.

    Two linear heads are trained to bring partners together (`ContrastiveProbe`), and again without each
    pair, which then is neither an anchor nor a candidate for others. With both heads as one vector θ,

    .. math:: \mathrm{LSI}(i) = \mathrm{KL}\bigl(N(\theta, P^{-1}) \,\|\, N(\theta_{-i}, P_{-i}^{-1})\bigr),

    P the Gauss-Newton matrix of the summed InfoNCE loss over *all* pairs plus the prior precision. High:
    partners that do not belong together, or an atypical pair.

    Args:
        left: `(N, D1)` features of the left items: numpy, torch or pandas.
        right: `(N, D2)` features of the right items; row i is the partner of row i.
        probe: What is trained, a `ContrastiveProbe`; None: ``ContrastiveProbe()``.
        posterior: ``"diag"``, ``"kron"`` or ``"full"`` (small heads).
        method: ``"newton"``: the local optimum without the pair that is reached from the full-data optimum;
            ``"retrain"``: plain SGD from the initial weights, many copies at a time. Or either with settings.
        prior_precision: τ > 0.
        subset: Positions to score, or a boolean mask; None: all. The heads learn from all pairs.
        sample_id: `(N,)` unique ids; None: the index of `left` if it is a DataFrame, else `0 … N−1`.
        audit: Whether a few pairs are left out again by brute force, or how many.
        seed: Seed for choosing the audited pairs.
        device: None or ``"cpu"``: pairs are scored on the processor.
        memory: What the run may use, such as ``"4GiB"`` or bytes; a run that needs more is refused before it
            starts. None: what the machine has left.
        checkpoint: Folder for finished blocks. The same call, made again after any end of the process,
            resumes from them and gives the same bytes. Remove it once the scores are saved; None: nothing is
            kept.
        cluster: Address of a Ray cluster, or ``"local"`` for the processors of this machine; None: this
            process.
        shard: None: certificates depend on the scores of all pairs, so that a run cannot be divided.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        One row for each scored pair. `lsi_left` and `lsi_right` are the LSI of each head with the other held,
        `lsi` that of both; `loo_probability` and `loo_rank` tell how well heads that never saw the pair find
        the own partner; `label` is the pair's id and `loo_prediction` the id of the most likely right
        partner.

    Raises:
        InputError: Data or settings cannot be used; the message names the cure.
        ConvergenceError: Training found no strict local optimum.
        OutputError: The checkpoint cannot be written, or another run is using it.
        OutOfMemoryError: Memory ran out all the same. It is a MemoryError too.
        KeyboardInterrupt: The run was interrupted; with a checkpoint, the message says how much is kept.

    Source:
        Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025 (the quantity);
        Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021
        (the loss).

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from lsi import ContrastiveProbe
        >>> X = load_digits().data[:60]
        >>> scores = score_pairs(X[:, :32], X[:, 32:], probe=ContrastiveProbe(dim=4), audit=2)
        >>> len(scores), scores.task
        (60, 'contrastive')
    """
    if probe is not None and not isinstance(probe, ContrastiveProbe):
        kind = type(probe).__name__
        raise InputError(f"probe must be a ContrastiveProbe, got {kind}. Use lsi.ContrastiveProbe(dim=32).")
    return _score(
        lambda task: task.problem(left, right, subset=subset, sample_id=sample_id),
        probe or ContrastiveProbe(),
        posterior,
        method,
        prior_precision,
        audit,
        seed=seed,
        device=device,
        memory=memory,
        checkpoint=checkpoint,
        cluster=cluster,
        shard=shard,
        progress=progress,
    )


def score_problem(problem: Problem, **settings: Any) -> Scores:
    """Return the scores of data that were checked before; settings as in `score` or `score_pairs`."""
    return _score(lambda task: problem, **settings)


@memory_explained()
def _score(
    checked: Callable[[Task], Problem],
    probe: Any,
    posterior: str,
    method: str | Newton | Retrain,
    prior_precision: float,
    audit: bool | int,
    *,
    seed: int,
    device: str | torch.device | None = None,
    memory: int | str | None = None,
    label_noise: bool | None = False,
    shard: str | tuple[int, int] | None = None,
    **opened: Any,
) -> Scores:
    """Check everything, run the task of the probe, and put table and manifest together."""
    check_shard(None if shard is None else Shard.parse(shard), task_of(probe).name)
    run, settings = make_run(
        checked, probe, posterior, method, prior_precision, audit, seed=seed, device=device, memory=memory
    )
    return score_run(run, settings, label_noise=label_noise, shard=shard, **opened)


def make_run(
    checked: Callable[[Task], Problem],
    probe: Any,
    posterior: str,
    method: str | Newton | Retrain,
    prior_precision: float,
    audit: bool | int,
    *,
    seed: int,
    device: str | torch.device | None = None,
    memory: int | str | None = None,
) -> tuple[Run, Method]:
    """Check settings and data, and return what every stage of the run needs; `checked` gives the data."""
    task, settings = task_of(probe), check_settings(probe, posterior, method, prior_precision, audit)
    limit = parse_size(memory)
    problem = checked(task)
    machine = Machine(check_device(device or task.device), limit)
    task.plan(probe, problem, posterior, settings, machine)
    seed = check_seed("seed", seed)
    return Run(problem, probe, posterior, float(prior_precision), audit, seed, machine, Clock()), settings


def score_run(
    run: Run,
    settings: Method,
    *,
    groups: Any = None,
    label_noise: bool | None = False,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    cluster: str | None = None,
    shard: str | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Run the task of the probe, and put table and manifest together."""
    task, part, problem = task_of(run.probe), None if shard is None else Shard.parse(shard), run.problem
    members = None if groups is None else groups_of(groups, run, settings, part)
    if label_noise and problem.n_classes:
        check_label_noise_room(problem.shape(), run.machine.memory)
    described = describe_run(task.name, run, settings, task.data(problem))
    key = {**run_key(described, run), "label_noise": label_noise}
    if members is not None:
        key["groups"] = digest_values(members)
    with open_work(key, checkpoint, cluster, part, run.machine.device, progress) as work:
        run = replace(run, work=work)
        with exact_products():
            run = with_weight_decay(run, settings, task.decay_curve)
            described["config"]["probe"] = run.probe.describe()
            if members is not None and task.fit is not None:
                run = replace(run, fitted=run.fitted or task.fit(run, settings))
            result, measured, report = task.run(run, settings)
            if members is not None:
                run.notes["groups"] = describe_groups(run, settings, members, result.lsi)
            if task.name == "classification" and problem.n_classes:  # several labels a sample are no classes
                add_label_noise(run, result, label_noise)
    if part is not None:
        run.notes["shard"] = describe_shard(part, digest_of(key), result.done)
        problem, result = replace(problem, subset=problem.subset[result.done]), result.select(result.done)
        described["data"]["n_scored"] = len(problem.subset)
    checked_features = check_features(run, problem, result)
    if checked_features is not None:
        run.notes["feature_check"] = checked_features
    table = build_table(task.columns(problem, result), problem, result)
    manifest = build_manifest(run, described, task.manifest(run.problem), report)
    return Scores(table, manifest, measured)


def check_pairless(probe: Any) -> None:
    """Refuse a probe that is trained on pairs."""
    if isinstance(probe, ContrastiveProbe):
        raise InputError(
            "A ContrastiveProbe is trained on pairs. Use lsi.score_pairs(left, right, probe=...)."
        )


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
    """Return the torch device to run on: the given one, else a GPU if there is one."""
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Fails on "meta", whose tensors hold no values, and on "mps", which has no double precision.
        float(torch.zeros(1, dtype=torch.float64, device=where))
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device={device!r} cannot be used ({reason}). Use 'cpu', or 'cuda' with a GPU."
        ) from error
    return where
