"""The contract of a task: everything that differs between kinds of probes and targets, in one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.loo.result import LooResult
from lsi.methods import Method
from lsi.planning.plan import estimate
from lsi.run.context import Outcome, Run
from lsi.run.manifest import describe_data
from lsi.system.machine import Machine
from lsi.tasks.columns import class_columns, class_manifest
from lsi.validation.problem import Problem, check_problem


def no_plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse nothing: for tasks that need little memory beyond the data."""


def newton_cost(
    probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None
) -> str:
    """Return the predicted time and memory of a softmax probe as text."""
    return estimate(problem.shape(), posterior, method, memory).text


@dataclass(frozen=True)
class Task:
    """What `lsi.score` and `lsi.score_pairs` do with one class of probe.

    Attributes:
        name: Its name in the manifest: ``"classification"``, ``"regression"``, ``"contrastive"``, ….
        check: Refuses settings that do not go together: probe, name of the posterior, method.
        run: Scores a checked problem.
        problem: Checks features and target: ``check_problem`` or a function of the same arguments.
        plan: Refuses a run that does not fit on the machine.
        cost: Predicts time and memory as text; its last argument is the number of bytes allowed.
        columns: Columns of the table for target, prediction and anything specific to the task; the pipeline
            adds ids, positions and the terms of the score.
        manifest: The manifest's entries about the target.
        data: The manifest's entries about sizes and content of the data.
        device: Where it runs if no device is asked for; None: a GPU if there is one.
        fit: The part of `run` before any sample is left out, whose result `run` takes from `Run.fitted`;
            None: there is no such part.
    """

    name: str
    check: Callable[[Any, str, Method], None]
    run: Callable[[Run, Method], Outcome]
    problem: Callable[..., Problem] = check_problem
    plan: Callable[[Any, Problem, str, Method, Machine], None] = no_plan
    cost: Callable[[Any, Problem, str, Method, int | None], str] = newton_cost
    columns: Callable[[Problem, LooResult], dict[str, np.ndarray]] = class_columns
    manifest: Callable[[Problem], dict[str, Any]] = class_manifest
    data: Callable[[Problem], dict[str, Any]] = describe_data
    device: str | None = None
    fit: Callable[[Run, Method], Any] | None = None
