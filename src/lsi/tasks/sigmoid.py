"""Binary and multi-label classification by sigmoid heads, each through the Newton engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.features.design import Design
from lsi.loo.audit import default_count
from lsi.loo.engine import Engine
from lsi.loo.newton.cost import working_dtype
from lsi.loo.newton.dense import Inverse
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.result import LooResult
from lsi.methods import Method, Newton
from lsi.planning.cost import Estimate
from lsi.planning.plan import estimate, refuse_oversize
from lsi.posterior import POSTERIORS, Posterior
from lsi.probes.sigmoid import SigmoidModel
from lsi.probes.softmax.fit import Curvature, FitReport
from lsi.probes.softmax.model import SoftmaxModel
from lsi.run.context import Clock, Outcome, Run
from lsi.system.machine import Machine
from lsi.system.progress import Progress
from lsi.tasks.base import Task
from lsi.tasks.columns import MultiLabelResult, columns, manifest
from lsi.tasks.decay import heads_curve, is_zero, with_search
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
    if is_zero(probe, method):
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined where a label can be separated. Use a "
            "small positive weight_decay such as 1e-6."
        )


def problem(X: Any, y: Any, *, subset: Any = None, sample_id: Any = None) -> Problem:
    """Check the data as `check_problem` does; y: two classes, or several labels for each sample.

    `outputs` of the problem names the labels, and is empty for two classes.
    """
    if is_multilabel(y):
        return check_problem(X, y, subset=subset, sample_id=sample_id, task="multilabel")
    checked = check_problem(X, y, subset=subset, sample_id=sample_id)
    if checked.n_classes != 2:
        raise InputError(
            f"y has {checked.n_classes} classes, and a sigmoid tells two apart. Use lsi.LinearProbe(), or "
            "pass several labels for each sample as a matrix of zeros and ones."
        )
    return checked


def plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse a run of which one head does not fit in memory."""
    refuse_oversize(replace(problem.shape(), n_classes=2), posterior, method, machine)


def cost(probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None) -> Estimate:
    """Return the predicted time and memory: one binary problem for each head."""
    shape, heads = replace(problem.shape(), n_classes=2), max(1, len(problem.outputs))
    one = estimate(shape, posterior, method, memory, label_noise=heads == 1)
    worst = None if one.separable is None else one.separable * heads
    return with_search(Estimate(one.seconds * heads, one.bytes, worst), probe, problem)


def fit(run: Run, method: Method) -> HeadsEngine:
    """Train every head."""
    assert isinstance(method, Newton)
    engine = HeadsEngine.of(run, method)
    for label in range(engine.n_heads):
        engine.head(label)
    return engine


def run(run: Run, method: Method) -> Outcome:
    """Score every head, and add them up."""
    assert isinstance(method, Newton)
    engine = run.fitted or HeadsEngine.of(run, method)
    result = engine.run(run.index, run.work)
    audit = run.audited(engine, result, default_count(engine.weights[0].numel(), run.posterior))
    return result, audit, _report(engine.reports, engine.design.dtype)


