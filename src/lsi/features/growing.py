"""Features that grow on disk row by row, with a journal of the rows that are safe."""

from __future__ import annotations

import datetime
import io
import json
import os
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from lsi.system.door import read_json as read_value
from lsi.system.files import check_space, explained, replace_file

WHAT = "the features"
ROOM = "Make room (`lsi cache rm`), or choose another --cache-dir."
CURE = f"What was encoded so far is kept. {ROOM}"


class Growing:
    """An entry that grows row by row.

    Attributes:
        rows: Rows written.
        broken: Why items have no features, by position; their rows are NaN.
    """

    def __init__(self, folder: Path, part: Path, done: Path, total: int, progress: dict[str, Any]) -> None:
        self._folder, self._path, self._final, self._total = folder, part, done, total
        self.rows = 0
        self.dim = 0
        self.broken: dict[int, str] = {}
        self.info: dict[str, Any] = {}
        fits = progress.get("total") == total and part.is_file()
        self._file = part.open("r+b" if fits else "w+b")
        if fits:
            self._take_up(progress)

    def _take_up(self, progress: dict[str, Any]) -> None:
        dim, rows, broken = whole(progress.get("dim")), whole(progress.get("rows")), progress.get("broken")
        if not dim or rows > self._total or not _is_journal(broken, rows):
            self._file.truncate(0)  # damaged: start from the beginning
            return
        header = _header(self._total, dim)
        end = len(header) + 4 * dim * rows
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        # Journal and file disagree only after a crash of the whole system: start from the beginning.
        if size < end or self._file.read(len(header)) != header:
            self._file.truncate(0)
            self._file.seek(0)
            return
        self._file.truncate(end)
        self._file.seek(end)
        self.rows, self.dim = rows, dim
        self.broken = {int(position): reason for position, reason in broken.items()}

    def append(self, block: np.ndarray, broken: dict[int, str]) -> None:
        """Append rows `(b, D)`."""
        with explained(self._folder, WHAT, CURE):
            if not self.dim:
                self._begin(block.shape[1])
            self._file.write(np.ascontiguousarray(block, dtype="<f4").tobytes())
            self.rows += len(block)
            self.broken |= broken

    def _begin(self, dim: int) -> None:
        self.dim = dim
        check_space(self._folder, 4 * dim * self._total, "The features", ROOM)
        self._file.write(_header(self._total, dim))

    def keep(self) -> None:
        """Flush what was written, so that it survives any end of the process."""
        if self._file.closed:
            return
        with explained(self._folder, WHAT, CURE):
            self._file.flush()
            os.fsync(self._file.fileno())
            progress = {"total": self._total, "rows": self.rows, "dim": self.dim, "broken": self.broken}
            write_json(self._folder / "progress.json", {**progress, **self.info})

    def finish(self, manifest: dict[str, Any]) -> None:
        """Mark the entry complete."""
        self.keep()
        with explained(self._folder, WHAT, CURE):
            self._file.close()
            os.replace(self._path, self._final)
            self._seal(manifest)

    def _seal(self, manifest: dict[str, Any]) -> None:
        broken = {str(position): reason for position, reason in self.broken.items()}
        complete = {**manifest, "shape": [self._total, self.dim], "broken": broken, "created": _now()}
        write_json(self._folder / "manifest.json", complete)
        (self._folder / "progress.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; rows written since the last `keep` do not count."""
        try:
            self._file.close()
        except OSError:  # a full disk can only lose rows after the last safe one
            pass


def first_rows(part: Path, progress: dict[str, Any], count: int) -> np.ndarray:
    """Return the first rows of features that grow, as far as they are safe, at most `count` of them."""
    total, dim, rows = (whole(progress.get(name)) for name in ("total", "dim", "rows"))
    if not total or not dim:
        return np.empty((0, 0), dtype=np.float32)
    try:
        values = np.fromfile(part, "<f4", min(count, rows) * dim, offset=len(_header(total, dim)))
    except OSError:
        return np.empty((0, 0), dtype=np.float32)
    return values[: len(values) // dim * dim].reshape(-1, dim)


def whole(value: object) -> int:
    """Return a count that was read from a file of unknown origin; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48 else 0


def _is_journal(broken: object, rows: int) -> TypeGuard[dict[str, str]]:
    """Return whether this maps positions of written rows to reasons."""
    return isinstance(broken, dict) and all(
        position.isascii() and position.isdigit() and int(position) < rows and isinstance(reason, str)
        for position, reason in broken.items()
    )


def _header(rows: int, dim: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    )
    return buffer.getvalue()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is none."""
    try:
        value = read_value(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file by a JSON object, completely or not at all."""
    replace_file(path, json.dumps(value).encode(), WHAT, CURE)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
