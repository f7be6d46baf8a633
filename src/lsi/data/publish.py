"""Writing a new file or folder as a whole or not at all, and never over anything that is there."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsi.errors import OutputError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def check_new(path: Path) -> None:
    """Refuse a place that is taken or cannot be written; called before any work.

    Args:
        path: File or folder to make; its parents need not exist.

    Raises:
        OutputError: Something is in the way.
    """
    if os.path.lexists(path):
        raise OutputError(f"{str(path)!r} is already there and is never overwritten. Choose another name.")
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{str(path)!r} cannot be written: {str(parent)!r} is read-only, or no folder.")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; on success the file gets its name, else it is gone.

    Args:
        path: File to make.

    Yields:
        Where to write.

    Raises:
        OutputError: The place is taken, or the disk is full or read-only.
    """
    check_new(path)
    staging = _hidden(path)
    try:
        with _explained(path):
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            yield staging
            _flush(staging)
            _name_file(staging, path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside `path` to fill; on success it gets its name, else it is gone.

    Args:
        path: Folder to make.

    Yields:
        An empty folder.

    Raises:
        OutputError: The place is taken, or the disk is full or read-only.
    """
    check_new(path)
    staging = _hidden(path)
    try:
        with _explained(path):
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            yield staging
            check_new(path)  # again: renaming would replace an empty folder without a word
            os.rename(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _hidden(path: Path) -> Path:
    # The suffix stays: some writers choose the format by it.
    return path.absolute().parent / f".lsi-{secrets.token_hex(6)}{path.suffix}"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _name_file(staging: Path, path: Path) -> None:
    """Give the file its name; a link fails where something has got it meanwhile, a rename would not."""
    try:
        os.link(staging, path)
    except FileExistsError:
        check_new(path)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_new(path)
        os.rename(staging, path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        cause = "the disk is full" if error.errno in _FULL else error.strerror or str(error)
        raise OutputError(f"{str(path)!r} cannot be written: {cause}. Choose another place.") from error
