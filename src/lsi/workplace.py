"""Where the blocks of a run are worked off, and what identifies the run that they belong to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsi.checkpoint import Checkpoint
from lsi.problem import Problem
from lsi.progress import Progress
from lsi.run import Machine, Run
from lsi.work import Executor, Here, Nowhere, Shard, Work

PathLike = str | os.PathLike[str]


def run_key(described: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return everything that decides the result of a run to the last bit, as JSON values.

    Args:
        described: What `lsi.manifest.describe_run` says of the run.
        run: Checked data and settings.
    """
    return {**described, **rows_key(run.problem, run.audit, run.machine)}


def rows_key(problem: Problem, audit: bool | int, machine: Machine) -> dict[str, Any]:
    """Return what decides a result besides the data, the settings and the versions.

    Args:
        problem: Ids, and what is scored.
        audit: How many are left out again.
        machine: What the run may use.
    """
    return {
        "sample_id": digest_values(problem.sample_id),
        "scored": digest_values(problem.subset),
        "audit": audit,
        "memory": machine.memory,
        "threads": torch.get_num_threads(),
        "code": _code(),
    }


@contextmanager
def open_work(
    key: dict[str, Any],
    checkpoint: PathLike | Checkpoint | None,
    cluster: str | None,
    shard: Shard | None,
    machine: Machine,
    progress: Progress | None,
) -> Iterator[Work]:
    """Yield who works off the blocks of a run.

    Args:
        key: Of the run.
        checkpoint: Folder for finished blocks, or a checkpoint that its owner closes; None: none are kept.
        cluster: Address of a Ray cluster, ``"local"``, or None: this process.
        shard: Which part of the run is done; None: all.
        machine: What the run may use.
        progress: Called as `progress(stage, done, total)`.

    Yields:
        The work.

    Raises:
        InputError: The checkpoint is of another run, or there is no such cluster.
        OutputError: The checkpoint cannot be written, or another run is at work in it.
        KeyboardInterrupt: The run was interrupted; says what is kept of it.
    """
    store = None if checkpoint is None else _opened(checkpoint, {**key, "shard": _part(shard)})
    try:
        with _executor(cluster, machine) as executor:
            yield Work(executor, store or Nowhere(), shard, progress)
    except KeyboardInterrupt as error:
        if store is None:
            raise
        raise KeyboardInterrupt(store.summary()) from error
    finally:
        if store is not None and store is not checkpoint:
            store.close()


def _opened(checkpoint: PathLike | Checkpoint, key: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint of a run, open; one that cannot be opened is let go of."""
    store = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    try:
        store.open(key)
    except BaseException:
        if store is not checkpoint:
            store.close()
        raise
    return store


@contextmanager
def _executor(cluster: str | None, machine: Machine) -> Iterator[Executor]:
    if cluster is None:
        yield Here()
        return
    from lsi.cluster import open_cluster

    with open_cluster(cluster, machine.device) as executor:
        yield executor


@cache
def _code() -> str:
    """Return the SHA-256 of the library's source, which may change where its version does not."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _part(shard: Shard | None) -> list[int] | None:
    return None if shard is None else [shard.index, shard.of]


def digest_values(values: np.ndarray) -> str:
    """Return the SHA-256 of an array's values.

    Args:
        values: Numbers, text, or Python objects that their `repr` tells apart.
    """
    digest = hashlib.sha256(str((values.shape, values.dtype.str)).encode())
    if values.dtype == object:
        digest.update("\x00".join(map(repr, values.tolist())).encode())
    else:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
