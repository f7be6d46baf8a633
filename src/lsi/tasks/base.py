"""The contract of a task: what differs between kinds of probe and target, in one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.loo.result import LooResult
from lsi.methods import Method
from lsi.planning.plan import estimate
from lsi.run.context import Outcome, Run
from lsi.system.machine import Machine
from lsi.tasks.columns import class_columns, class_manifest
from lsi.validation.problem import Problem, check_problem


def no_plan(problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse nothing: for tasks whose memory never outgrows the data."""


def newton_cost(problem: Problem, posterior: str, method: Method, memory: int | None = None) -> str:
    """Return the predicted time and memory of a softmax probe as text."""
    return estimate(problem.shape(), posterior, method, memory).text


@dataclass(frozen=True)
class Task:
    """What `lsi.score` does with one class of probe.

    Attributes:
        name: What the manifest calls it: ``"classification"``, ``"regression"``, ``"multilabel"``, ….
        check: Refuses, from the probe, the posterior's name and the method, what does not go together.
        run: Scores a checked problem.
        problem: Checks features and target: ``check_problem`` or a function of the same arguments.
        plan: Refuses a run that cannot fit in memory, from the problem, the posterior, the method and
            the machine.
        cost: Predicts time and memory, from the problem, the posterior, the method and the bytes allowed.
        columns: Columns of the table that tell target and prediction, and any others; the pipeline
            adds ids, positions and the terms of the score.
        manifest: What the manifest says about the target.
    """

    name: str
    check: Callable[[Any, str, Method], None]
    run: Callable[[Run, Method], Outcome]
    problem: Callable[..., Problem] = check_problem
    plan: Callable[[Problem, str, Method, Machine], None] = no_plan
    cost: Callable[[Problem, str, Method, int | None], str] = newton_cost
    columns: Callable[[Problem, LooResult], dict[str, np.ndarray]] = class_columns
    manifest: Callable[[Problem], dict[str, Any]] = class_manifest
