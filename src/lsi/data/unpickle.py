"""Foreign pickles (CIFAR's archives, CIFAR-N's files) read without running any code of theirs.

A pickle may name any callable of the machine. Here it may name only the few that rebuild a numpy
array; anything else ends the reading.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np

from lsi.errors import InputError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # Python writes bytes in old protocols as text plus this call; other codecs could unpack bombs.
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591", "utf8", "ascii"):
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode(encoding)


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array that is no plain numpy array")
    return np.empty(0, dtype=np.int8)


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError("a numpy scalar that holds objects")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
} | {
    (f"{package}.multiarray", name): function
    for package in ("numpy.core", "numpy._core")
    for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a stored tensor")


def load_arrays(file: BinaryIO, what: str) -> Any:
    """Read a pickle of plain values and numpy arrays.

    Args:
        file: Open for reading in binary.
        what: How messages call it.

    Returns:
        What it holds; text of Python 2 comes as bytes.

    Raises:
        InputError: If it is damaged, or names anything but numpy arrays.
    """
    try:
        return _ArrayUnpickler(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{what} was not read: this pickle asks for {error}, which plain data never need and which "
            "could run code. Get the file from its publisher again."
        ) from error
    except (EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError, MemoryError) as error:
        raise InputError(f"{what} is damaged ({error}). Get the file from its publisher again.") from error
