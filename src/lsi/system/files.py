"""Writing to disk: whatever is written appears as a whole or not at all, and survives a crash.

Everything is written to a *draft* beside its place (`lsi.system.drafts`). The draft is flushed to the disk,
moved into place, and the move is flushed too. What a process that died left behind goes when the place is
checked or written to again.

* `new_file` and `new_folder` take a free place and never replace anything.
* `replace_file` and `replace_folder` take the place of what is there.
* `explained` turns the operating system's errors into `OutputError`s that name the cure.
* `take_lock` and `drop_lock` keep other processes away.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from lsi.errors import OutputError
from lsi.system.drafts import flush, replace, tidy, workplace

PathLike = str | os.PathLike[str]
Recognise = Callable[[Path], bool]
Content = bytes | Callable[[BinaryIO], None]
"""What a file holds, or what writes it: what is large need not lie in memory twice."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


# Errors


@contextmanager
def explained(path: PathLike, what: str, cure: str | None = None) -> Iterator[None]:
    """Turn the operating system's errors into `OutputError`s that name the cure.

    `what` is written to `path`, such as ``"the report"``; a `cure` of None stands for what usually helps.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        cause, usual = _cause(error)
        raise OutputError(
            f"{what[0].upper()}{what[1:]} cannot be written to {_name(path)}: {cause}. {cure or usual}"
        ) from error


def _cause(error: OSError) -> tuple[str, str]:
    """Return what went wrong and the usual cure."""
    if error.errno in _FULL:
        return "the disk is full", "Free some space, or choose a place on another disk."
    if error.errno in _READ_ONLY:
        return "it is read-only for this user", "Choose another place, or change its permissions."
    return error.strerror or str(error), "Choose another place."


def _name(path: PathLike) -> str:
    return repr(os.fspath(path))


# Checks before any work


def check_new(path: Path) -> None:
    """Refuse a place that is taken or cannot be written."""
    tidy(path.absolute().parent)
    if os.path.lexists(path):
        raise OutputError(f"{_name(path)} is already there and is never overwritten. Choose another name.")
    check_parent(path)


def check_parent(path: PathLike) -> Path:
    """Refuse a place whose folder cannot be made or written to; return the nearest folder that exists."""
    parent = Path(path).absolute().parent
    tidy(parent)
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(
            f"{_name(path)} cannot be written: {_name(parent)} is a file. Choose another place."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{_name(path)} cannot be written: {_name(parent)} is read-only for this user. Choose another "
            "place, or change its permissions."
        )
    return parent


def check_space(folder: Path, needed_bytes: int, what: str, cure: str) -> None:
    """Refuse what does not fit on the disk of a folder. `what` is a plural, such as ``"Scores"``."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutputError(
            f"{what} need {needed_bytes / 1e6:,.1f} MB but the disk of {_name(folder)} has "
            f"{free / 1e6:,.1f} MB left. {cure}"
        )


def check_folder(path: PathLike, what: str, is_ours: Recognise, overwrite: bool, needed_bytes: int) -> Path:
    """Refuse a folder that `replace_folder` could not or must not write; return its real path.

    `what` it is to hold is a plural such as ``"scores"``. A folder may be replaced with `overwrite` alone,
    and only where `is_ours` finds nothing else in it.
    """
    with explained(path, what):
        target = Path(os.path.realpath(path))
        tidy(target.parent)
        if target.exists() and not target.is_dir():
            raise OutputError(
                f"{_name(path)} is a file, but {what} are saved as a folder. Choose another name."
            )
        if os.path.ismount(target) or target == Path(os.path.realpath(os.curdir)):
            raise OutputError(
                f"{_name(path)} is the current folder or the root of a disk, which cannot be replaced as a "
                f"whole. Choose a folder in it, such as {_name(Path(path) / what)}."
            )
        if target.is_dir() and os.listdir(target):
            _check_content(target, path, what, is_ours, overwrite)
        parent = check_parent(target)
        check_space(
            parent, needed_bytes, what.capitalize(), "Free some space, or choose a folder on another disk."
        )
    return target


def _check_content(target: Path, path: PathLike, what: str, is_ours: Recognise, overwrite: bool) -> None:
    if not is_ours(target):
        raise OutputError(
            f"{_name(path)} holds files that are no {what}, which are never overwritten. Choose another "
            "folder, or empty it first."
        )
    if not overwrite:
        raise OutputError(
            f"{_name(path)} already holds {what}. Choose another folder, or allow replacing them with "
            "overwrite=True (command line: --overwrite)."
        )


