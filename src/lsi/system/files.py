"""Writing a folder as a whole or not at all, and refusing early where that cannot work."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lsi.errors import OutputError

PathLike = str | os.PathLike[str]
Recognise = Callable[[Path], bool]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_target(path: PathLike, overwrite: bool, is_ours: Recognise, needed_bytes: int) -> Path:
    """Refuse a folder that cannot or must not be written."""
    with explained(path):
        target = Path(os.path.realpath(path))
        _check_place(target, path)
        _check_content(target, path, overwrite, is_ours)
        parent = _nearest_existing(target.parent)
        _check_writable(parent, path)
        free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise OutputError(
            f"Scores need {needed_bytes / 1e6:.1f} MB but the disk of {_name(path)} has {free / 1e6:.1f} MB "
            "left. Free some space, or choose a folder on another disk."
        )
    return target


def replace_folder(target: Path, files: Mapping[str, bytes], is_ours: Recognise) -> None:
    """Put a folder with these files in place of a missing, empty or older one, as a whole or not at all."""
    staging = _sibling(target, "new")
    try:
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            for name, content in files.items():
                _write_flushed(staging / name, content)
            flush_folder(staging)
            _move_into_place(staging, target, is_ours, files)
            flush_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already where all went well


def is_scores_folder(folder: Path, names: tuple[str, ...], manifest_name: str, format_name: str) -> bool:
    """Return whether a folder holds only these files and its manifest names the format."""
    if not set(os.listdir(folder)) <= set(names):
        return False
    try:
        manifest = json.loads((folder / manifest_name).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == format_name


@contextmanager
def explained(path: PathLike) -> Iterator[None]:
    """Turn the operating system's errors into `OutputError`s that name the cure."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"Scores cannot be written to {_name(path)}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in _FULL:
        return "the disk is full. Free some space, or choose a folder on another disk."
    if error.errno in _READ_ONLY:
        return "it is read-only for this user. Choose another folder, or change its permissions."
    return f"{error.strerror or error}. Choose another folder."


def _name(path: PathLike) -> str:
    return repr(os.fspath(path))


def _check_place(target: Path, path: PathLike) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f"{_name(path)} is a file, but scores are saved as a folder. Choose another name.")
    if os.path.ismount(target) or target == Path(os.path.realpath(os.curdir)):
        raise OutputError(
            f"{_name(path)} is the current folder or the root of a disk, which cannot be replaced as a "
            f"whole. Choose a folder in it, such as {_name(Path(path) / 'scores')}."
        )


def _check_content(target: Path, path: PathLike, overwrite: bool, is_ours: Recognise) -> None:
    if not target.is_dir() or not os.listdir(target):
        return
    if not is_ours(target):
        raise OutputError(
            f"{_name(path)} holds files that are no scores, which are never overwritten. Choose another "
            "folder, or empty it first."
        )
    if not overwrite:
        raise OutputError(
            f"{_name(path)} already holds scores. Choose another folder, or allow replacing them with "
            "overwrite=True (command line: --overwrite)."
        )


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _check_writable(parent: Path, path: PathLike) -> None:
    if not parent.is_dir():
        raise OutputError(
            f"{_name(path)} cannot be created: {_name(parent)} is a file. Choose another folder."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{_name(path)} cannot be created: {_name(parent)} is read-only for this user. Choose another "
            "folder, or change its permissions."
        )


def _sibling(target: Path, purpose: str) -> Path:
    """Return a free hidden name beside the folder, so that renaming stays on one disk."""
    return target.parent / f".lsi-{secrets.token_hex(6)}-{purpose}"


def _write_flushed(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """See a folder's entries onto the disk."""
    if os.name == "nt":  # Windows cannot open folders; its renames are journaled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_into_place(staging: Path, target: Path, is_ours: Recognise, files: Mapping[str, bytes]) -> None:
    if not target.exists():
        os.rename(staging, target)
        return
    if os.listdir(target) and not is_ours(target):  # again: time has passed since the first check
        raise OutputError(
            f"{_name(target)} has got files that are no scores meanwhile. Choose another folder."
        )
    old = _sibling(target, "old")
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except OSError:
        os.rename(old, target)
        raise
    _delete_old(old, target, files)


def _delete_old(old: Path, target: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name in files:
            (old / name).unlink(missing_ok=True)
        old.rmdir()
    except OSError as error:
        raise OutputError(
            f"The scores are saved in {_name(target)}, but what they replaced could not be deleted "
            f"({error.strerror}). Look at {_name(old)}, and delete it."
        ) from error


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def check_new(path: Path) -> None:
    """Refuse a place that is taken or cannot be written; called before any work."""
    if os.path.lexists(path):
        raise OutputError(f"{str(path)!r} is already there and is never overwritten. Choose another name.")
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{str(path)!r} cannot be written: {str(parent)!r} is read-only, or no folder.")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; on success the file gets its name, else it is gone."""
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
    """Give a hidden folder beside `path` to fill; on success it gets its name, else it is gone."""
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
