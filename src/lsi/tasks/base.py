"""The contract of a task: everything that differs between kinds of probes and targets, in one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.loo.result import LooResult
from lsi.methods import Method, Newton
from lsi.planning.cost import Estimate
from lsi.planning.plan import estimate
from lsi.run.context import Outcome, Run
from lsi.run.manifest import describe_data
from lsi.system.machine import Machine
from lsi.tasks.columns import class_columns, class_manifest
from lsi.tasks.decay import CurveOf, with_search
from lsi.tasks.separable import separates
from lsi.validation.problem import Problem, check_problem


def no_plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse nothing: for tasks that need little memory beyond the data."""


def newton_cost(
    probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None
) -> Estimate | None:
    """Return the predicted time and memory of a softmax probe."""
    known = separates(problem, probe) if isinstance(method, Newton) else False
    found = estimate(problem.shape(), posterior, method, memory, separable=known)
    return with_search(found, probe, problem)


@dataclass(frozen=True)
class Task:
    """What `lsi.score` and `lsi.score_pairs` do with one class of probe.

    Attributes:
        name: Its name in the manifest: ``"classification"``, ``"regression"``, ``"contrastive"``, ….
        check: Refuses settings that do not go together: probe, name of the posterior, method.
        run: Scores a checked problem.
        problem: Checks features and target: ``check_problem`` or a function of the same arguments.
        plan: Refuses a run that does not fit on the machine.
        cost: Predicts time and memory, or None where it cannot; its last argument is the bytes allowed.
        columns: Columns of the table for target, prediction and anything specific to the task; the pipeline
            adds ids, positions and the terms of the score.
        manifest: The manifest's entries about the target.
        data: The manifest's entries about sizes and content of the data.
        decay_curve: Searches where the probe's weight decay is ``"auto"``; None: it never is.
        device: Where it runs if no device is asked for; None: a GPU if there is one.
        fit: The part of `run` before any sample is left out, whose result `run` takes from `Run.fitted`;
            None: there is no such part.
    """

    name: str
    check: Callable[[Any, str, Method], None]
    run: Callable[[Run, Method], Outcome]
    problem: Callable[..., Problem] = check_problem
    plan: Callable[[Any, Problem, str, Method, Machine], None] = no_plan
    cost: Callable[[Any, Problem, str, Method, int | None], Estimate | None] = newton_cost
    columns: Callable[[Problem, LooResult], dict[str, np.ndarray]] = class_columns
    manifest: Callable[[Problem], dict[str, Any]] = class_manifest
    data: Callable[[Problem], dict[str, Any]] = describe_data
    decay_curve: CurveOf | None = None
    device: str | None = None
    fit: Callable[[Run, Method], Any] | None = None
