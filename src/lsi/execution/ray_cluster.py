"""Blocks of work on a Ray cluster: what they share is sent to a node once, and lost workers are replaced.

Ray is an optional package: this module is imported only when a cluster is asked for.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch

from lsi.errors import InputError, LsiError
from lsi.execution.packing import Part, pack, unpack
from lsi.execution.work import Arrays, Tick
from lsi.system.drafts import workplace
from lsi.system.machine import available_memory
from lsi.system.versions import install_hint, versions

LOCAL = "local"
_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
STORE_BYTES = 2 << 30  # most memory that the workers of a local cluster share
# How often a block is tried if its workers die: a block that kills every worker must not run for ever.
ATTEMPTS = 100
REACH_SECONDS, ANSWER_SECONDS, PATIENCE = 3.0, 60.0, 60.0


class WorkersLostError(LsiError):
    """Every worker that tried a block died."""


class RayExecutor:
    """Computes blocks in the workers of the Ray cluster that this process is connected to.

    An owner whose blocks take long may have the attribute `tries_elsewhere`: a block with which that many
    workers were lost is computed in this process. Workers that live for seconds would never finish it.

    Args:
        device: Where a worker computes.

    Raises:
        InputError: No node of the cluster has room for a worker, or one has other versions of the software.
    """

    def __init__(self, device: torch.device) -> None:
        self.threads = torch.get_num_threads()
        self._gpus = 1 if device.type == "cuda" else 0
        self._held: dict[tuple[Any, ...], tuple[Part, Any]] = {}
        self.workers = count_workers(self.threads, self._gpus)
        _check_nodes()

    def run(self, owner: Any, method: str, blocks: Iterable[Any], tick: Tick) -> Iterator[tuple[int, Arrays]]:
        """Yield the number of each block and the result of `owner.method(block, tick)`, as they finish."""
        import ray

        numbered = iter(enumerate(blocks))
        first = next(numbered, None)
        if first is None:
            return
        todo, sent = chain([first], numbered), self._send(owner)
        under_way: dict[Any, tuple[int, Any]] = {}
        few = getattr(owner, "tries_elsewhere", None)
        do = ray.remote(_do).options(
            num_cpus=self.threads,
            num_gpus=self._gpus,
            max_retries=(few or ATTEMPTS) - 1,
            name=f"lsi {method}",
        )
        limit = 2 * self.workers + 2  # keeps every worker busy, and results from piling up
        try:
            while True:
                while len(under_way) < limit and (item := next(todo, None)) is not None:
                    under_way[do.remote(self.threads, method, item[1], *sent)] = item
                if not under_way:
                    return
                ref = self._first_done(list(under_way))
                place, block = under_way.pop(ref)
                try:
                    arrays = _result(ref)
                except WorkersLostError:
                    if few is None:
                        raise
                    arrays = getattr(owner, method)(block, tick)
                yield place, arrays
        finally:
            for ref in under_way:
                ray.cancel(ref)

    def _send(self, owner: Any) -> tuple[Any, ...]:
        """Return the owner's digest, payload and parts; a part that is unchanged is not sent again."""
        import ray

        payload, parts = pack(owner)
        old, self._held = self._held, {}
        for part in parts:
            self._held[part.key] = old.get(part.key) or (part, ray.put(part.read()))
        refs = [self._held[part.key][1] for part in parts]
        digest = hashlib.sha256(payload + "".join(ref.hex() for ref in refs).encode()).hexdigest()
        return digest, ray.put(payload), *refs

    def _first_done(self, refs: list[Any]) -> Any:
        import ray

        while True:
            done, _ = ray.wait(refs, num_returns=1, timeout=PATIENCE)
            if done:
                return done[0]
            if not _slots(self.threads, self._gpus):
                warnings.warn("no worker is left in the cluster; waiting for one to join.", stacklevel=2)


@contextmanager
def open_cluster(address: str, device: torch.device) -> Iterator[RayExecutor]:
    """Yield an executor on a cluster, and disconnect afterwards if this process was not connected before."""
    check_cluster(address)
    if device.type == "cuda" and device.index:
        raise InputError(f"device={str(device)!r}: workers of a cluster choose their GPUs. Use 'cuda'.")
    import ray

    with ExitStack() as stack:
        if not ray.is_initialized():
            # A folder in /tmp, where Ray has its own: names of sockets must be short. What a process that was
            # killed left there goes when the next cluster starts.
            place = Path("/tmp" if os.name == "posix" else gettempdir())
            folder = stack.enter_context(workplace(place, "")) if address == LOCAL else None
            stack.callback(ray.shutdown)
            _connect(address, folder)
        yield RayExecutor(device)


