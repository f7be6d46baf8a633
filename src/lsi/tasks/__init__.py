"""Tasks: for each class of probe, how its target is checked, how it is scored, and what the table holds."""

from __future__ import annotations

from typing import Any

from lsi.errors import InputError
from lsi.probes.contrastive import ContrastiveProbe
from lsi.probes.linear import LinearProbe
from lsi.probes.networks import MLPProbe, ModuleProbe
from lsi.probes.ridge import RidgeProbe
from lsi.probes.sigmoid import SigmoidProbe
from lsi.tasks import classification, contrastive, networks, regression, sigmoid
from lsi.tasks.base import Task

TASKS: dict[type, Task] = {
    LinearProbe: classification.TASK,
    MLPProbe: networks.TASK,
    ModuleProbe: networks.TASK,
    RidgeProbe: regression.TASK,
    SigmoidProbe: sigmoid.TASK,
    ContrastiveProbe: contrastive.TASK,
}


def task_of(probe: Any) -> Task:
    """Return the task of a probe: that of its class, or else of the nearest parent class."""
    for kind in type(probe).__mro__:
        if kind in TASKS:
            return TASKS[kind]
    known = " or ".join(f"lsi.{kind.__name__}" for kind in TASKS)
    raise InputError(f"probe must be a {known}, got {type(probe).__name__}. Use lsi.LinearProbe().")


__all__ = ["TASKS", "Task", "task_of"]
