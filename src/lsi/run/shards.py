"""Shards of a run: which tasks can be divided, and what the manifest says about one shard."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsi.errors import InputError
from lsi.execution.work import Shard

UNDIVIDED = {
    "regression": "A regression is scored from one factorisation, in seconds: there is nothing to divide. "
    "Leave shard out.",
    "contrastive": "Certificates of pairs depend on the scores of all pairs, so pairs cannot be scored in "
    "shards. Leave the shard out; a local cluster (cluster='local', --ray local) uses all processors.",
}
"""Tasks that are scored in one piece, and why."""


def check_shard(shard: Shard | None, task: str) -> None:
    """Refuse a shard of a task that is scored in one piece."""
    if shard is not None and task in UNDIVIDED:
        raise InputError(UNDIVIDED[task])


def describe_shard(shard: Shard, run: str, done: np.ndarray) -> dict[str, Any]:
    """Return what the manifest says about a shard, as JSON values. Shapes: done `(n_scored,)`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], done.astype(np.int8), [0]])))
    rows = edges.reshape(-1, 2).tolist()
    return {"index": shard.index, "of": shard.of, "run": run, "n_scored": len(done), "rows": rows}
