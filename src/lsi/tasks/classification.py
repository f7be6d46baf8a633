"""Classification by a linear softmax probe: fit → posterior → leave-one-out → audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.loo.audit import default_count
from lsi.loo.networks.trainer import check_batches
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.newton.cost import working_dtype
from lsi.loo.newton.dense import Inverse
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.refit import Refit, is_small
from lsi.loo.retrain.cost import AUDITED
from lsi.loo.retrain.engine import RetrainEngine
from lsi.methods import Method, Newton, Retrain
from lsi.planning.plan import choose_solver, grade, refuse_oversize
from lsi.posterior import POSTERIORS, Posterior
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.model import ROWS, SoftmaxModel
from lsi.run.context import Outcome, Run
from lsi.system.machine import Machine
from lsi.tasks.base import Task
from lsi.tasks.copies import retrain
from lsi.tasks.decay import class_curve, is_zero, refuse_auto
from lsi.tasks.fitting import fit_blocks_once, fit_once, solver_once
from lsi.validation.problem import Problem

OFFSET = 10.0  # standard deviations from zero, from which a full posterior is accumulated in float64


def check(probe: Any, posterior: str, method: Method) -> None:
    """Refuse settings for which a leave-one-out optimum need not exist."""
    if not isinstance(method, Newton):
        refuse_auto(probe)
    elif is_zero(probe, method):
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined where classes can be separated. "
            "Use a small positive weight_decay such as 1e-6, or method='retrain'."
        )


def plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse a run that does not fit in memory, and batches of a single sample."""
    if isinstance(method, Retrain):
        check_batches(problem.n_samples, method.batch_size)
    refuse_oversize(problem.shape(), posterior, method, machine)


def run(run: Run, method: Method) -> Outcome:
    """Score by the chosen method."""
    return _newton(run, method) if isinstance(method, Newton) else _retrain(run, method)


def untrained(run: Run, design: Design) -> SoftmaxModel:
    """Return the model before training."""
    problem, probe = run.problem, run.probe
    target = torch.from_numpy(problem.target).to(design.device)
    weight = torch.from_numpy(probe.sample_weights(problem.target, problem.classes)).to(design.device)
    return SoftmaxModel.start(design, target, weight, probe.weight_decay, problem.n_classes)


@dataclass(frozen=True, eq=False)
class NewtonFit:
    """A trained probe with its posterior and the engine that leaves samples out of it.

    Attributes:
        model: The trained probe.
        posterior: Of its weights.
        engine: Holds the factorised curvature.
        told: What the manifest says about the fit.
    """

    model: SoftmaxModel
    posterior: Posterior
    engine: NewtonEngine | BlockEngine
    told: dict[str, Any]


def fit(run: Run, settings: Method) -> NewtonFit:
    """Train the probe and factorise: fit → posterior → engine."""
    assert isinstance(settings, Newton)
    problem, clock, kind = run.problem, run.clock, POSTERIORS[run.posterior]
    shape = problem.shape(run.probe.fit_intercept)
    chosen = solver_once(run.work, lambda: choose_solver(shape, run.posterior, settings, run.machine.memory))
    dtype = working_dtype(shape, run.device) if chosen == "dense" else torch.float32
    with clock("fit"):
        design = run.design(dtype)
        if run.posterior == "full" and dtype == torch.float32 and far_from_zero(design):
            # Its precision is a sum in which the digits of everything but the offset would be lost.
            dtype = torch.float64
            design = run.design(dtype)
        # A diagonal posterior belongs to the original features, where class blocks are as cheap as anywhere.
        basis = None if chosen == "blocks" and run.posterior == "diag" else kind.coordinates(design)
        # Rows of a file are rotated each time they are read. The fit reads them often and needs no rotation.
        late = basis if chosen == "blocks" and not design.resident else None
        start = untrained(run, design if basis is None or late is not None else design.rotated(basis))
        start.weight_decay += settings.added_weight_decay
        model, curvature, report = (
            fit_once(start, run.work) if chosen == "dense" else fit_blocks_once(start, run.work, late)
        )
    told = {"dtype": str(dtype).removeprefix("torch."), "solver": chosen, "grade": grade(chosen, settings)}
    return assembled(run, settings, model, curvature, basis, {**asdict(report), **told})