# Writing


@contextmanager
def new_file(path: Path, *, again: bool = False) -> Iterator[Path]:
    """Yield a draft to write to, which becomes the file at `path`; after an error it is removed.

    With `again`, the very same file may be there already: a run left it that wrote two files and was killed
    between them.
    """
    (check_parent if again else check_new)(path)
    with _draft(path, "the file") as draft:
        yield draft
        flush(draft)
        if again:
            check_left(draft, path)
        if not (again and path.exists()):
            _take_free_place(draft, path)


def check_left(draft: Path, path: Path) -> None:
    """Refuse a place that is taken by anything but the very same file as the draft."""
    if not (path.is_file() and filecmp.cmp(draft, path, shallow=False)):
        check_new(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes the folder at `path`; after an error it is removed."""
    check_new(path)
    with _draft(path, "the folder") as draft:
        draft.mkdir()
        yield draft
        for entry in (*draft.rglob("*"), draft):
            flush(entry)
        check_new(path)  # once more: a rename would silently replace an empty folder
        os.rename(draft, path)


def replace_file(path: Path, content: bytes, what: str = "the file", cure: str | None = None) -> None:
    """Write a file, in place of an older one where there is one. Arguments are those of `explained`."""
    with _draft(path, what, cure) as draft:
        _write(draft, content)
        os.replace(draft, path)


def replace_folder(target: Path, files: Mapping[str, Content], what: str, is_ours: Recognise) -> None:
    """Write a folder of these files, in place of a missing, empty or older one (`check_folder`)."""
    with _draft(target, what) as draft:
        draft.mkdir()
        for name, content in files.items():
            _write(draft / name, content)
        flush(draft)
        _swap(draft, target, what, is_ours)


@contextmanager
def _draft(path: Path, what: str, cure: str | None = None) -> Iterator[Path]:
    """Yield a free hidden name near `path`; at the end it is gone, whether it was moved or not."""
    with explained(path, what, cure):
        parent = path.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with workplace(parent, path.suffix) as draft:
            yield draft
            flush(parent)
        if draft.parent.exists():
            warnings.warn(
                f"{_name(draft.parent)} could not be removed. It is tried again when something is written "
                "beside it.",
                stacklevel=2,
            )


def _write(path: Path, content: Content) -> None:
    with open(path, "xb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())


# Moving a flushed draft into place: the only functions that give a result its name


def _take_free_place(draft: Path, path: Path) -> None:
    """Give a file its name with a link, which fails if the name is taken, where a rename would replace."""
    try:
        os.link(draft, path)
    except FileExistsError:
        check_new(path)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_new(path)
        os.rename(draft, path)


def _swap(draft: Path, target: Path, what: str, is_ours: Recognise) -> None:
    """Put a folder in place of a missing, empty or older one, which comes back if that fails."""
    if not target.exists():
        os.rename(draft, target)
        return

    def check(folder: Path) -> None:  # once more: time has passed since the first check
        if os.listdir(folder) and not is_ours(folder):
            raise OutputError(
                f"files that are no {what} have appeared in {_name(target)} meanwhile. Choose another folder."
            )

    check(target)
    replace(draft, target, check)
    flush(target.parent)


# Locks


def take_lock(
    path: Path,
    what: str,
    cure: str | None = None,
    *,
    busy: str = "",
    on_wait: Callable[[], None] | None = None,
) -> FileLock:
    """Return a lock that other processes cannot take until it is released or this process ends.

    `path` is the lock's file, whose folder is made; `what` and `cure` are as in `explained`. Where another
    process holds the lock, `on_wait` is called before waiting; without it, the message `busy` is raised.
    """
    with explained(path.parent, what, cure):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if on_wait is None:
                raise OutputError(busy) from error
            on_wait()
            lock.acquire()
    return lock


def drop_lock(lock: FileLock) -> None:
    """Release a lock and remove its file."""
    path = Path(lock.lock_file)
    if os.name == "nt":  # Windows cannot remove a file that is open
        lock.release()
    with suppress(OSError):  # elsewhere it is removed while held, so that nobody else's lock is removed
        path.unlink()
    lock.release()
