"""Arrays from untrusted ``.npy`` and ``.npz`` files: plain numbers and text, or an `InputError`."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from lsi.errors import InputError
from lsi.system.machine import available_memory

PARSE_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, RuntimeError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What numpy and zipfile raise on damaged files, as found by fuzzing. Among them is NotImplementedError, a
RuntimeError: an unknown compression or encryption."""
_LAST_CHARACTER = 0x10FFFF


def load_npy(path: Path, *, mapped: bool = True) -> np.ndarray:
    """Read a ``.npy`` file."""
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except PARSE_ERRORS as error:
        reason = "it may hold Python objects, which could run code" if "pickle" in str(error) else str(error)
        raise InputError(
            f"{path} cannot be read as a .npy file of plain numbers or text ({reason}). Write it again with "
            "numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        with suppress(AttributeError):
            array.close()
        raise InputError(f"{path} is not a .npy file. Write it with numpy.save.")
    return _checked(array, str(path))


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in a ``.npz`` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except PermissionError as error:
        raise InputError(f"{path} may not be read. Change its permissions or copy it.") from error
    except PARSE_ERRORS as error:
        raise InputError(_broken(path, error)) from error


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return arrays of a ``.npz`` file by name."""
    try:
        _check_size(path, names)
        with np.load(path, allow_pickle=False) as archive:
            return {name: _read_member(path, archive, name) for name in names}
    except InputError:
        raise
    except PARSE_ERRORS as error:
        raise InputError(_broken(path, error)) from error


def _check_size(path: Path, names: Sequence[str]) -> None:
    """Refuse arrays that do not fit in memory: a few kilobytes of zip can unpack to gigabytes of zeros."""
    wanted = {*names, *(f"{name}.npy" for name in names)}
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist() if entry.filename in wanted)
    have = available_memory()
    if have is not None and size > have:
        raise InputError(
            f"{path} unpacks to {size / 1e9:,.1f} GB, but {have / 1e9:,.1f} GB of memory are available. "
            "Write X as a .npy file, which is memory-mapped, or leave out samples."
        )


def _read_member(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Return one array; where numpy refuses Python objects, say how to save it instead."""
    try:
        value = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        example = "y=y.astype(str)" if name != "X" else "X=X.astype('float32')"
        raise InputError(
            f"{path}: {name!r} holds Python objects (dtype object), which are not read because loading them "
            f"could run code. Save plain numbers or strings: numpy.savez(path, …, {example})."
        ) from error
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path}: {name!r} is not an array. Write it with numpy.savez(path, X=X, y=y).")
    return _checked(value, f"{path}: {name!r}")


def _checked(array: np.ndarray, what: str) -> np.ndarray:
    """Refuse text with invalid code points, of which Python cannot make a str."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > _LAST_CHARACTER:
            raise InputError(f"{what} holds text that is damaged. Write it again.")
    return array


def _broken(path: Path, error: BaseException) -> str:
    return f"{path} is not a readable .npz file ({error}). Write it again with numpy.savez(path, X=X, y=y)."