def assembled(
    run: Run,
    settings: Newton,
    model: SoftmaxModel,
    curvature: Curvature | Inverse | BlockCurvature,
    basis: Tensor | None,
    told: dict[str, Any],
) -> NewtonFit:
    """Return a trained probe with its posterior and its engine. Shapes: basis `(D₀, D)`."""
    with run.clock("posterior"):
        posterior = POSTERIORS[run.posterior](model, run.prior_precision, basis)
    with run.clock("factor"):
        engine = make_engine(model, curvature, posterior, settings, run.machine.memory)
    return NewtonFit(model, posterior, engine, told)


def _newton(run: Run, settings: Newton) -> Outcome:
    """Score by leave-one-out optima: fit → leave-one-out → audit."""
    fitted = run.fitted or fit(run, settings)
    with run.clock("leave-one-out"):
        result = fitted.engine.run(run.index, run.work)
    count = default_count(fitted.model.theta.numel(), run.posterior)
    audit = run.audited(_refit(run, settings) or fitted.engine, result, count)
    return result, audit, fitted.told


def _refit(run: Run, settings: Newton) -> Refit | None:
    """Return what audits a small problem on a path of its own; None where that takes too long."""
    problem, probe = run.problem, run.probe
    if not is_small(problem.shape(probe.fit_intercept), run.posterior):
        return None
    weight = probe.sample_weights(problem.target, problem.classes)
    decay = probe.weight_decay + settings.added_weight_decay
    return Refit(
        problem.features,
        problem.target,
        problem.n_classes,
        weight,
        decay,
        probe.fit_intercept,
        run.posterior,
        run.prior_precision,
    )


def _retrain(run: Run, settings: Retrain) -> Outcome:
    """Score by the published protocol: train all heads → posterior → divergence → audit."""
    if not settings.is_plain:
        return retrain(run, settings)
    kind = POSTERIORS[run.posterior]

    def build(trained: SoftmaxModel) -> tuple[Posterior, Tensor | None]:
        trained = replace(trained, design=trained.design.astype(torch.float64))
        basis = kind.coordinates(trained.design)
        if basis is not None:
            trained = replace(trained, design=trained.design.rotated(basis), theta=trained.theta @ basis)
        return kind(trained, run.prior_precision, basis), basis

    model = untrained(run, run.design(torch.float32))
    engine = RetrainEngine(model, build, settings, run.probe.fit_intercept)
    with run.clock("leave-one-out"):
        result = engine.run(run.index, run.work)
    run.notes["training"] = engine.training
    return result, run.audited(engine, result, AUDITED), {"dtype": "float32"}


def far_from_zero(design: Design) -> bool:
    """Return whether a feature lies so far from zero that its squares in float32 lose its spread."""
    total = square = torch.zeros(design.n_features, dtype=torch.float64, device=design.device)
    for _, block in design.blocks(ROWS):
        x = block.to(torch.float64)
        total, square = total + x.sum(0), square + x.square().sum(0)
    mean = total / design.n_samples
    spread = square / design.n_samples - mean.square()
    varies = spread > 1e-12 * mean.square()  # a constant, such as the intercept, has no spread to lose
    return bool((varies & (mean.square() > OFFSET**2 * spread)).any())


def make_engine(
    model: SoftmaxModel,
    curvature: Curvature | Inverse | BlockCurvature,
    posterior: Posterior,
    settings: Newton,
    memory: int | None = None,
) -> NewtonEngine | BlockEngine:
    """Return the engine of a solver."""
    if isinstance(curvature, BlockCurvature):
        return BlockEngine(curvature, posterior, settings, memory)
    return NewtonEngine(model, curvature, posterior, settings, memory)


TASK = Task("classification", check, run, plan=plan, decay_curve=class_curve, fit=fit)
