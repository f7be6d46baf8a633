"""Arrays from untrusted ``.npy``, ``.npz`` and ``.safetensors`` files: plain values, or an `InputError`."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lsi.errors import InputError, LsiError
from lsi.system.door import charge, open_regular, require_regular
from lsi.system.versions import install_hint

PARSE_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, RuntimeError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What numpy and zipfile raise on damaged files, as found by fuzzing. Among them is NotImplementedError, a
RuntimeError: an unknown compression or encryption."""
_LAST_CHARACTER = 0x10FFFF
_PLAIN = "biufcSUmM"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SIZES = ("file_size", "compress_size")
_ON_DISK = "Write X as a .npy file, which is memory-mapped, or leave out samples. "


def load_npy(path: Path, *, mapped: bool = True) -> np.ndarray:
    """Read a ``.npy`` file."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            _check_header(file, size, f"{path} cannot be read as a .npy file: it", mapped=mapped)
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except InputError:
        raise
    except PARSE_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as a .npy file of plain numbers or text ({error}). Write it again with "
            "numpy.save."
        ) from error
    return _checked(array, str(path))


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in a ``.npz`` file."""
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return arrays of a ``.npz`` file by name."""
    with _opened(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        wanted = {name: entries.get(f"{name}.npy") or entries[name] for name in names}
        whole, packed = (sum(getattr(entry, size) for entry in wanted.values()) for size in _SIZES)
        charge(whole, str(path), cure=_ON_DISK, stored=packed)
        return {name: _read_member(path, archive, name, entry) for name, entry in wanted.items()}


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a ``.safetensors`` file, which is memory-mapped; errors while it is open are taken for its own."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f"reading .safetensors needs safetensors. Install it: {install_hint('encoders')}."
        ) from error
    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except LsiError:
        raise
    except (SafetensorError, *PARSE_ERRORS) as error:
        raise InputError(f"{path} is not a readable .safetensors file ({error}). Write it again.") from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Give the archive, and say which file it is that cannot be read."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except InputError:
        raise
    except PARSE_ERRORS as error:
        raise InputError(
            f"{path} is not a readable .npz file ({error}). Write it again with numpy.savez(path, X=X, y=y)."
        ) from error


def _read_member(path: Path, archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> np.ndarray:
    what = f"{path}: {name!r}"
    with archive.open(entry) as member:
        _check_header(member, entry.file_size, what)
    with archive.open(entry) as member:
        return _checked(np.lib.format.read_array(member, allow_pickle=False), what)


def _check_header(file: Any, size: int, what: str, *, mapped: bool = False) -> None:
    """Refuse an array by what its header says: objects, fields, values of no size, more than there is."""
    if (magic := file.read(6)) != b"\x93NUMPY":
        raise InputError(f"{what} holds no array ({magic!r}…). Write it with numpy.save or numpy.savez.")
    version = tuple(file.read(2))
    if version not in _HEADERS:
        raise InputError(f"{what} holds named fields, or is of a format that is not known. {_CURE}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise InputError(
            f"{what} holds Python objects (dtype object), which are not read because loading them could run "
            "code. Save plain numbers or strings: numpy.savez(path, X=X.astype('float32'), y=y.astype(str))."
        )
    if dtype.kind not in _PLAIN or not dtype.itemsize:
        raise InputError(
            f"{what} holds values of the type {str(dtype)[:80]!r}, not plain numbers or text. {_CURE}"
        )
    if 0 in shape[1:]:
        raise InputError(f"{what} has the shape {shape}: rows without any values. {_CURE}")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size:
        raise InputError(f"{what} is shorter than its shape {shape} states. {_CURE}")
    if not mapped:
        charge(needed, what, cure=_ON_DISK)


_CURE = "Write it again: numpy.savez(path, X=X, y=y)."


def _checked(array: np.ndarray, what: str) -> np.ndarray:
    """Refuse text with invalid code points, of which Python cannot make a str."""
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max() > _LAST_CHARACTER:
            raise InputError(f"{what} holds text that is damaged. Write it again.")
    return array
