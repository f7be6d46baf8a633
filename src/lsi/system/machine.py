"""The machine: its memory, the device of a run, and the folder of the cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lsi.errors import InputError

if TYPE_CHECKING:
    import torch


def available_memory() -> int | None:
    """Return how many bytes of memory are available, None if the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


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
