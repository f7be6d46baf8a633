"""What every stage of one run needs: the checked data, the settings, the device and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.work import Work
from lsi.features.design import Design
from lsi.loo.audit import audit
from lsi.loo.engine import Engine
from lsi.loo.likeness import distances
from lsi.loo.refit import Refit
from lsi.loo.result import LooResult
from lsi.results.audit import Audit
from lsi.system.machine import Machine
from lsi.system.progress import Progress
from lsi.validation.problem import Problem


def check_audit(given: Any) -> None:
    """Refuse anything but True, False or a number."""
    if not isinstance(given, int) or given < 0:
        raise InputError(f"audit must be True, False or a number of samples ≥ 0, got {given!r}.")


Outcome = tuple[LooResult, Audit | None, dict[str, Any]]
"""What running a task returns: the result, the audit, and the report of the fit for the manifest."""


class Clock:
    """Wall-clock seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent in the block to `stage`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


@dataclass(frozen=True)
class Run:
    """What every stage of one run needs."""

    problem: Problem
    probe: Any
    posterior: str
    prior_precision: float
    audit: bool | int
    seed: int
    machine: Machine
    clock: Clock
    work: Work = field(default_factory=Work)
    notes: dict[str, Any] = field(default_factory=dict)  # entries that a task adds to the manifest
    fitted: Any = None  # what the task's `fit` returned before; None: the task fits

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.machine.device

    @property
    def progress(self) -> Progress | None:
        """What is called as `progress(stage, done, total)`, or None."""
        return self.work.progress

    @property
    def index(self) -> Tensor:
        """Positions to score, on the device."""
        return torch.from_numpy(self.problem.subset).to(self.device)

    def design(self, dtype: torch.dtype) -> Design:
        """Return the design matrix in the original coordinates."""
        return Design(self.problem.features, self.probe.fit_intercept, dtype, self.device)

    def audited(self, engine: Engine | Refit, result: LooResult, default: int) -> Audit | None:
        """Return the audit that the settings ask for: of `default` samples where they name no number."""
        with self.clock("audit"):
            count = default if self.audit is True else int(self.audit)
            if not count:
                return None
            apart = distances(self.problem.features)[self.problem.subset]
            return audit(engine, self.index, result, count, self.seed, self.work, apart)
