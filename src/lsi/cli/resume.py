"""What survives the end of a command: finished blocks next to the output, and how to go on from them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lsi.cli.inputs.options import LongRunOptions, OutputOptions
from lsi.errors import InputError

if TYPE_CHECKING:
    from filelock import FileLock

    from lsi.execution.checkpoint import Checkpoint, Say

UNFINISHED = ".unfinished"
"""Ending of the folder of finished blocks, after the name of the output."""


@dataclass(frozen=True)
class Kept:
    """What a command keeps while it runs.

    Attributes:
        checkpoint: Where finished blocks are kept; None: nowhere.
        replaces: Whether the scores at the output are those of this very run, which was interrupted before it
            removed its blocks. They may then be written again.
        temporary: Whether the blocks are removed once the output is written.
    """

    checkpoint: Checkpoint | None = None
    replaces: bool = False
    temporary: bool = False

    def finish(self) -> None:
        """Remove the blocks, now that the scores are written."""
        if self.checkpoint is not None and self.temporary:
            self.checkpoint.remove()


def blocks_folder(output: OutputOptions, long: LongRunOptions) -> Path | None:
    """Return where finished blocks are kept; None: nowhere."""
    if long.no_checkpoint:
        if long.checkpoint is not None:
            raise InputError("--checkpoint and --no-checkpoint exclude each other. Choose one of them.")
        return None
    if long.checkpoint is None:
        place = output.output
        return None if place is None else place.with_name(place.name + UNFINISHED)
    return long.checkpoint


@contextmanager
def keeping(output: OutputOptions, long: LongRunOptions, say: Say) -> Iterator[Kept]:
    """Keep finished blocks while the context lasts, and keep other runs away from blocks and output.

    SIGTERM ends the command as Ctrl-C does.
    """
    from lsi.execution.checkpoint import Checkpoint
    from lsi.system.files import drop_lock

    folder = blocks_folder(output, long)
    lock = None if output.output is None else _locked(output.output)
    checkpoint = None if folder is None else Checkpoint(folder, say)
    try:
        with _terminated():
            if checkpoint is not None:
                checkpoint.take()
            yield Kept(checkpoint, _was_written(output.output, folder), output.output is not None)
    except KeyboardInterrupt as error:
        if error.args or checkpoint is None or not checkpoint.run:
            raise
        raise KeyboardInterrupt(checkpoint.summary()) from error
    finally:
        if checkpoint is not None:
            checkpoint.close()
        if lock is not None:
            drop_lock(lock)


def _was_written(output: Path | None, folder: Path | None) -> bool:
    """Return whether the scores at the output were made from the kept blocks."""
    from lsi.execution.checkpoint import run_of
    from lsi.results.store import written_run

    run = None if output is None or folder is None else run_of(folder)
    return run is not None and output is not None and written_run(output) == run


def _locked(output: Path) -> FileLock:
    """Keep other runs away from an output."""
    from lsi.system.files import take_lock

    target = Path(os.path.realpath(output))
    busy = f"another run is about to write {os.fspath(output)!r}. Wait for it, or choose another folder."
    return take_lock(target.with_name(f".{target.name}.lock"), "scores", busy=busy)


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM interrupt the command as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
