"""Finished blocks on disk: the same run, started again, goes on from them and ends in the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lsi.errors import InputError, OutputError
from lsi.scores_folder import explained
from lsi.work import Arrays

RUN_FILE, LOCK_FILE, FORMAT, VERSION = "run.json", "run.lock", "lsi-checkpoint", 1
SUFFIX = ".block"
_HEAD = b"lsi-block 1 "


class Checkpoint:
    """Keeps the finished blocks of one run in a folder of their own.

    Every block is written beside its place, flushed to the disk and moved there as a whole, with the SHA-256
    of its content in front. A block that does not match its sum counts as not done. `run.json` says which
    data and settings the blocks are of; only a run with the same ones goes on from them.

    Args:
        folder: Where blocks are kept; made if it is not there.
        key: Everything that decides the result, as JSON values.

    Raises:
        InputError: The folder holds blocks of other data or settings, or something else.
        OutputError: The folder cannot be written, or another run is at work in it.
    """

    def __init__(self, folder: str | os.PathLike[str], key: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.resumed = 0
        self.kept = 0
        with explained(self.folder):
            _check_place(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            self._open(json.loads(json.dumps(key)))
        except BaseException:
            self._lock.release()
            raise

    def _open(self, key: dict[str, Any]) -> None:
        found = _read_key(self.folder)
        if found is None:
            content = json.dumps({"format": FORMAT, "version": VERSION, "key": key}, indent=1)
            with explained(self.folder):
                _write(self.folder / RUN_FILE, content.encode())
        elif differences := _differences(found, key):
            raise InputError(
                f"{os.fspath(self.folder)!r} holds the finished blocks of another run; different are: "
                f"{', '.join(differences)}. Use the data and settings of that run to go on with it, or "
                "remove the folder to start anew."
            )

    def get(self, name: str) -> Arrays | None:
        """Return what is kept under a name; None: nothing, or what is there was damaged."""
        try:
            content = (self.folder / (name + SUFFIX)).read_bytes()
        except FileNotFoundError:
            return None
        head, payload = content[: len(_HEAD) + 64], content[len(_HEAD) + 65 :]
        if head != _HEAD + hashlib.sha256(payload).hexdigest().encode():
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            self.resumed += 1
            return {key: arrays[key] for key in arrays.files}

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a result, so that it survives any end of the process.

        Raises:
            OutputError: The disk is full. What was kept before stays so.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        payload = buffer.getvalue()
        head = _HEAD + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        with explained(self.folder):
            _write(self.folder / (name + SUFFIX), head + payload)
        self.kept += 1

    def close(self) -> None:
        """Let another run have the folder."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the folder: its run is complete, and its result is safe elsewhere."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds finished blocks, or nothing yet."""
    names = {entry.name for entry in folder.iterdir()}
    return all(name in (RUN_FILE, LOCK_FILE) or name.endswith((SUFFIX, ".tmp")) for name in names)


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
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            out += _differences(old, new, f"{prefix}{name}.")
            continue
        short = max(len(repr(old)), len(repr(new))) <= 40
        out.append(f"{prefix}{name} ({old!r} there, {new!r} now)" if short else prefix + name)
    return out


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, and see it onto the disk."""
    part = path.with_suffix(".tmp")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
