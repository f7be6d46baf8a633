"""Features on disk: keyed by content, written row by row, resumed after any interruption, mapped when read.

An entry is a folder that is named after its key::

    features.npy       (N, D) float32, complete
    features.npy.part  the same while it grows: its header already states all N rows
    progress.json      rows that are safely on disk, and the broken items among them
    manifest.json      what was encoded, and how; written last, so that it marks a complete entry

A lock next to the folder is held while an entry grows. It ends with the process: after one is killed, the
next run goes on after the last row that is safe.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsi.errors import InputError, OutputError
from lsi.features.growing import CURE, WHAT, Growing, first_rows, read_json, whole
from lsi.system.drafts import tidy
from lsi.system.files import drop_lock, explained, take_lock
from lsi.system.machine import cache_folder
from lsi.system.npy import load_npy

_KEY = re.compile(r"[0-9a-f]{40}")


class FeatureCache:
    """All entries in the library's cache folder; None: the default one."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = cache_folder(folder) / "features"

    @contextmanager
    def open(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[Entry]:
        """Hold an entry for reading or writing; `on_wait` is called where another process holds it."""
        lock = take_lock(self.folder / f"{key}.lock", WHAT, CURE, on_wait=on_wait or (lambda: None))
        try:
            yield Entry(self.folder / key)
        finally:
            lock.release()

    def entries(self) -> list[EntryInfo]:
        """Return what is stored, newest first."""
        if not self.folder.is_dir():
            return []
        found = [entry for entry in self.folder.iterdir() if entry.is_dir() and _KEY.fullmatch(entry.name)]
        return sorted((_info(entry) for entry in found), key=lambda info: info.created, reverse=True)

    def remove(self, key: str) -> int:
        """Remove the one entry whose key begins like this, and return the bytes that became free."""
        matching = [info for info in self.entries() if info.key.startswith(key)] if key else []
        if len(matching) != 1:
            how_many = "no entry begins" if not matching else f"{len(matching)} entries begin"
            raise InputError(f"{how_many} with {key!r}. `lsi cache ls` shows the keys.")
        info = matching[0]
        busy = f"{info.key[:12]} is being written by another process. Try later."
        lock = take_lock(self.folder / f"{info.key}.lock", WHAT, CURE, busy=busy)
        try:
            shutil.rmtree(self.folder / info.key)
        finally:
            drop_lock(lock)
        return info.n_bytes

    def drop_locks(self) -> None:
        """Remove the locks of entries that are gone: a process that was killed leaves its own."""
        for path in self.folder.glob("*.lock"):
            if _KEY.fullmatch(path.stem) and not (self.folder / path.stem).exists():
                with suppress(OutputError):  # held: its entry is about to begin
                    lock = take_lock(path, WHAT, CURE, busy="it is held")
                    if (self.folder / path.stem).exists():  # it has begun and ended meanwhile
                        lock.release()
                    else:
                        drop_lock(lock)


@dataclass(frozen=True)
class EntryInfo:
    """What `lsi cache ls` shows of an entry.

    Attributes:
        key: Its key.
        rows: Rows on disk.
        total: Rows when it is complete.
        dim: Number of features.
        n_bytes: Bytes on disk.
        created: When it was completed, or else last written, in ISO 8601.
        encoder: Name of the encoder.
        data: Name of the data.
    """

    key: str
    rows: int
    total: int
    dim: int
    n_bytes: int
    created: str
    encoder: str
    data: str


class Entry:
    """One entry, held by this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._part = folder / "features.npy.part"
        self._done = folder / "features.npy"

    def read(self) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return the memory-mapped features and the manifest; None where the entry is not complete."""
        manifest = read_json(self.folder / "manifest.json")
        if manifest is None:
            return None
        try:
            features = load_npy(self._done)
        except InputError:  # damaged: it is made again
            return None
        fits = features.dtype == np.float32 and list(features.shape) == manifest.get("shape")
        if not fits or not isinstance(manifest.get("broken"), dict):
            return None
        with suppress(OSError):  # what a process left that was killed when only this was to be done
            tidy(self.folder)
            (self.folder / "progress.json").unlink(missing_ok=True)
        return features, manifest

    def first(self, count: int) -> np.ndarray:
        """Return the first rows that are safely on disk, at most `count` of them; `(0, 0)` where none are."""
        found = self.read()
        if found is not None:
            return np.array(found[0][:count])
        return first_rows(self._part, read_json(self.folder / "progress.json") or {}, count)

    def clear(self) -> None:
        """Remove what is stored: it is made again."""
        with explained(self.folder, WHAT, CURE):
            shutil.rmtree(self.folder, ignore_errors=True)

    def resume(self, total: int) -> Growing:
        """Open the entry for writing after the last row that is safely on disk."""
        with explained(self.folder, WHAT, CURE):
            self.folder.mkdir(parents=True, exist_ok=True)
            tidy(self.folder)
            (self.folder / "manifest.json").unlink(missing_ok=True)
            progress = read_json(self.folder / "progress.json") or {}
            if progress and self._done.is_file() and not self._part.is_file():
                os.replace(self._done, self._part)  # it was interrupted between last row and manifest
            return Growing(self.folder, self._part, self._done, total, progress)


def _info(folder: Path) -> EntryInfo:
    manifest = read_json(folder / "manifest.json") or {}
    progress = read_json(folder / "progress.json") or {}
    rows, total, dim = whole(progress.get("rows")), whole(progress.get("total")), whole(progress.get("dim"))
    shape = manifest.get("shape")
    if isinstance(shape, list) and len(shape) == 2:
        rows, total, dim = whole(shape[0]), whole(shape[0]), whole(shape[1])
    files = [entry.lstat() for entry in folder.iterdir()]
    newest = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
    written = datetime.datetime.fromtimestamp(newest, datetime.UTC).isoformat(timespec="seconds")
    known = manifest or progress
    return EntryInfo(
        key=folder.name,
        rows=rows,
        total=total,
        dim=dim,
        n_bytes=sum(file.st_blocks * 512 if hasattr(file, "st_blocks") else file.st_size for file in files),
        created=str(manifest.get("created", written)),
        encoder=str(known.get("encoder", "")),
        data=str(known.get("data", "")),
    )
