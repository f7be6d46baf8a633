"""Drafts: where something is written before it gets its name, and what a process that died left of them.

A draft lies in a *workplace*, a hidden folder beside the place-to-be, so that moving it there stays on one
disk. The lock in it is held as long as its process lives: a workplace whose lock is free is nobody's any
more, and goes when something is written or about to be written beside it (`tidy`).

A folder takes the place of another in one step where the system has one for it (`exchange`). Elsewhere it
takes two; the workplace then says before the first where the old folder belongs, and unless the second
happened, whoever cleans up puts it back.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_NAME = re.compile(r"\.lsi-[0-9a-f]{12}")
_LOCK, _OLD, _JOURNAL, _DRAFT = "lock", "old", "belongs-to", "draft"
_CURRENT, _SWAP = -100, 2  # AT_FDCWD on Linux; RENAME_EXCHANGE there and RENAME_SWAP on macOS are both 2


def is_workplace(path: Path) -> bool:
    """Return whether drafts of this user are written in a folder: by its name, owner and content."""
    if _NAME.fullmatch(path.name) is None or path.is_symlink() or not path.is_dir():
        return False
    if os.name != "nt" and path.stat().st_uid != os.geteuid():  # in a folder that users share, such as /tmp
        return False
    known = {_LOCK, _OLD, _JOURNAL}
    return all(name in known or name.partition(".")[0] == _DRAFT for name in os.listdir(path))


@contextmanager
def workplace(parent: Path, suffix: str) -> Iterator[Path]:
    """Yield a name in a workplace of its own in `parent`, for a file or folder to write there.

    Some writers choose the format by the suffix. What is there at the end is removed.
    """
    tidy(parent)
    place, lock = _open(parent)
    try:
        yield place / f"{_DRAFT}{suffix}"
    finally:
        _leave(place, lock)


def tidy(parent: Path) -> None:
    """Remove the workplaces of processes that ended, after putting back what they had moved away."""
    with suppress(OSError):
        for place in [path for path in parent.glob(".lsi-*") if is_workplace(path)]:
            lock = FileLock(place / _LOCK)
            with suppress(OSError, NotImplementedError, Timeout):
                lock.acquire(timeout=0)
                _leave(place, lock)


def _open(parent: Path) -> tuple[Path, FileLock]:
    while True:
        place = parent / f".lsi-{secrets.token_hex(6)}"
        place.mkdir(0o700)
        lock = FileLock(place / _LOCK)
        with suppress(Timeout, FileNotFoundError):
            lock.acquire(timeout=0)
            if (place / _LOCK).exists():
                return place, lock
            lock.release()
        # Someone who tidies up came between folder and lock, and took it for a dead one's.


def _leave(place: Path, lock: FileLock) -> None:
    """Remove a workplace and unlock it."""
    if _put_back(place):
        shutil.rmtree(place, ignore_errors=True)
    lock.release()
    if os.name == "nt":  # cannot remove a lock that is held
        with suppress(OSError):
            (place / _LOCK).unlink(missing_ok=True)
            place.rmdir()


def _put_back(place: Path) -> bool:
    """Put an old folder back unless its successor took its place; return whether the rest may go."""
    try:
        name = (place / _JOURNAL).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True
    old, target = place / _OLD, place.parent / name
    if Path(name).name != name or not old.is_dir() or old.is_symlink() or os.path.lexists(target):
        return True
    try:
        os.rename(old, target)
        flush(place.parent)
    except OSError:
        return False
    return True


def replace(draft: Path, target: Path, check: Callable[[Path], None]) -> None:
    """Let the folder `draft` take the place of the folder `target`, which goes with the draft's workplace.

    `check` gets the old folder once it is out of the way, where nobody changes it any more. If that raises,
    nothing is replaced. The old one is in its place until the new one is, or comes back to it.
    """
    place = draft.parent
    if exchange(draft, target):
        try:
            check(draft)
        except BaseException:
            exchange(draft, target)
            raise
        return
    journal = place / _JOURNAL
    journal.write_text(target.name, encoding="utf-8")
    flush(journal)
    flush(place)
    try:
        os.rename(target, place / _OLD)
        check(place / _OLD)
        os.rename(draft, target)
    except BaseException:
        _put_back(place)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders in one step; return whether this system and disk can do that."""
    call = _exchange()
    if call is None:
        return False
    sys.audit("os.rename", one, other, -1, -1)
    return bool(call(os.fsencode(one), os.fsencode(other)) == 0)


@cache
def _exchange() -> Any:
    """Return the system's call; None where it has none."""
    try:
        system = ctypes.CDLL(None)
        if sys.platform == "darwin":
            swap = system.renamex_np
            swap.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
            return lambda one, other: swap(one, other, _SWAP)
        at = system.renameat2
        at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        return lambda one, other: at(_CURRENT, one, _CURRENT, other, _SWAP)
    except (AttributeError, OSError, TypeError):  # Windows, or a C library without the call
        return None


def flush(path: Path) -> None:
    """Flush a file's content or a folder's entries to the disk, so that they survive a crash."""
    windows = os.name == "nt"
    if windows and path.is_dir():  # cannot be opened there; renames are journaled
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
