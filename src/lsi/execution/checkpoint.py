"""Finished blocks on disk: the same run, started again, goes on from them and ends in the same bytes."""

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
from filelock import FileLock, Timeout

from lsi.errors import InputError, OutputError
from lsi.execution.work import Arrays
from lsi.system.files import explained, flush_folder
from lsi.system.npy import PARSE_ERRORS

RUN_FILE, LOCK_FILE, FORMAT, VERSION = "run.json", "run.lock", "lsi-checkpoint", 1
SUFFIX, UNFINISHED = ".block", ".tmp"
_HEAD = b"lsi-block 1 "
_NAME_OF_RUN = re.compile(r"run\.(json|lock|tmp)")
_NAME = re.compile(rf"{_NAME_OF_RUN.pattern}|[A-Za-z0-9._-]+\.(block|tmp)")
_BLOCK = re.compile(r"-\d{6}$")
Say = Callable[[str], None]


class Checkpoint:
    """Keeps the finished blocks of one run in a folder of their own.

    Every block is written beside its place, flushed to the disk and moved there as a whole, with a SHA-256
    of the run, its name and its content in front. A block that does not match its sum counts as not done.
    `run.json` says which data and settings the blocks are of; only a run of the same goes on from them.

    Args:
        folder: Where blocks are kept; made when it is taken.
        say: Called with a sentence where a run goes on from blocks that are there.
    """

    def __init__(self, folder: str | os.PathLike[str], say: Say | None = None) -> None:
        self.folder, self._say = Path(folder), say or (lambda text: None)
        self._lock: FileLock | None = None
        self.run = ""
        self._stage, self._names, self._told = "", list[str](), False

    def take(self) -> None:
        """Make the folder and keep other runs out of it."""
        if self._lock is not None:
            return
        with explained(self.folder):
            _check_place(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        with explained(self.folder):
            for left in self.folder.glob(f"*{UNFINISHED}"):  # of a run that was killed while it wrote them
                left.unlink()

    def open(self, key: Mapping[str, Any]) -> None:
        """Say which run the blocks are of."""
        self.take()
        wanted = json.loads(json.dumps(key))
        found = _read_key(self.folder)
        if found is None:
            content = json.dumps({"format": FORMAT, "version": VERSION, "key": wanted}, indent=1)
            with explained(self.folder):
                _write(self.folder / RUN_FILE, content.encode())
        elif differences := _differences(found, wanted):
            raise InputError(
                f"{os.fspath(self.folder)!r} holds the finished blocks of another run; different are: "
                f"{', '.join(differences)}. Use the data and settings of that run to go on with it, or "
                "remove the folder to start anew."
            )
        self.run = digest_of(wanted)
        kept = [path.stem for path in self.folder.glob(f"*{SUFFIX}")]
        if kept:
            count = sum(_BLOCK.search(name) is not None for name in kept)
            many = f": {count} finished block{'s' if count > 1 else ''}" if count else ""
            self._say(f"going on from what is kept in {os.fspath(self.folder)!r}{many}")

    def begin(self, stage: str, names: Sequence[str]) -> None:
        """Say which blocks come next."""
        self._stage, self._names = stage, list(names)
        there = self._there()
        if 0 < there < len(names) and not self._told:
            self._told = True
            self._say(f"{stage}: {there} of {len(names)} blocks are done already")

    def get(self, name: str) -> Arrays | None:
        """Return what is kept under a name; None: nothing, or what is there was damaged."""
        path = self.folder / (name + SUFFIX)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"{os.fspath(path)!r} cannot be read ({error.strerror}). Remove it to have it done again."
            ) from error
        size = len(_HEAD) + 65
        arrays = _unpacked(content[size:]) if content[:size] == self._head(name, content[size:]) else None
        if arrays is None:
            warnings.warn(f"{os.fspath(path)!r} is damaged, and is done again.", stacklevel=2)
        return arrays

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a result, so that it survives any end of the process."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        payload = buffer.getvalue()
        try:
            with explained(self.folder):
                _write(self.folder / (name + SUFFIX), self._head(name, payload) + payload)
        except OutputError as error:
            raise OutputError(f"{error} {self.summary()}") from error

    def summary(self) -> str:
        """Return how much is kept, and how to go on, as two sentences."""
        where = f"kept in {os.fspath(self.folder)!r}. Start the same again to go on from there."
        if not self._names:
            return f"what is done so far is {where}"
        return f"{self._there()} of {len(self._names)} blocks of {self._stage} are {where}"

    def close(self) -> None:
        """Let another run have the folder; one that no run was opened in goes."""
        if self._lock is None:
            return
        if self.folder.is_dir() and {entry.name for entry in self.folder.iterdir()} <= {LOCK_FILE}:
            self._leave(self._lock)
        self._lock.release()
        self._lock = None

    def remove(self) -> None:
        """Remove the folder: its run is complete, and its result is safe elsewhere."""
        if self._lock is None:
            return
        with explained(self.folder):
            # The key last: what is left at any time fits together.
            for path in [*self.folder.glob(f"*{SUFFIX}"), self.folder / RUN_FILE]:
                path.unlink(missing_ok=True)
        self._leave(self._lock)
        self._lock = None

    def _leave(self, lock: FileLock) -> None:
        drop_lock(lock)
        with suppress(OSError):  # someone has put something there meanwhile
            self.folder.rmdir()

    def _there(self) -> int:
        return sum((self.folder / (name + SUFFIX)).exists() for name in self._names)

    def _head(self, name: str, payload: bytes) -> bytes:
        digest = hashlib.sha256(f"{self.run}/{name}/".encode())
        digest.update(payload)
        return _HEAD + digest.hexdigest().encode() + b"\n"


def drop_lock(lock: FileLock) -> None:
    """Release a lock and remove its file."""
    path = Path(lock.lock_file)
    if os.name == "nt":  # Windows keeps files that are open
        lock.release()
    with suppress(OSError):  # elsewhere it goes while it is held: no one else removes a lock of theirs
        path.unlink()
    lock.release()


def digest_of(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a run's key, by which its shards know each other."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def run_of(folder: Path) -> str | None:
    """Return the digest of the run whose blocks a folder holds; None: of none, or it cannot be read."""
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
        known.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink() for entry in entries
    )


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"checkpoint {os.fspath(folder)!r} is a file. Name a folder for finished blocks.")
    if folder.is_dir() and not is_checkpoint(folder):
        raise InputError(
            f"checkpoint {os.fspath(folder)!r} holds other files. Name an empty or a new folder for the "
            "finished blocks."
        )


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK_FILE)
    with explained(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another run is at work in {os.fspath(folder)!r}. Wait for it, or name another folder."
            ) from error
    return lock


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
    """Return the names of the entries that differ, with their old and new values where these are short."""
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
    """Return the arrays of a block; None where it is not as `put` writes them, whatever its sum says."""
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


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, and see it onto the disk."""
    part = path.with_suffix(UNFINISHED)
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
