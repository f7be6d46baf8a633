"""Where the blocks of a run are worked off, and what identifies the run that they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lsi.checkpoint import Checkpoint
from lsi.progress import Progress
from lsi.run import Machine, Run
from lsi.work import Here, Nowhere, Shard, Work

PathLike = str | os.PathLike[str]


def run_key(described: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return everything that decides the result of a run to the last bit, as JSON values.

    Args:
        described: What `lsi.manifest.describe_run` says of the run.
        run: Checked data and settings.
    """
    problem = run.problem
    return {
        **described,
        "sample_id": _digest(problem.sample_id),
        "scored": _digest(problem.subset),
        "audit": run.audit,
        "memory": run.machine.memory,
        "threads": torch.get_num_threads(),
    }


@contextmanager
def open_work(
    key: dict[str, Any],
    checkpoint: PathLike | None,
    cluster: str | None,
    shard: Shard | None,
    machine: Machine,
    progress: Progress | None,
) -> Iterator[Work]:
    """Yield who works off the blocks of a run.

    Args:
        key: Of the run.
        checkpoint: Folder for finished blocks; None: they are not kept.
        cluster: Address of a Ray cluster, ``"local"``, or None: this process.
        shard: Which part of the run is done; None: all.
        machine: What the run may use.
        progress: Called as `progress(stage, done, total)`.

    Yields:
        The work.

    Raises:
        InputError: The checkpoint is of another run, or there is no such cluster.
        OutputError: The checkpoint cannot be written, or another run is at work in it.
    """
    part = None if shard is None else [shard.index, shard.of]
    store = None if checkpoint is None else Checkpoint(checkpoint, {**key, "shard": part})
    try:
        yield Work(Here(), store or Nowhere(), shard, progress)
    finally:
        if store is not None:
            store.close()


def digest_of(key: dict[str, Any]) -> str:
    """Return the SHA-256 of a run's key, by which its shards know each other."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _digest(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's values."""
    digest = hashlib.sha256(str((values.shape, values.dtype.str)).encode())
    if values.dtype == object:
        digest.update("\x00".join(map(repr, values.tolist())).encode())
    else:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
