"""Opening the work of a run: its executor, and its checkpoint if there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lsi.execution.checkpoint import Checkpoint
from lsi.execution.work import Executor, Here, Nowhere, Shard, Work
from lsi.system.progress import Progress

PathLike = str | os.PathLike[str]


@contextmanager
def open_work(
    key: dict[str, Any],
    checkpoint: PathLike | Checkpoint | None,
    cluster: str | None,
    shard: Shard | None,
    device: torch.device,
    progress: Progress | None,
) -> Iterator[Work]:
    """Yield the work of the run with this key; while it lasts, its checkpoint and its cluster are open."""
    part = None if shard is None else [shard.index, shard.of]
    store = None if checkpoint is None else _opened(checkpoint, {**key, "shard": part})
    try:
        with _executor(cluster, device) as executor:
            yield Work(executor, store or Nowhere(), shard, progress)
    except KeyboardInterrupt as error:
        if store is None:
            raise
        raise KeyboardInterrupt(store.summary()) from error
    finally:
        if store is not None and store is not checkpoint:
            store.close()


def _opened(checkpoint: PathLike | Checkpoint, key: dict[str, Any]) -> Checkpoint:
    """Return the open checkpoint of a run; one that was made here is closed again if it cannot be opened."""
    store = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    try:
        store.open(key)
    except BaseException:
        if store is not checkpoint:
            store.close()
        raise
    return store


@contextmanager
def _executor(cluster: str | None, device: torch.device) -> Iterator[Executor]:
    if cluster is None:
        yield Here()
        return
    from lsi.execution.ray_cluster import open_cluster

    with open_cluster(cluster, device) as executor:
        yield executor
