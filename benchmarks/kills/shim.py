"""A process that ends at its n-th step on the disk, as if its machine had lost power for it there.

Steps are what Python tells of the files below a folder: opening for writing, writing, flushing, renaming,
exchanging, linking, and removing. At the last one the process kills itself, before the step is done; of a
write, half of the bytes arrive.
"""

import builtins
import io
import os
import signal
import sys

MOVES = {"os.rename", "os.link", "os.symlink"}
CHANGES = {"os.remove", "os.rmdir", "os.mkdir", "os.truncate", *MOVES}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Steps:
    """The steps of this process, from now to its end.

    Args:
        folder: Only files below it count.
        last: The step, counted from 1, at which the process ends; 0: none.
    """

    def __init__(self, folder, last=0):
        self.folder, self.last, self.done = os.fspath(folder) + os.sep, last, []
        self._real, self._fsync = io.open, os.fsync
        builtins.open = io.open = self._open
        os.fsync = self._flush
        sys.addaudithook(self._hook)

    def step(self, what, path, before_end=None):
        """Count a step, and end the process if it is the last."""
        if not path.startswith(self.folder):
            return
        self.done.append(f"{what} {path[len(self.folder) :]}")
        if len(self.done) == self.last:
            if before_end is not None:
                before_end()
            os.kill(os.getpid(), signal.SIGKILL)

    def _hook(self, event, values):
        if event == "open":
            path, mode, flags = values
            if mode is None and isinstance(path, str | bytes | os.PathLike) and flags & WRITES:
                self.step("open", full(path))
        elif event in CHANGES:
            at = values[-1] if isinstance(values[-1], int) and event != "os.truncate" else -1
            self.step(event.removeprefix("os."), full(values[1] if event in MOVES else values[0], at))

    def _flush(self, handle):
        self.step("fsync", full(handle))
        self._fsync(handle)

    def _open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **others):
        writes = set(mode) & set("wax+")
        if isinstance(file, int) or not writes or not full(file).startswith(self.folder):
            return self._real(file, mode, buffering, encoding, errors, newline, **others)
        path = full(file)
        self.step("open", path)
        raw = Raw(self, path, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)


class Raw(io.FileIO):
    """A file whose writes are steps."""

    def __init__(self, steps, path, mode):
        self._steps, self._path = steps, path
        super().__init__(path, mode)

    def write(self, content):
        half = memoryview(content).cast("B")[: len(content) // 2]
        self._steps.step("write", self._path, lambda: super(Raw, self).write(half))
        return super().write(content)

    def truncate(self, size=None):
        self._steps.step("truncate", self._path)
        return super().truncate(size)


def full(path, at=-1):
    """Return the absolute path of a name, of a name in an open folder, or of an open file."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    inside = os.fsdecode(path)
    return os.path.abspath(inside if at < 0 else os.path.join(os.readlink(f"/proc/self/fd/{at}"), inside))
