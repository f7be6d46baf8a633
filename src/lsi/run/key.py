"""What identifies a run: everything that decides its result to the last bit."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsi.run.context import Run
from lsi.system.machine import Machine
from lsi.validation.problem import Problem


def run_key(described: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return everything that decides the result of a run to the last bit, as JSON values."""
    return {**described, **rows_key(run.problem, run.audit, run.machine)}


def rows_key(problem: Problem, audit: bool | int, machine: Machine) -> dict[str, Any]:
    """Return what decides a result besides the data, the settings and the versions."""
    return {
        "sample_id": digest_values(problem.sample_id),
        "scored": digest_values(problem.subset),
        "audit": audit,
        "memory": machine.memory,
        "threads": torch.get_num_threads(),
        "code": _code(),
    }


@cache
def _code() -> str:
    """Return the SHA-256 of the library's source, which may change where its version does not."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def digest_values(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's values."""
    digest = hashlib.sha256(str((values.shape, values.dtype.str)).encode())
    if values.dtype == object:
        digest.update("\x00".join(map(repr, values.tolist())).encode())
    else:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
