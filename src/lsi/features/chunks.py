"""Chunks of raw items → rows of features: here, with threads that decode, or on the workers of a cluster."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsi.data.decode import BrokenItem, decode, decoded_bytes
from lsi.data.items import Items, Payload, read_file
from lsi.errors import InputError
from lsi.execution.work import Arrays, Executor, Tick
from lsi.features.encoders.base import Batches, Encoder
from lsi.system.door import LIMITS, charge

_SMALLER = "Encode fewer items at a time with --batch-size, or have the encoder resize them. "
Block = tuple[int, list[Payload]]
"""Items that are encoded together, and the position of the first one."""


@dataclass(frozen=True)
class Encoded:
    """Features of one chunk.

    Attributes:
        rows: `(b, D)` float32, NaN in the rows of broken items; D is 0 where all of them are.
        broken: Why items could not be decoded, by position.
        seconds: Time inside the encoder.
    """

    rows: np.ndarray
    broken: dict[int, str]
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    """The decoded items of a chunk, as inputs of the encoder."""

    size: int
    kept: list[int]
    batches: Batches
    broken: dict[int, str]


class ChunkEncoder:
    """Encodes chunks of items of one kind, each independently of the others."""

    def __init__(self, kind: str, encoder: Encoder) -> None:
        self.kind, self.encoder = kind, encoder

    def prepare(self, block: Block) -> _Prepared:
        """Decode the items of a chunk and turn them into the encoder's inputs.

        Large items are turned into inputs few at a time, so that a chunk of them does not fill the memory;
        inputs of one shape are put together again, so that the batches are the same.
        """
        first, payloads = block
        kept: list[int] = []
        broken: dict[int, str] = {}
        waiting: list[Any] = []
        parts: list[Batches] = []
        size, most = 0, LIMITS["chunk"].bytes()
        for k, payload in enumerate(payloads):
            try:
                item = decode(self.kind, payload)
            except BrokenItem as error:
                broken[first + k] = str(error)
                continue
            waiting.append(item)
            kept.append(k)
            size += decoded_bytes(item)
            if size > most:
                parts.append(self._inputs(waiting, len(kept)))
                waiting, size = [], 0
        if waiting:
            parts.append(self._inputs(waiting, len(kept)))
        batches = parts[0] if len(parts) == 1 else _joined(parts)
        return _Prepared(len(payloads), kept, batches, broken)

    def _inputs(self, items: list[Any], upto: int) -> Batches:
        """Return the encoder's inputs for the last items of the first `upto` ones."""
        found = self.encoder.prepare(items)
        taken = sum(int(value.nbytes) for _, inputs in found for value in _values(inputs))
        charge(taken, f"{self.encoder.name}: the inputs of {len(items):,} items", "item", _SMALLER)
        start = upto - len(items)
        return [([start + place for place in order], inputs) for order, inputs in found]

    def forward(self, chunk: _Prepared) -> Encoded:
        """Return the features of a prepared chunk."""
        began = time.perf_counter()
        parts = [(order, self.features(len(order), inputs)) for order, inputs in chunk.batches]
        seconds = time.perf_counter() - began
        dim = parts[0][1].shape[1] if parts else 0
        rows = np.full((chunk.size, dim), np.nan, dtype=np.float32)
        for order, values in parts:
            if values.shape[1] != dim:
                raise InputError(
                    f"{self.encoder.name} gives features of different lengths: {dim} and {values.shape[1]}."
                )
            rows[[chunk.kept[k] for k in order]] = values
        return Encoded(rows, chunk.broken, seconds)

    def features(self, count: int, inputs: Any) -> np.ndarray:
        """Return the features of a batch of `count` items, `(count, D)`, finite."""
        values = self.encoder.forward(inputs).numpy()
        if values.ndim != 2 or len(values) != count or not values.shape[1]:
            raise InputError(
                f"{self.encoder.name} gives {values.shape} for {count} items, not a row of features for each."
            )
        if not np.isfinite(values).all():
            cure = "Its weights are damaged, or it wants other inputs. Name another one."
            if getattr(self.encoder, "precision", "float32") != "float32":
                cure = "Use --precision float32."
            raise InputError(f"{self.encoder.name} gives features that are not finite. {cure}")
        return values

    def encode_task(self, block: Block, tick: Tick) -> Arrays:
        """Encode a chunk on a worker; return what `forward` does, as arrays."""
        found = self.forward(self.prepare(block))
        return {
            "rows": found.rows,
            "broken": np.array(json.dumps(found.broken)),
            "seconds": np.array(found.seconds),
        }

    def here(self, items: Items, start: int) -> Generator[Encoded, None, None]:
        """Yield the encoded chunks from `start` on, in order, while threads decode the next ones."""
        workers = max(1, min(8, (os.cpu_count() or 2) - 1))
        with ThreadPoolExecutor(workers, thread_name_prefix="lsi-decode") as pool:
            waiting: deque[Future[_Prepared]] = deque()
            try:
                for block in Blocks(items, start, self.encoder.chunk):
                    waiting.append(pool.submit(self.prepare, block))
                    if len(waiting) > workers + 1:
                        yield self.forward(waiting.popleft().result())
                while waiting:
                    yield self.forward(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    def elsewhere(self, items: Items, start: int, executor: Executor) -> Generator[Encoded, None, None]:
        """Yield the encoded chunks from `start` on, in order, decoded and encoded by an executor.

        Items are read here, and files are sent as their content, since another machine may not have them.
        """
        blocks = Blocks(items, start, self.encoder.chunk, by_content=True)
        early: dict[int, Arrays] = {}
        following = 0
        for place, arrays in executor.run(self, "encode_task", blocks, lambda units: None):
            early[place] = arrays
            while following in early:
                yield _encoded(early.pop(following))
                following += 1


def _values(inputs: Any) -> list[Any]:
    return [
        value
        for value in (inputs.values() if isinstance(inputs, dict) else [inputs])
        if hasattr(value, "nbytes")
    ]


def _joined(parts: list[Batches]) -> Batches:
    """Return the batches of a chunk that was prepared in parts; those of one shape become one."""
    alike: dict[Any, Batches] = {}
    for order, inputs in (batch for part in parts for batch in part):
        named = inputs if isinstance(inputs, dict) else {"": inputs}
        shapes = tuple(
            (name, tuple(value.shape[1:]), str(value.dtype)) for name, value in sorted(named.items())
        )
        alike.setdefault(shapes, []).append((order, inputs))
    return [
        ([k for order, _ in same for k in order], _stacked([inputs for _, inputs in same]))
        for same in alike.values()
    ]


def _stacked(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: _stacked([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(parts)


class Blocks:
    """The chunks of `size` items from `start` on, each read when it is asked for.

    With `by_content`, files are given as their content instead of their path.
    """

    def __init__(self, items: Items, start: int, size: int, *, by_content: bool = False) -> None:
        self._items, self._start, self._size, self._by_content = items, start, size, by_content

    def __len__(self) -> int:
        return -(-(len(self._items) - self._start) // self._size)

    def __iter__(self) -> Iterator[Block]:
        total = len(self._items)
        stream = self._items.iterate(np.arange(self._start, total))
        for first in range(self._start, total, self._size):
            payloads = [next(stream) for _ in range(min(self._size, total - first))]
            yield first, [_content(payload) for payload in payloads] if self._by_content else payloads


def _content(payload: Payload) -> Payload:
    if not isinstance(payload, Path):
        return payload
    try:
        return read_file(payload)
    except (OSError, ValueError):
        return payload  # whoever decodes it reports why it cannot be read


def _encoded(arrays: Arrays) -> Encoded:
    broken = {int(position): reason for position, reason in json.loads(str(arrays["broken"])).items()}
    return Encoded(arrays["rows"], broken, float(arrays["seconds"]))
