"""Finished blocks on disk: the same run, started again, continues from them and ends in the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lsi.errors import InputError, OutputError
from lsi.execution.work import Arrays
from lsi.system.drafts import is_workplace, tidy
from lsi.system.files import drop_lock, explained, replace_file, take_lock
from lsi.system.npy import PARSE_ERRORS

RUN_FILE, LOCK_FILE, FORMAT, VERSION = "run.json", "run.lock", "lsi-checkpoint", 1
SUFFIX = ".block"
WHAT = "finished blocks"
_HEAD = b"lsi-block 1 "
_NAME_OF_RUN = re.compile(r"run\.(json|lock)")
_NAME = re.compile(rf"{_NAME_OF_RUN.pattern}|[A-Za-z0-9_-][A-Za-z0-9._-]*\.block")
_BLOCK = re.compile(r"-\d{6}$")
Say = Callable[[str], None]


class Checkpoint:
    """Keeps the finished blocks of one run in a folder of their own.

    Every block appears as a whole or not at all. It begins with a SHA-256 of the run, its name and its
    content; a block that does not match its checksum is computed again. `run.json` records data and settings:
    only a run with the same data and settings continues from the blocks.

    Args:
        folder: Where blocks are kept; made by `take`.
        say: Called with a sentence when a run continues from blocks that were kept.
    """

    def __init__(self, folder: str | os.PathLike[str], say: Say | None = None) -> None:
        self.folder, self._say = Path(folder), say or (lambda text: None)
        self._lock: FileLock | None = None
        self.run = ""
        self._stage, self._names, self._told = "", list[str](), False

    def take(self) -> None:
        """Make the folder, and lock other runs out of it."""
        if self._lock is not None:
            return
        with explained(self.folder, WHAT):
            _check_place(self.folder)
        busy = f"another run is at work in {os.fspath(self.folder)!r}. Wait for it, or name another folder."
        self._lock = take_lock(self.folder / LOCK_FILE, WHAT, busy=busy)
        tidy(self.folder)

    def open(self, key: Mapping[str, Any]) -> None:
        """Take the folder for the run with this key; refuse the blocks of another run."""
        self.take()
        wanted = json.loads(json.dumps(key))
        found = _read_key(self.folder)
        if found is None or not self._files():  # an earlier run that kept nothing is in nobody's way
            content = json.dumps({"format": FORMAT, "version": VERSION, "key": wanted}, indent=1)
            replace_file(self.folder / RUN_FILE, content.encode(), WHAT)
        elif differences := _differences(found, wanted):
            raise InputError(
                f"{os.fspath(self.folder)!r} holds the finished blocks of another run, which differs in "
                f"{', '.join(differences)}. Use the data and settings of that run to continue it, or remove "
                "the folder to start anew."
            )
        self.run = digest_of(wanted)
        kept = [path.stem for path in self._files()]
        if kept:
            count = sum(_BLOCK.search(name) is not None for name in kept)
            many = f": {count} finished block{'s' if count > 1 else ''}" if count else ""
            self._say(f"continuing from what is kept in {os.fspath(self.folder)!r}{many}")

    def begin(self, stage: str, names: Sequence[str]) -> None:
        """Note which blocks come next, and say once how many of them are done already."""
        self._stage, self._names = stage, list(names)
        done = self._done()
        if 0 < done < len(names) and not self._told:
            self._told = True
            self._say(f"{stage}: {done} of {len(names)} blocks are done already")

    def get(self, name: str) -> Arrays | None:
        """Return what is kept under a name; None if there is nothing, or if it is damaged."""
        path = self.folder / (name + SUFFIX)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"{os.fspath(path)!r} cannot be read ({error.strerror}). Remove it to have it computed again."
            ) from error
        size = len(_HEAD) + 65
        arrays = _unpacked(content[size:]) if content[:size] == self._head(name, content[size:]) else None
        if arrays is None:
            warnings.warn(f"{os.fspath(path)!r} is damaged, and is computed again.", stacklevel=2)
        return arrays

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a result, which then survives any end of the process."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        payload = buffer.getvalue()
        try:
            replace_file(self.folder / (name + SUFFIX), self._head(name, payload) + payload, WHAT)
        except OutputError as error:
            raise OutputError(f"{error} {self.summary()}") from error

    def summary(self) -> str:
        """Return how much is kept and how to continue, as two sentences."""
        where = f"kept in {os.fspath(self.folder)!r}. Start the same run again to continue from there."
        if not self._names:
            return f"what is done so far is {where}"
        return f"{self._done()} of {len(self._names)} blocks of {self._stage} are {where}"

    def close(self) -> None:
        """Unlock the folder, and remove it if no run was opened in it."""
        if self._lock is None:
            return
        if self.folder.is_dir() and {entry.name for entry in self.folder.iterdir()} <= {LOCK_FILE}:
            self._leave(self._lock)
        self._lock.release()
        self._lock = None

    def remove(self) -> None:
        """Remove the folder, once its run is complete and the result is safe elsewhere."""
        if self._lock is None:
            return
        with explained(self.folder, WHAT):
            # The key goes last, so that what is left after an interruption is still a valid checkpoint.
            for path in [*self._files(), self.folder / RUN_FILE]:
                path.unlink(missing_ok=True)
        self._leave(self._lock)
        self._lock = None

    def _leave(self, lock: FileLock) -> None:
        drop_lock(lock)
        with suppress(OSError):  # somebody has put a file there meanwhile
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return list(self.folder.glob(f"*{SUFFIX}"))

    def _done(self) -> int:
        return sum((self.folder / (name + SUFFIX)).exists() for name in self._names)

    def _head(self, name: str, payload: bytes) -> bytes:
        digest = hashlib.sha256(f"{self.run}/{name}/".encode())
        digest.update(payload)
        return _HEAD + digest.hexdigest().encode() + b"\n"


def digest_of(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a run's key, by which shards of one run recognise each other."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def run_of(folder: Path) -> str | None:
    """Return the digest of the run whose blocks a folder holds; None if no run can be read."""
    try:
        found = _read_key(folder) if folder.is_dir() else None
    except (InputError, OSError):
        return None
    return None if found is None else digest_of(found)


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds finished blocks with their key, or nothing yet: plain files, no links."""
    entries = list(folder.iterdir())
    known = _NAME if RUN_FILE in {entry.name for entry in entries} else _NAME_OF_RUN
    return all(
        is_workplace(entry) or (known.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink())
        for entry in entries
    )


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"checkpoint {os.fspath(folder)!r} is a file. Name a folder for finished blocks.")
    if folder.is_dir() and not is_checkpoint(folder):
        raise InputError(
            f"checkpoint {os.fspath(folder)!r} holds other files. Name an empty or a new folder for the "
            "finished blocks."
        )


def _read_key(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / RUN_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        found = None
    well = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("key"), dict)
    if not well or found.get("version") != VERSION:
        raise InputError(
            f"{os.fspath(folder / RUN_FILE)!r} cannot be read, or another version wrote it. Remove the "
            "folder to start anew."
        )
    return dict(found["key"])


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names of the entries that differ, with old and new values where these are short."""
    out = []
    for name in sorted(found.keys() | wanted.keys()):
        old, new = found.get(name), wanted.get(name)
        if old == new and type(old) is type(new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            out += _differences(old, new, f"{prefix}{name}.")
            continue
        short = max(len(repr(old)), len(repr(new))) <= 40
        out.append(f"{prefix}{name} ({old!r} there, {new!r} now)" if short else prefix + name)
    return out


def _unpacked(payload: bytes) -> Arrays | None:
    """Return the arrays of a block; None if `put` cannot have written it, whatever its checksum says."""
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > len(payload):
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except PARSE_ERRORS:
        return None
