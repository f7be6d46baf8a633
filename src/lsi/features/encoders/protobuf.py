"""Where an ONNX file takes tensors from: the few fields of protobuf's wire format that say so.

Source: https://protobuf.dev/programming-guides/encoding and the field numbers of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_DEEPEST = 64
"""Messages inside each other: onnxruntime itself stops at 100."""

# The fields through which a tensor can be reached, by message: field number → message.
_TENSORS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}  # fmt: skip
_KEY, _VALUE = 1, 2
"""Fields of an entry: external data are described by keys such as ``location`` and ``offset``."""


class DamagedError(ValueError):
    """The bytes are no message."""


def external_files(content: bytes) -> Iterator[str]:
    """Yield the location of each tensor that an ONNX model keeps in another file."""
    yield from _walk(memoryview(content), "model", 0)


def _walk(content: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise DamagedError("its parts are nested too deeply")
    if kind == "entry":
        entry = {number: bytes(value) for number, value in _fields(content)}
        if entry.get(_KEY) == b"location":
            yield entry.get(_VALUE, b"").decode("utf-8", "replace")
        return
    for number, value in _fields(content):
        if inner := _TENSORS[kind].get(number):
            yield from _walk(value, inner, depth + 1)


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field that holds bytes."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        if tag >> 32:
            raise DamagedError("a field's number is too large")
        wire = tag & 7
        if wire == _VARINT:
            _, place = _varint(content, place)
            continue
        length = {_EIGHT: 8, _FOUR: 4}.get(wire, 0)
        if wire == _BYTES:
            length, place = _varint(content, place)
        elif not length:
            raise DamagedError(f"wire type {wire}")
        if length > len(content) - place:
            raise DamagedError("it is shorter than it states")
        if wire == _BYTES:
            yield tag >> 3, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise DamagedError("it is shorter than it states")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise DamagedError("a number of more than ten bytes")
