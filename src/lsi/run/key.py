"""What identifies a run: everything that decides its result to the last bit."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lsi.run.context import Run
from lsi.system.digests import digest_values

PACKAGE = Path(__file__).parents[1]


def run_key(described: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return everything that decides the result of a run to the last bit, as JSON values.

    `described` is what `describe_run` says of data, settings and versions.
    """
    return {
        **described,
        "sample_id": digest_values(run.problem.sample_id),
        "scored": digest_values(run.problem.subset),
        "audit": run.audit,
        "memory": run.machine.memory,
        "threads": torch.get_num_threads(),
        "code": _code(),
    }


@cache
def _code(folder: Path = PACKAGE) -> str:
    """Return the SHA-256 of all source files under a folder: code may change while its version does not."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
