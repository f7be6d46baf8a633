"""Packing objects for other processes: large arrays travel apart, are sent once and not copied."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 16  # bytes from which arrays travel apart
_ALIGNED = 64  # bytes: matrix products may round differently at another alignment


@dataclass(frozen=True)
class Part:
    """The memory of one large array, or of several arrays that share it.

    Attributes:
        key: Address, extent and version of the memory: equal if it can be the memory that was sent before.
        holder: Keeps the memory alive, so that its address is not used again.
        read: Returns the bytes.
    """

    key: tuple[Any, ...]
    holder: Any
    read: Callable[[], np.ndarray]


def pack(obj: Any) -> tuple[bytes, list[Part]]:
    """Return an object as bytes, and the large arrays to which the bytes refer by number."""
    pickler_class = _pickler()
    file, parts = io.BytesIO(), _Parts()
    pickler_class(file, parts).dump(obj)
    return file.getvalue(), parts.found


def unpack(payload: bytes, parts: Sequence[np.ndarray]) -> Any:
    """Return the object that was packed; its large arrays are views of `parts`."""
    return _Unpickler(io.BytesIO(payload), parts).load()


class _Parts:
    """Collects parts, each of them once."""

    def __init__(self) -> None:
        self.found: list[Part] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def place(self, part: Part) -> int:
        if part.key not in self._places:
            self._places[part.key] = len(self.found)
            self.found.append(part)
        return self._places[part.key]


@dataclass(frozen=True)
class _Reference:
    """Stands for a part in the bytes of an object."""

    place: int


def _pickler() -> Any:
    from ray.cloudpickle import CloudPickler

    class Pickler(CloudPickler):
        """Replaces large arrays by references."""

        def __init__(self, file: io.BytesIO, parts: _Parts) -> None:
            super().__init__(file, protocol=5)
            self._parts = parts

        def persistent_id(self, obj: Any) -> int | None:
            return obj.place if isinstance(obj, _Reference) else None

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Tensor and _goes_apart(obj):
                return _reduce_tensor(obj, self._parts)
            if type(obj) in (np.ndarray, np.memmap) and _is_plain(obj):
                return _reduce_array(obj, self._parts)
            return super().reducer_override(obj)

    return Pickler


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: Sequence[np.ndarray]) -> None:
        super().__init__(file)
        self._numbered = parts

    def persistent_load(self, pid: Any) -> np.ndarray:
        return self._numbered[pid]


def _goes_apart(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.requires_grad and not tensor.is_inference()
    return plain and (tensor.nbytes >= LARGE or tensor.device.type != "cpu")


def _is_plain(array: np.ndarray) -> bool:
    return array.nbytes >= LARGE and array.flags.c_contiguous and not array.dtype.hasobject


def _reduce_tensor(tensor: Tensor, parts: _Parts) -> Any:
    """Return how to rebuild a tensor with its strides and alignment, since both may affect rounding."""
    item, storage = tensor.element_size(), tensor.untyped_storage()
    low = tensor.storage_offset() * item
    extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    start, stop = low - low % _ALIGNED, low + extent * item
    if storage.nbytes() <= 2 * (stop - start):  # send all of it, for other tensors that share it
        start, stop = 0, storage.nbytes()
    key = (str(tensor.device), storage.data_ptr(), start, stop, tensor._version)

    def read() -> np.ndarray:
        flat = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
        return np.asarray(flat[start:stop].cpu().numpy())

    reference = _Reference(parts.place(Part(key, storage, read)))
    where = (tuple(tensor.shape), tensor.stride(), (low - start) // item)
    # In a worker, the device that it was given is the first one.
    return _tensor, (reference, tensor.dtype, *where, tensor.device.type)


def _tensor(
    memory: np.ndarray,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
    device: str,
) -> Tensor:
    with warnings.catch_warnings():
        # Shared memory is read-only, which torch warns of: writing to such a tensor ends the process.
        warnings.simplefilter("ignore", UserWarning)
        whole = torch.from_numpy(memory)
    item = dtype.itemsize
    values = whole[: len(whole) - len(whole) % item].view(dtype).to(device)
    return values.as_strided(shape, stride, offset)


def _reduce_array(array: np.ndarray, parts: _Parts) -> Any:
    plain = array.view(np.ndarray)
    # Arrays have no version: only memory that nobody can write to is known to stay the same.
    fixed = isinstance(array, np.memmap) and not array.flags.writeable
    key = ("numpy", plain.ctypes.data, plain.nbytes, None if fixed else object())
    reference = _Reference(parts.place(Part(key, plain, lambda: plain.reshape(-1).view(np.uint8))))
    return _array, (reference, plain.dtype, plain.shape)


def _array(memory: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return memory.view(dtype).reshape(shape)
