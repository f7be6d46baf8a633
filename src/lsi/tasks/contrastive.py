"""Scores of pairs without labels: two frozen encoders' features, two heads, one contrastive loss."""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint
from lsi.execution.opening import open_work
from lsi.execution.work import Arrays, Work
from lsi.loo.contrastive.exact import audit_pairs
from lsi.loo.contrastive.fit import fit
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.newton import PairNewton, check_size
from lsi.loo.contrastive.precision import PAIR_PRECISIONS, PairPrecision
from lsi.loo.contrastive.result import PairResult
from lsi.loo.contrastive.retrain import PairRetrain, check_retrain
from lsi.methods import Newton, Retrain, as_method
from lsi.probes.contrastive import ContrastiveProbe
from lsi.run.context import Clock, check_audit
from lsi.run.key import rows_key
from lsi.scores import Scores
from lsi.system.machine import Machine
from lsi.system.progress import Progress
from lsi.system.versions import versions
from lsi.validation.problem import Problem, check_problem
from lsi.validation.settings import check_choice, check_positive

MIN_PAIRS = 4
FULL_LIMIT = 2048
"""Beyond so many weights a dense posterior for every pair is refused."""


def score_pairs(
    left: Any,
    right: Any,
    *,
    probe: ContrastiveProbe | None = None,
    posterior: str = "diag",
    method: str | Newton | Retrain = "newton",
    prior_precision: float = 1.0,
    subset: Any = None,
    sample_id: Any = None,
    audit: bool | int = True,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    cluster: str | None = None,
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
        probe: What is trained; None: ``ContrastiveProbe()``.
        posterior: ``"diag"``, ``"kron"`` or ``"full"`` (small heads).
        method: ``"newton"``: the local optimum without the pair that is reached from the full-data one;
            ``"retrain"``: plain SGD from the initial weights, many copies at a time. Or either with settings.
        prior_precision: τ > 0.
        subset: Positions to score, or a boolean mask; None: all. The heads learn from all pairs.
        sample_id: `(N,)` unique ids; None: the index of `left` if it is a DataFrame, else `0 … N−1`.
        audit: Whether a few pairs are left out again by brute force, or how many.
        seed: Of the choice of audited pairs.
        checkpoint: Folder for finished blocks. The same call, made again after any end of the process, goes
            on from them to the same bytes. Remove it when the scores are saved; None: nothing is kept.
        cluster: Address of a Ray cluster, or ``"local"`` for the processors of this machine; None: this
            process.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        One row a scored pair. `lsi_left` and `lsi_right` are the LSI of each head with the other held, `lsi`
        that of both; `loo_probability` and `loo_rank` say how well heads that never saw the pair find the own
        partner; `label` is the pair's id and `loo_prediction` the id of the likeliest right partner.

    Raises:
        InputError: Data or settings cannot be used; the message names the cure.
        ConvergenceError: Training found no strict local optimum.
        OutputError: The checkpoint cannot be written, or another run is at work in it.

    Source:
        Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025 (the quantity);
        Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021
        (the loss).

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> X = load_digits().data[:60]
        >>> scores = score_pairs(X[:, :32], X[:, 32:], probe=ContrastiveProbe(dim=4), audit=2)
        >>> len(scores), scores.task
        (60, 'contrastive')
    """
    probe = ContrastiveProbe() if probe is None else probe
    settings = check_pair_settings(probe, posterior, method, prior_precision, audit)
    problem, other = check_pairs(left, right, subset=subset, sample_id=sample_id)
    shape = problem.n_features + other.shape[1]
    _check_heads(probe.dim * shape, posterior, settings)
    clock = Clock()
    described = {
        "task": "contrastive",
        "versions": versions(),
        "config": {
            "probe": probe.describe(),
            "posterior": posterior,
            "method": settings.describe(),
            "prior_precision": float(prior_precision),
            "seed": int(seed),
            "device": "cpu",
        },
        "data": {
            "n_samples": problem.n_samples,
            "n_features": problem.n_features,
            "n_features_right": int(other.shape[1]),
            "n_scored": len(problem.subset),
            "fingerprint": _fingerprint(problem.features, other),
        },
    }
    machine = Machine(torch.device("cpu"))
    key = {**described, **rows_key(problem, audit, machine)}
    with open_work(key, checkpoint, cluster, None, machine.device, progress) as work:
        model = PairModel.build(problem.features, other, probe)
        engine, report = _engine(model, settings, posterior, float(prior_precision), clock, work)
        index = torch.from_numpy(problem.subset)
        with clock("leave-one-out"):
            result = engine.run(index, work)
        with clock("audit"):
            count = min(_audit_count(audit, settings), len(index))
            measured = audit_pairs(engine, index, result, count, seed, work) if count else None
    manifest = {
        **described,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "classes": [],
        "timings": clock.seconds,
        "fit": report,
    }
    return Scores(_table(problem, result), manifest, measured)


def _engine(
    model: PairModel,
    settings: Newton | Retrain,
    posterior: str,
    prior_precision: float,
    clock: Clock,
    work: Work,
) -> tuple[PairNewton | PairRetrain, dict[str, Any]]:
    """Return what leaves pairs out, after the fit that it needs, and what to report of that."""

    def build(theta: torch.Tensor) -> PairPrecision:
        dtype = torch.float64 if len(theta) * len(model.x) < 1 << 22 else torch.float32
        return PAIR_PRECISIONS[posterior](model, theta, prior_precision, dtype)

    if isinstance(settings, Retrain):
        return PairRetrain(model, build, settings), {}
    with clock("fit"):
        kept = work.once("fit", lambda: _fitted(model, work.progress))
        theta = torch.from_numpy(kept["theta"])
    with clock("posterior"):
        precision = build(theta)
    with clock("factor"):
        engine = PairNewton(model, theta, precision, settings)
    report = {name: value.item() for name, value in kept.items() if name != "theta"}
    return engine, {**report, "curvature": engine.curvature}


def _fitted(model: PairModel, progress: Progress | None) -> Arrays:
    theta, fitted = fit(model, _ticker(progress))
    return {"theta": theta.numpy(), **{name: np.array(value) for name, value in asdict(fitted).items()}}


def check_pair_settings(
    probe: Any, posterior: Any, method: Any, prior_precision: Any, audit: Any
) -> Newton | Retrain:
    """Check everything that does not need the data."""
    if not isinstance(probe, ContrastiveProbe):
        kind = type(probe).__name__
        raise InputError(f"probe must be a ContrastiveProbe, got {kind}. Use lsi.ContrastiveProbe(dim=32).")
    check_choice("posterior", posterior, PAIR_PRECISIONS)
    check_positive("prior_precision", prior_precision)
    check_audit(audit, "pairs")
    settings = as_method(method)
    if isinstance(settings, Retrain):
        check_retrain(settings)
        return settings
    if probe.weight_decay == 0:
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined: scale and rotation of the heads are "
            "free. Use a positive weight_decay such as 0.3, or method='retrain'."
        )
    if settings.added_weight_decay:
        raise InputError("added_weight_decay is for linear probes. Set ContrastiveProbe(weight_decay=...).")
    return settings


def check_pairs(
    left: Any, right: Any, *, subset: Any = None, sample_id: Any = None
) -> tuple[Problem, np.ndarray]:
    """Check both sides' features before any work."""
    sides = []
    for name, values in (("left", left), ("right", right)):
        try:
            rows = len(values)
        except TypeError as error:
            raise InputError(f"{name} must be a table of features, got {type(values).__name__}.") from error
        stand_in = np.arange(rows) % 2  # the gate checks labels too, and pairs have none
        extra = {"subset": subset, "sample_id": sample_id} if name == "left" else {}
        try:
            sides.append(check_problem(values, stand_in, **extra))
        except InputError as error:
            raise InputError(f"The {name} side: {error}") from error
    one, other = sides
    if one.n_samples != other.n_samples:
        raise InputError(
            f"left has {one.n_samples} rows and right {other.n_samples}. Pass partners in equal rows."
        )
    if one.n_samples < MIN_PAIRS:
        raise InputError(
            f"{one.n_samples} pairs: at least {MIN_PAIRS} are needed to compare and leave one out."
        )
    if (
        isinstance(left, pd.DataFrame)
        and isinstance(right, pd.DataFrame)
        and not left.index.equals(right.index)
    ):
        raise InputError("left and right have different indexes. Align them: right = right.loc[left.index].")
    return one, other.features


def _check_heads(n_weights: int, posterior: str, settings: Newton | Retrain) -> None:
    if isinstance(settings, Newton):
        check_size(n_weights)
    if posterior == "full" and n_weights > FULL_LIMIT:
        raise InputError(
            f"posterior='full' takes at most {FULL_LIMIT} weights of both heads, not {n_weights:,}. "
            "Use posterior='diag' or 'kron', a smaller dim, or fewer features."
        )


def _audit_count(audit: bool | int, settings: Newton | Retrain) -> int:
    if isinstance(audit, bool):
        return (12 if isinstance(settings, Newton) else 4) if audit else 0
    return int(audit)


def _ticker(progress: Progress | None) -> Any:
    if progress is None:
        return None
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress("fit", done, 0)

    return tick


def _table(problem: Problem, result: PairResult) -> pd.DataFrame:
    ids, where = problem.sample_id, problem.subset
    return pd.DataFrame(
        {
            "sample_id": ids[where],
            "position": where,
            "label": ids[where],
            "lsi": result.lsi,
            "mean_term": result.mean_term,
            "covariance_term": result.covariance_term,
            "loo_probability": result.loo_probability,
            "loo_prediction": ids[result.loo_prediction],
            "leverage": result.leverage,
            "relative_error": result.relative_error,
            "lsi_left": result.lsi_left,
            "lsi_right": result.lsi_right,
            "loo_rank": result.loo_rank,
        }
    )


def _fingerprint(left: np.ndarray, right: np.ndarray) -> str:
    digest = hashlib.sha256()
    for side in (left, right):
        digest.update(str((side.shape, side.dtype.str)).encode())
        for start in range(0, len(side), 8192):
            digest.update(np.ascontiguousarray(side[start : start + 8192]).tobytes())
    return digest.hexdigest()
