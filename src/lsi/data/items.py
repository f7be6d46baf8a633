"""Raw items (images, texts, recordings) that are read when they are needed, never all at once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsi.system.door import read_bytes

KINDS = ("image", "text", "audio")
"""What an item can be."""

Payload = Any
"""An item as stored: a file's bytes or path, pixels `(H, W)` or `(H, W, 3)`, or text. None: missing."""


class Items(ABC):
    """A sequence of raw items of one kind.

    The contract: ``list(items.iterate(p))[k]`` is the payload of item ``p[k]``, for any ascending
    positions p, and reading holds no more than one block of the source in memory.

    Attributes:
        kind: One of `KINDS`.
    """

    kind: str
    _digest: str | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`."""

    @abstractmethod
    def describe(self, position: int) -> str:
        """Return what messages call an item: a file name, or a row."""

    def take(self, positions: Sequence[int] | np.ndarray) -> list[Payload]:
        """Return the payloads at any positions, in the order of `positions`."""
        wanted, where = np.unique(np.asarray(positions, dtype=np.int64), return_inverse=True)
        found = list(self.iterate(wanted))
        return [found[k] for k in where]

    def fingerprint(self) -> str:
        """Return a digest of kind and content, whatever the items are stored in; all items are read once."""
        if self._digest is None:
            self._digest = self._content()
        return self._digest

    def _content(self) -> str:
        digest = hashlib.blake2b(f"items {self.kind} {len(self)}".encode(), digest_size=20)
        for payload in self.iterate(np.arange(len(self))):
            content = payload_bytes(payload)
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()

    def select(self, positions: np.ndarray) -> Items:
        """Return the items at `positions`."""
        return SelectedItems(self, positions)


class ArrayItems(Items):
    """Items in one sequence of payloads, such as a memory-mapped array of pixels `(N, H, W, 3)`.

    `what` is what messages call an item.
    """

    def __init__(self, kind: str, values: Sequence[Payload] | np.ndarray, what: str = "sample") -> None:
        self.kind = kind
        self._values = values
        self._what = what

    def __len__(self) -> int:
        return len(self._values)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`."""
        for position in positions:
            yield self._values[int(position)]

    def describe(self, position: int) -> str:
        """Return for example ``sample 7``."""
        return f"{self._what} {position}"


class FileItems(Items):
    """Items that are files; `names` are relative to the folder `root`."""

    def __init__(self, kind: str, root: Path, names: Sequence[str]) -> None:
        self.kind = kind
        self._root = root
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the paths at ascending `positions`."""
        for position in positions:
            yield self._root / self._names[int(position)]

    def describe(self, position: int) -> str:
        """Return the file's name."""
        return self._names[position]


class SelectedItems(Items):
    """The items at `positions` of another sequence, in that order."""

    def __init__(self, base: Items, positions: np.ndarray) -> None:
        self.kind = base.kind
        self._base = base
        self._positions = np.asarray(positions, dtype=np.int64)
        self._ascending = bool((np.diff(self._positions) > 0).all())

    def __len__(self) -> int:
        return len(self._positions)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`."""
        wanted = self._positions[np.asarray(positions, dtype=np.int64)]
        if self._ascending:
            yield from self._base.iterate(wanted)
            return
        for position in wanted:
            yield from self._base.iterate(np.array([position]))

    def describe(self, position: int) -> str:
        """Return what the base calls the item."""
        return self._base.describe(int(self._positions[position]))


class JoinedItems(Items):
    """Two sequences of the same kind, one after the other."""

    def __init__(self, first: Items, second: Items) -> None:
        self.kind = first.kind
        self._first = first
        self._second = second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`."""
        positions = np.asarray(positions, dtype=np.int64)
        border = len(self._first)
        yield from self._first.iterate(positions[positions < border])
        yield from self._second.iterate(positions[positions >= border] - border)

    def describe(self, position: int) -> str:
        """Return what the part that holds the item calls it."""
        border = len(self._first)
        if position < border:
            return self._first.describe(position)
        return self._second.describe(position - border)


def payload_bytes(payload: Payload) -> bytes:
    """Return the content of a payload, equal for equal payloads; a file that cannot be read is empty."""
    if payload is None:
        return b""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    if isinstance(payload, Path):
        try:
            return read_file(payload)
        except (OSError, ValueError):  # it is named when it is decoded
            return b""
    array = np.ascontiguousarray(payload)
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()


def read_file(path: Path) -> bytes:
    """Return the content of a plain file; a table may name a device or a pipe, which would never end."""
    return read_bytes(path, "item")
