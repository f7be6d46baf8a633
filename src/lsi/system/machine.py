"""The machine: its memory, the device of a run, and the folder of the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lsi.errors import InputError, OutOfMemoryError

if TYPE_CHECKING:
    import torch


# Each device raises its own error when memory runs out; the processor raises a plain RuntimeError.
_SAID = ("out of memory", "can't allocate memory", "not enough memory")
# Files of a control group, in the two versions of the interface: usage, what of it is cache, limits.
_FIRST = ("memory.usage_in_bytes", "total_inactive_file", "memory.limit_in_bytes")
_SECOND = ("memory.current", "inactive_file", "memory.max", "memory.high")


def available_memory() -> int | None:
    """Return how many bytes this process can still have, None if the system does not tell.

    The least of what the machine has available, and what is left to this process (`ulimit -v`) and to each
    control group that it is in: a container's limit is one of these.
    """
    found = [*_left_to_groups(), *_left_to_process()]
    try:
        found.append(psutil.virtual_memory().available)
    except (OSError, RuntimeError, NotImplementedError):
        pass
    return max(0, min(found)) if found else None


def _left_to_process() -> Iterator[int]:
    """Yield what the limits of this process leave of its address space and of its data."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    used = psutil.Process().memory_info()
    for limit, has in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", None))):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and has is not None:
            yield most - has


def _left_to_groups(root: Path = Path("/")) -> Iterator[int]:
    """Yield what the control groups of this process leave, in both versions of Linux's interface."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        # A line such as "4:cpu,memory:/path" for the first version, "0::/path" for the second.
        parts = [line.split(":", 2) for line in groups]
        path_of = {name: path for _, names, path in parts for name in names.split(",")}
        halves = [line.partition(" - ")[::2] for line in mounts]
        found = [(mount.split()[3:5], kind.split()) for mount, kind in halves if kind]
    except (OSError, ValueError):
        return
    for (within, place), (kind, *_, options) in found:
        second = kind == "cgroup2"
        if not second and not (kind == "cgroup" and "memory" in options.split(",")):
            continue
        path, top = path_of.get("" if second else "memory", "/"), root / place.lstrip("/")
        # In a container, the part of the tree that is mounted may begin at the container's own group.
        folder = top / (os.path.relpath(path, within) if Path(path).is_relative_to(within) else ".")
        for group in (folder, *folder.parents):
            yield from _left_to_group(group, *(_SECOND if second else _FIRST))
            if group == top:
                break


def _left_to_group(folder: Path, usage: str, cache: str, *limits: str) -> Iterator[int]:
    """Yield what a control group leaves, unless it has no limit; the cache of files counts as free."""
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used = int((folder / usage).read_text()) - int(stat.get(cache, 0))
    except (OSError, ValueError):
        return
    for name in limits:
        with suppress(OSError, ValueError):  # not there, or "max"
            yield int((folder / name).read_text()) - used


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(said in words for said in _SAID)
    )


@contextmanager
def memory_explained() -> Iterator[None]:
    """Turn the errors of memory that ran out, of torch, numpy and pyarrow, into one that names the cures."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise out_of_memory(error) from error


def out_of_memory(error: BaseException) -> OutOfMemoryError:
    """Return what to say where memory ran out."""
    have = available_memory()
    left = "" if have is None else f", with {have / 1e9:,.1f} GB available to this process"
    what = str(error).strip().partition("\n")[0]
    said = f" ({what})" if what else ""
    return OutOfMemoryError(
        f"memory ran out{left}{said}. Set a budget (memory=, command line: --memory), "
        "score fewer samples at a time (subset=, --subset), use fewer features, or raise the limit of this "
        "process or container."
    )


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        device: Where it computes.
        memory: Bytes; None: what the machine has.
    """

    device: torch.device
    memory: int | None = None


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the cache, which need not exist yet."""
    if given is not None:
        return expand(given)
    if named := os.environ.get("LSI_CACHE"):
        return expand(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expand("~/.cache")) / "lsi"


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path in which ``~`` stands for the home of a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{os.fspath(path)!r} cannot be used: there is no such home folder. Write the path out; for the "
            "cache, in LSI_CACHE or --cache-dir."
        ) from error
