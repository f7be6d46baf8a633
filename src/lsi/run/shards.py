"""Parts of a run: what may be divided, and what the manifest says of a part."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsi.errors import InputError
from lsi.execution.work import Shard
from lsi.tasks.base import Task


def check_shard(shard: Shard | None, task: Task) -> None:
    """Refuse parts of what is done at once."""
    if shard is not None and task.name == "regression":
        raise InputError(
            "A regression is scored from one factorisation, in seconds: there is nothing to divide. Leave "
            "shard out."
        )


def describe_shard(shard: Shard, run: str, done: np.ndarray) -> dict[str, Any]:
    """Return what the manifest says of a part, as JSON values. Shapes: done `(n_scored,)`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], done.astype(np.int8), [0]])))
    rows = edges.reshape(-1, 2).tolist()
    return {"index": shard.index, "of": shard.of, "run": run, "n_scored": len(done), "rows": rows}
