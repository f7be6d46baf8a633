"""Pairs without labels: features of two frozen encoders, two linear heads, one contrastive loss."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.work import Arrays
from lsi.loo.contrastive.cost import newton_cost, retrain_cost
from lsi.loo.contrastive.fit import fit
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.newton import PairNewton, check_size
from lsi.loo.contrastive.precision import PAIR_PRECISIONS, PairPrecision
from lsi.loo.contrastive.retrain import PairRetrain, check_retrain
from lsi.loo.result import LooResult
from lsi.methods import Method, Newton, Retrain
from lsi.planning.cost import Estimate, product_rate
from lsi.planning.plan import budget
from lsi.run.context import Outcome, Run
from lsi.system.digests import add_matrix
from lsi.system.machine import Machine
from lsi.system.progress import Progress, ticks
from lsi.system.text import size_text
from lsi.tasks.base import Task
from lsi.validation.problem import Problem, check_problem

MIN_PAIRS = 4
FULL_LIMIT = 2048
"""Most weights of both heads for posterior='full', which builds a dense precision for every pair."""


@dataclass(frozen=True, eq=False)
class PairProblem(Problem):
    """Checked pairs: `features` are those of the left items; there are no classes.

    Attributes:
        right: `(N, D2)` features of the right items, row i the partner of row i.
    """

    right: np.ndarray = field(kw_only=True)


def check(probe: Any, posterior: str, method: Method) -> None:
    """Refuse methods that pairs do not support, and an optimum that is not defined."""
    if isinstance(method, Retrain):
        check_retrain(method)
        return
    if probe.weight_decay == 0:
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined: scale and rotation of the heads are "
            "free. Use a positive weight_decay such as 0.3, or method='retrain'."
        )
    if method.added_weight_decay:
        raise InputError("added_weight_decay is for linear probes. Set ContrastiveProbe(weight_decay=...).")


def problem(left: Any, right: Any, *, subset: Any = None, sample_id: Any = None) -> PairProblem:
    """Check both sides' features. Shapes: left `(N, D1)`, right `(N, D2)`."""
    one = _side("left", left, subset=subset, sample_id=sample_id)
    other = _side("right", right)
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
    none = np.empty(0, dtype=object)
    return PairProblem(one.features, none, none, one.sample_id, one.subset, right=other.features)


def _side(name: str, values: Any, **more: Any) -> Problem:
    """Return one side, checked as the features of labelled samples are; the labels are made up."""
    try:
        rows = len(values)
    except TypeError as error:
        raise InputError(f"{name} must be a table of features, got {type(values).__name__}.") from error
    try:
        return check_problem(values, np.arange(rows) % 2, **more)
    except InputError as error:
        raise InputError(f"The {name} side: {error}") from error


def plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse heads that are too large, a run that does not fit in memory, and a GPU."""
    if machine.device.type != "cpu":
        raise InputError(
            f"Pairs are scored on the processor, not on {str(machine.device)!r}. Leave device out."
        )
    n_weights = probe.dim * (problem.n_features + _right(problem).shape[1])
    if isinstance(method, Newton):
        check_size(n_weights)
    if posterior == "full" and n_weights > FULL_LIMIT:
        raise InputError(
            f"posterior='full' takes at most {FULL_LIMIT} weights of both heads, not {n_weights:,}. "
            "Use posterior='diag' or 'kron', a smaller dim, or fewer features."
        )
    need, have = _cost(probe, problem, posterior, method)[1], budget(machine.memory)
    if have is not None and need > have:
        raise InputError(
            f"{problem.n_samples:,} pairs and {n_weights:,} weights need about {size_text(need)}, but "
            f"{size_text(have)} are available. Set ContrastiveProbe(batch_size=...), lower its dim, or "
            "reduce the features (for example with sklearn.decomposition.PCA)."
        )


def cost(probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None) -> Estimate:
    """Return the predicted time and memory."""
    operations, count = _cost(probe, problem, posterior, method)
    return Estimate(0.3 + operations / product_rate(torch.float64), count)


def _cost(probe: Any, problem: Problem, posterior: str, method: Method) -> tuple[float, int]:
    """Return the operations and the bytes of a run."""
    n, d = problem.n_samples, problem.n_features + _right(problem).shape[1]
    batch = min(n, probe.batch_size or n)
    shape = (n, batch, probe.dim, probe.dim * d, len(problem.subset))
    if isinstance(method, Retrain):
        operations, count = retrain_cost(*shape, method.epochs)
    else:
        operations, count = newton_cost(*shape, posterior != "full", method.tol is not None)
    return operations, count + 16 * n * d + (32 * shape[3] ** 2 if posterior == "full" else 0)


def run(run: Run, method: Method) -> Outcome:
    """Score pairs: train both heads → posterior → leave-one-out → audit."""
    assert isinstance(run.problem, PairProblem)
    model = PairModel.build(run.problem.features, run.problem.right, run.probe)
    engine, report = _engine(run, model, method)
    with run.clock("leave-one-out"):
        result = engine.run(run.index, run.work)
    return result, run.audited(engine, result, 12 if isinstance(method, Newton) else 4), report


def _engine(run: Run, model: PairModel, method: Method) -> tuple[PairNewton | PairRetrain, dict[str, Any]]:
    """Return the engine and the report of the fit that it needs."""

    def build(theta: Tensor) -> PairPrecision:
        dtype = torch.float64 if len(theta) * len(model.x) < 1 << 22 else torch.float32
        return PAIR_PRECISIONS[run.posterior](model, theta, run.prior_precision, dtype)

    if isinstance(method, Retrain):
        return PairRetrain(model, build, method), {}
    with run.clock("fit"):
        kept = run.work.once("fit", lambda: _fitted(model, run.progress))
        theta = torch.from_numpy(kept["theta"])
    with run.clock("posterior"):
        precision = build(theta)
    with run.clock("factor"):
        engine = PairNewton(model, theta, precision, method)
    report = {name: value.item() for name, value in kept.items() if name != "theta"}
    return engine, {**report, "curvature": engine.curvature}


def _fitted(model: PairModel, progress: Progress | None) -> Arrays:
    theta, report = fit(model, ticks(progress, "fit", 0))
    return {"theta": theta.numpy(), **{name: np.array(value) for name, value in asdict(report).items()}}


def columns(problem: Problem, result: LooResult) -> dict[str, np.ndarray]:
    """Return the pair's id as its label, and the id of the left item's most likely partner."""
    ids = problem.sample_id
    return {
        "label": ids[problem.subset],
        "loo_probability": result.loo_probability,
        "loo_prediction": ids[result.loo_prediction],
    }


def manifest(problem: Problem) -> dict[str, Any]:
    """Say that there are no classes."""
    return {"classes": []}


def data(problem: Problem) -> dict[str, Any]:
    """Return sizes and fingerprint of both sides, as JSON values."""
    right, digest = _right(problem), hashlib.sha256()
    add_matrix(digest, problem.features)
    add_matrix(digest, right)
    return {
        "n_samples": problem.n_samples,
        "n_features": problem.n_features,
        "n_features_right": int(right.shape[1]),
        "n_scored": len(problem.subset),
        "fingerprint": digest.hexdigest(),
    }


def _right(problem: Problem) -> np.ndarray:
    assert isinstance(problem, PairProblem)
    return problem.right


TASK = Task(
    "contrastive",
    check,
    run,
    problem=problem,
    plan=plan,
    cost=cost,
    columns=columns,
    manifest=manifest,
    data=data,
    device="cpu",
)
