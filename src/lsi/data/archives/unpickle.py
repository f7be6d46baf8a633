"""Pickles from elsewhere (CIFAR's archives, CIFAR-N's files), read without running any code in them.

A pickle may name any callable on the machine. Here it may name only the few that rebuild a numpy array, and
even these are stand-ins, because numpy's own would trust sizes, offsets and field layouts from the file. The
unpickler is the one written in Python, whose memo is a dict: five bytes can make the memo of the C version
fill gigabytes. On CIFAR's batches it is as fast.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO

import numpy as np

from lsi.errors import InputError

_PLAIN_TYPE = re.compile(r"[<>|=]?[biufcSUV?][0-9]{0,4}")
_DEEPEST = 64


class _NotAllowedError(pickle.UnpicklingError):
    """The pickle asks for something that plain data never need."""


class _Type:
    """Stand-in for ``numpy.dtype``: a plain type and its byte order, without fields or objects."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if not _PLAIN_TYPE.fullmatch(self._code):
            raise _NotAllowedError(f"an array of type {self._code[:40]!r}")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        if order not in "<>|=" or any(part is not None for part in state[2:5]):
            raise _NotAllowedError("an array with fields")
        self._code = order + self._code.lstrip("<>|=")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self._code)


class _Array:
    """Stand-in for ``numpy.ndarray``: shape, type, order and bytes, checked against each other."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Type) or not isinstance(content, bytes):
            raise _NotAllowedError("an array that holds objects")
        flat = np.frombuffer(content, dtype=dtype.numpy())
        self.value = flat.reshape(tuple(map(int, shape)), order="F" if fortran else "C").copy()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # In old protocols Python writes bytes as text plus this call. Other codecs could unpack bombs.
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591", "utf8", "ascii"):
        raise _NotAllowedError(f"encoding {encoding!r}")
    return text.encode(encoding)


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    if kind is not _Array or shape != (0,):
        raise _NotAllowedError("an array that is not a plain numpy array")
    return _Array()


def _scalar(dtype: _Type, content: bytes) -> Any:
    if not isinstance(dtype, _Type):
        raise _NotAllowedError("a numpy scalar that holds objects")
    return np.frombuffer(content, dtype=dtype.numpy(), count=1)[0]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
} | {
    (f"{package}.multiarray", name): function
    for package in ("numpy.core", "numpy._core")
    for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
}


class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _NotAllowedError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _NotAllowedError("a stored tensor")

    def get_extension(self, code: int) -> Any:
        raise _NotAllowedError(f"the registered extension {code}")


def load_arrays(file: BinaryIO, what: str) -> Any:
    """Read a pickle of plain values and numpy arrays."""
    try:
        return _finished(_ArrayUnpickler(file, encoding="bytes").load(), {})
    except _NotAllowedError as error:
        raise InputError(
            f"{what} was not read: this pickle asks for {error}, which plain data never need and which "
            "could run code. Get the file from its publisher again."
        ) from error
    except Exception as error:  # the unpickler trusts its input: a damaged file may raise anything
        reason = str(error) or type(error).__name__
        raise InputError(f"{what} is damaged ({reason}). Get the file from its publisher again.") from error


def _finished(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Return a value with arrays in place of their stand-ins; shared values are visited only once."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, _Type | type) or callable(value):
        raise ValueError("a type where data belong")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return value.value
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _finished(entry, done, depth + 1) for key, entry in value.items()}
        else:
            done[id(value)] = [_finished(entry, done, depth + 1) for entry in value]
    return done[id(value)]
