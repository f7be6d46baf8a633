"""Binary and multi-label classification by sigmoid heads, each through the Newton engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.loo.audit import choose_done, exact_scores
from lsi.loo.newton.cost import working_dtype
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.result import LooResult
from lsi.methods import Method, Newton
from lsi.planning.cost import Estimate
from lsi.planning.plan import estimate, refuse_oversize
from lsi.posterior import POSTERIORS
from lsi.probes.sigmoid import SigmoidModel
from lsi.probes.softmax.fit import Curvature
from lsi.results.audit import Audit
from lsi.run.context import Outcome, Run
from lsi.system.machine import Machine
from lsi.system.progress import Progress
from lsi.tasks.base import Task
from lsi.tasks.columns import MultiLabelResult, columns, manifest
from lsi.tasks.fitting import fit_once
from lsi.validation.problem import Problem, check_problem
from lsi.validation.targets import is_multilabel


def check(probe: Any, posterior: str, method: Method) -> None:
    """Refuse what these heads cannot do."""
    if not isinstance(method, Newton):
        raise InputError(
            "SigmoidProbe is scored at its optimum. Leave method at 'newton'; stopped training acts like "
            "Newton.from_early_stopping(...)."
        )
    if probe.weight_decay + method.added_weight_decay == 0:
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined where a label can be separated. Use a "
            "small positive weight_decay such as 1e-6."
        )


def problem(X: Any, y: Any, *, subset: Any = None, sample_id: Any = None) -> Problem:
    """Check the data: two classes, or several labels a sample.

    Args:
        X: As in `check_problem`.
        y: `(N,)` with two classes, `(N, L)` of zeros and ones, or N collections of labels.
        subset: As in `check_problem`.
        sample_id: As in `check_problem`.

    Returns:
        The checked problem; its `outputs` name the labels, and are empty for two classes.

    Raises:
        InputError: As `check_problem`, or there are more than two classes.
    """
    if is_multilabel(y):
        return check_problem(X, y, subset=subset, sample_id=sample_id, task="multilabel")
    checked = check_problem(X, y, subset=subset, sample_id=sample_id)
    if checked.n_classes != 2:
        raise InputError(
            f"y has {checked.n_classes} classes, and a sigmoid tells two apart. Use lsi.LinearProbe(), or "
            "pass several labels a sample as a matrix of zeros and ones."
        )
    return checked


def plan(problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse a run of which one head cannot fit in memory."""
    refuse_oversize(replace(problem.shape(), n_classes=2), posterior, method, machine)


def cost(problem: Problem, posterior: str, method: Method, memory: int | None = None) -> str:
    """Return the predicted time and memory as text: one binary problem a head."""
    one = estimate(replace(problem.shape(), n_classes=2), posterior, method, memory)
    return Estimate(one.seconds * max(1, len(problem.outputs)), one.bytes).text


def run(run: Run, method: Method) -> Outcome:
    """Score every head, and add them up."""
    assert isinstance(method, Newton)
    heads = Heads(run, method)
    parts, weights, reports = [], [], []
    for label in range(heads.count):
        progress = _shifted(run.progress, label, heads.count)
        part = run.work.within(f"head-{label}", progress)
        with run.clock("fit"):
            model, curvature, report = fit_once(heads.untrained(label), part)
        weights.append(model.theta)
        reports.append(asdict(report))
        with run.clock("factor"):
            engine = heads.engine(model, curvature)
        with run.clock("leave-one-out"):
            parts.append(engine.run(run.index, part))
    multilabel = bool(run.problem.outputs)
    result = MultiLabelResult.summed(parts) if multilabel else parts[0]
    with run.clock("audit"):
        count = run.audit_count(weights[0].numel())
        audit = _audit(heads, weights, result, count) if count else None
    return result, audit, _report(reports, heads.dtype)


class Heads:
    """What all heads of a run share, and how one is made.

    Args:
        run: Checked data and settings.
        method: The engine's settings.
    """

    def __init__(self, run: Run, method: Newton) -> None:
        self.run, self.method = run, method
        self.kind = POSTERIORS[run.posterior]
        problem = run.problem
        self.dtype = working_dtype(replace(problem.shape(run.probe.fit_intercept), n_classes=2))
        design = run.design(self.dtype)
        self.basis = self.kind.coordinates(design)
        self.design: Design = design if self.basis is None else design.rotated(self.basis)
        self.weight_decay = run.probe.weight_decay + method.added_weight_decay
        target = problem.target if problem.outputs else problem.target[:, None]
        self.target = torch.from_numpy(target).to(run.device)

    @property
    def count(self) -> int:
        """Number of heads."""
        return self.target.shape[1]

    def untrained(self, label: int) -> SigmoidModel:
        """Return a head before training."""
        ones = torch.ones(self.design.n_samples, dtype=torch.float64, device=self.design.device)
        target = self.target[:, label].contiguous()
        return SigmoidModel.start(self.design, target, ones, self.weight_decay)

    def engine(self, model: Any, curvature: Curvature) -> NewtonEngine:
        """Return the engine of a trained head."""
        posterior = self.kind(model, self.run.prior_precision, self.basis)
        return NewtonEngine(model, curvature, posterior, self.method, self.run.machine.memory)

    def trained(self, weights: list[Tensor]) -> Iterator[NewtonEngine]:
        """Yield the engine of each head again: all of them at once might not fit in memory."""
        for label, theta in enumerate(weights):
            model = self.untrained(label)
            model.theta = theta
            yield self.engine(model, Curvature.of(model))


def _audit(heads: Heads, weights: list[Tensor], result: LooResult, count: int) -> Audit:
    """Leave a few samples out of every head again, to convergence in float64."""
    began, run = time.perf_counter(), heads.run
    picks = choose_done(result, count, run.seed)
    exact = np.zeros(len(picks))
    for label, engine in enumerate(heads.trained(weights)):
        work = run.work.within(f"head-{label}", _shifted(run.progress, label, heads.count))
        exact += exact_scores(engine, run.index[torch.from_numpy(picks)], work)
    return Audit.from_values(
        run.problem.subset[picks],
        exact,
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


def _shifted(progress: Progress | None, head: int, count: int) -> Progress | None:
    """Return progress that counts all heads together."""
    if progress is None or count == 1:
        return progress
    return lambda stage, done, total: progress(stage, head * total + done, count * total)


def _report(reports: list[dict[str, Any]], dtype: torch.dtype) -> dict[str, Any]:
    """Return one head's report, or the worst of each figure and the means over several heads."""
    worst = {name: max(report[name] for report in reports) for name in ("gradient_norm", "decrement")}
    steps = {"iterations": sum(report["iterations"] for report in reports)}
    loss = {"mean_loss": sum(report["mean_loss"] for report in reports)}
    hits = {"train_accuracy": float(np.mean([report["train_accuracy"] for report in reports]))}
    return {**worst, **steps, **loss, **hits, "dtype": str(dtype).removeprefix("torch.")}


TASK = Task(
    "classification",
    check,
    run,
    problem=problem,
    plan=plan,
    cost=cost,
    columns=columns,
    manifest=manifest,
)