@dataclass(eq=False)
class HeadsEngine(Engine):
    """One `NewtonEngine` for each label, built one at a time: all of them together might not fit in memory.

    The heads share no weights, so LSI of a sample is the sum over its heads.

    Attributes:
        design: In the coordinates of the posterior.
        target: `(N,)` zeros and ones for two classes, `(N, L)` for several labels.
        weight_decay: λ of every head.
        build: Makes the posterior of a trained head.
        basis: Of the design's coordinates in the original features; None: it is in these.
        settings: The engine's settings.
        memory: Bytes that the run may use; None: no limit.
        clock: Told how long each stage takes.
        weights: The heads that are trained.
        reports: Their fits.
        start: Weights that training begins with, one for each head; empty: zeros.
    """

    design: Design
    target: Tensor
    weight_decay: float
    build: Callable[[SigmoidModel], Posterior]
    basis: Tensor | None
    settings: Newton
    memory: int | None
    clock: Clock
    weights: list[Tensor] = field(default_factory=list)
    reports: list[FitReport] = field(default_factory=list)
    start: list[Tensor] = field(default_factory=list)
    _last: tuple[int, NewtonEngine] | None = None

    audit_block = 8

    @classmethod
    def of(
        cls, run: Run, method: Newton, coordinates: Callable[[Design], Tensor | None] | None = None
    ) -> HeadsEngine:
        """Return the engine of a run; `coordinates` gives the basis, None: the posterior does."""
        problem, kind = run.problem, POSTERIORS[run.posterior]
        dtype = working_dtype(replace(problem.shape(run.probe.fit_intercept), n_classes=2))
        design = run.design(dtype)
        basis = (coordinates or kind.coordinates)(design)
        return cls(
            design if basis is None else design.rotated(basis),
            torch.from_numpy(problem.target).to(run.device),
            run.probe.weight_decay + method.added_weight_decay,
            partial(kind, prior_precision=run.prior_precision, basis=basis),
            basis,
            method,
            run.machine.memory,
            run.clock,
        )

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the result of the samples at `index`: of the only head, or the sum over several."""
        work, parts = work or Work(), []
        for label in range(self.n_heads):
            part = work.within(f"head-{label}", _shifted(work.progress, label, self.n_heads))
            engine = self.head(label, part)
            with self.clock("leave-one-out"):
                parts.append(engine.run(index, part))
        return parts[0] if self.target.ndim == 1 else MultiLabelResult.summed(parts)

    def head(self, label: int, work: Work | None = None) -> NewtonEngine:
        """Return the engine of a head, which is trained the first time; the last engine is kept."""
        if self._last is not None and self._last[0] == label:
            return self._last[1]
        self._last = None
        model: SoftmaxModel = self._untrained(label)
        with self.clock("fit"):
            if label < len(self.weights):
                model.theta = self.weights[label]
                curvature = Curvature.of(model)
            else:
                model.theta = self.start[label] if self.start else model.theta
                model, curvature, report = fit_once(model, work or Work())
                self.weights.append(model.theta)
                self.reports.append(report)
        with self.clock("factor"):
            self._last = label, self._engine(model, curvature)
        return self._last[1]

    def restore(self, inverse_of: Callable[[SoftmaxModel], Inverse]) -> None:
        """Make the engine of a single head, whose weights are there, from the inverse of its curvature."""
        model = replace(self._untrained(0), theta=self.weights[0])
        self._last = 0, self._engine(model, inverse_of(model))

    @property
    def n_heads(self) -> int:
        """Number of heads: one for two classes, L for several labels."""
        return len(self._columns)

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI as `exact`: the sum over the heads of what their own engines find.

        Shapes: positions `(n,)`.
        """
        total = np.zeros(len(positions))
        for label in range(self.n_heads):
            engine = self.head(label)
            size = engine.audit_block
            parts = [positions[low : low + size] for low in range(0, len(positions), size)]
            total += np.concatenate([engine.exact(part, tick)["exact"] for part in parts])
        return {"exact": total}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last head's engine behind: workers make it for themselves."""
        return {**self.__dict__, "_last": None}

    def _untrained(self, label: int) -> SigmoidModel:
        """Return a head before training."""
        ones = torch.ones(self.design.n_samples, dtype=torch.float64, device=self.design.device)
        return SigmoidModel.start(self.design, self._columns[label].contiguous(), ones, self.weight_decay)

    @property
    def _columns(self) -> Tensor:
        """The targets of the heads, `(L, N)`."""
        return self.target[None] if self.target.ndim == 1 else self.target.T

    def _engine(self, model: Any, curvature: Curvature | Inverse) -> NewtonEngine:
        """Return the engine of a trained head."""
        return NewtonEngine(model, curvature, self.build(model), self.settings, self.memory)


def _shifted(progress: Progress | None, head: int, count: int) -> Progress | None:
    """Return progress that counts all heads together."""
    if progress is None or count == 1:
        return progress
    return lambda stage, done, total: progress(stage, head * total + done, count * total)


def _report(reports: list[FitReport], dtype: torch.dtype) -> dict[str, Any]:
    """Return what the manifest says about the fits of all heads together."""
    return {
        "gradient_norm": max(report.gradient_norm for report in reports),
        "decrement": max(report.decrement for report in reports),
        "iterations": sum(report.iterations for report in reports),
        "mean_loss": sum(report.mean_loss for report in reports),
        "train_accuracy": float(np.mean([report.train_accuracy for report in reports])),
        "dtype": str(dtype).removeprefix("torch."),
    }


TASK = Task(
    "classification",
    check,
    run,
    problem=problem,
    plan=plan,
    cost=cost,
    columns=columns,
    manifest=manifest,
    decay_curve=heads_curve,
    fit=fit,
)