def check_cluster(address: Any) -> None:
    """Refuse, within seconds, an address that cannot be connected to."""
    if not isinstance(address, str) or not address:
        raise InputError(
            f"cluster must be 'local', 'auto' or an address such as 'host:6379', got {address!r}."
        )
    # No usage statistics are sent.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL and "ray" not in sys.modules:
        # Without clusters of several machines, Ray listens on the loopback interface alone, on Linux too.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if not _AUTHENTICATION & os.environ.keys():
            # Other users of this machine may connect: with a token, only this process and its workers get in.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise InputError(f"a cluster needs the package ray. Install it: {install_hint('ray')}.") from error
    if ray.is_initialized() or address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(
            f"cluster {address!r} is not an address. Use 'local', 'auto', 'host:6379' or 'ray://host:10001'."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"nothing answers at {address!r} ({error}). Start the cluster with `ray start --head`, or use "
            "cluster='local'."
        ) from error


def _connect(address: str, folder: Path | None = None) -> None:
    """Connect to a cluster, or start a local one, whose sessions lie in a folder."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            have = available_memory() or 4 * STORE_BYTES
            ray.init(
                address=LOCAL,
                num_cpus=_processors(),
                object_store_memory=int(max(128 << 20, min(STORE_BYTES, have // 4))),
                include_dashboard=False,
                _temp_dir=None if folder is None else str(folder),
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError) as error:
        if "InvalidAuthToken" in f"{error} {error.__cause__}":
            raise InputError(
                f"the cluster {address!r} asks for its token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH, as on its head."
            ) from error
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the cluster {address!r} cannot be used: {reason}. Start one with `ray start --head`, or use "
            "cluster='local'."
        ) from error


def room_for(address: str, device: str | None = None) -> int:
    """Return how many workers a cluster has room for, without starting a local one."""
    check_cluster(address)
    import ray

    threads, gpus = torch.get_num_threads(), int(str(device or "").startswith("cuda"))
    if ray.is_initialized():
        return count_workers(threads, gpus)
    if address == LOCAL:
        return min(_processors() // threads, torch.cuda.device_count() if gpus else _processors())
    _connect(address)
    try:
        return count_workers(threads, gpus)
    finally:
        ray.shutdown()


def _processors() -> int:
    """Return how many processors a local cluster has: enough for at least one worker."""
    return max(os.cpu_count() or 1, torch.get_num_threads())


def count_workers(threads: int, gpus: int = 0) -> int:
    """Return how many workers the cluster can hold at a time, at least 1."""
    found = _slots(threads, gpus)
    if not found:
        what = f"{threads} processor{'s' if threads > 1 else ''}" + (" and a GPU" if gpus else "")
        raise InputError(
            f"no node of the cluster has {what} for a worker. Use fewer threads (--threads, or "
            "torch.set_num_threads), or start nodes that have them."
        )
    return found


def _slots(threads: int, gpus: int) -> int:
    import ray

    total = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            room = int(has.get("CPU", 0) // threads)
            total += min(room, int(has.get("GPU", 0))) if gpus else room
    return total


def _check_nodes() -> None:
    """Refuse nodes whose versions of the software might not give the same bits."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ask = ray.remote(_versions).options(num_cpus=0, scheduling_strategy=there)
            asked[node["NodeManagerAddress"]] = ask.remote()
    for address, ref in asked.items():
        try:
            found = ray.get(ref, timeout=ANSWER_SECONDS)
        except (ray.exceptions.RayError, ImportError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"the node {address} of the cluster cannot work ({reason}). Install the same version of this "
                "library there."
            ) from error
        _check_versions(found, address)


def _check_versions(found: dict[str, str], address: str) -> None:
    mine = versions()
    other = [
        f"{name} {found.get(name)} instead of {mine[name]}" for name in mine if found.get(name) != mine[name]
    ]
    if other:
        raise InputError(
            f"the node {address} of the cluster has {', '.join(other)}. Install the same versions "
            "everywhere, or results would differ."
        )


def _versions() -> dict[str, str]:
    return versions()


def _result(ref: Any) -> Arrays:
    """Return a result as writable arrays; an error of the library is raised as it was in the worker."""
    import ray

    try:
        arrays = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
    except ray.exceptions.WorkerCrashedError as error:
        raise WorkersLostError(
            f"a block of work ended each of its {ATTEMPTS} workers: they may lack memory. Use a smaller "
            "memory=…, or fewer workers on a node."
        ) from error
    return {name: array if array.flags.writeable else array.copy() for name, array in arrays.items()}


_owners: dict[str, Any] = {}
"""In a worker: the owner of its current blocks, by digest; one at a time."""


def _do(threads: int, method: str, block: Any, digest: str, payload: bytes, *parts: np.ndarray) -> Arrays:
    """Compute one block in a worker."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if digest not in _owners:
        _owners.clear()
        try:
            _owners[digest] = unpack(payload, parts)
        except KeyboardInterrupt:  # cancelled, perhaps in the middle of an import, which cannot be repeated
            os._exit(1)
    return getattr(_owners[digest], method)(block, _tell_nobody)


def _tell_nobody(units: int) -> None:
    """Ignore progress: a worker has no way to report it."""
