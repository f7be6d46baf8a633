"""Raw items → features: decode, prepare and encode in batches, through the cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.data.decode import BrokenItem, decode
from lsi.data.items import Items, Payload
from lsi.errors import InputError
from lsi.features.cache import Entry, FeatureCache
from lsi.features.encoders.base import Batches, Encoder
from lsi.features.growing import Growing
from lsi.progress import Progress

_KEEP_EVERY = 0.5
_IN_MEMORY = 1 << 30
_KEPT = "what was encoded so far is kept. Start the same again to go on from there."


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of raw items.

    Attributes:
        features: ``(N, D)`` float32, memory-mapped where they are large; NaN in the rows of broken items.
        broken: Reason by position of the items that could not be decoded.
        record: How they were made, as JSON values: encoder, key, seconds, seconds inside the encoder, rows
            that were already there.
    """

    features: np.ndarray
    broken: dict[int, str]
    record: dict[str, Any]


@dataclass(frozen=True)
class _Chunk:
    """Items that are prepared together."""

    first: int
    size: int
    kept: list[int]
    batches: Batches
    broken: dict[int, str]


def encode(
    items: Items,
    encoder: Encoder,
    cache: FeatureCache,
    *,
    skip_broken: bool = False,
    name: str = "",
    progress: Progress | None = None,
    on_wait: Callable[[], None] | None = None,
) -> FeatureSet:
    """Return the features of all items, from the cache where they are there.

    The key is a digest of the items' content and of everything that determines the encoder. An
    interrupted run goes on where it ended.

    Args:
        items: Raw items.
        encoder: The encoder.
        cache: Where features are kept.
        skip_broken: Whether items that cannot be decoded are left out instead of ending the run.
        name: The data's name, for `lsi cache ls`.
        progress: Called as ``progress("encode", done, total)``.
        on_wait: Called once where another process is encoding the same.

    Returns:
        The features.

    Raises:
        InputError: If an item is broken and `skip_broken` is not set, or the features are not finite.
        OutputError: If the cache cannot be written.
    """
    if not len(items):
        raise InputError("there are no items to encode.")
    described = encoder.key()
    key = _key(items.fingerprint(), described)
    with cache.open(key, on_wait) as entry:
        found, began, inside, there = entry.read(), time.perf_counter(), 0.0, len(items)
        if found is None:
            manifest = {"encoder": encoder.name, "data": name, "key": described}
            inside, there = _fill(entry, items, encoder, skip_broken, manifest, progress)
            found = entry.read()
        if found is None:
            raise InputError(f"the cache entry {key[:12]} changed while it was written. Run again.")
    features, stored = found
    broken = {int(position): reason for position, reason in stored["broken"].items()}
    if broken and not skip_broken:
        raise InputError(_refusal(items, broken))
    record = {
        "encoder": encoder.name,
        "settings": described,
        "key": key,
        "rows_already_there": there,
        "seconds": time.perf_counter() - began,
        "seconds_in_encoder": inside,
    }
    small = features.nbytes <= _IN_MEMORY
    return FeatureSet(np.array(features) if small else features, broken, record)


def _key(data: str, encoder: dict[str, Any]) -> str:
    text = json.dumps({"data": data, "encoder": encoder, "format": 1}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _fill(
    entry: Entry,
    items: Items,
    encoder: Encoder,
    skip_broken: bool,
    manifest: dict[str, Any],
    progress: Progress | None,
) -> tuple[float, int]:
    """Encode what is missing; return the seconds inside the encoder, and the rows already there."""
    growing = entry.resume(len(items))
    growing.info = {name: manifest[name] for name in ("encoder", "data")}
    there, inside, kept_at = growing.rows, 0.0, time.perf_counter()
    try:
        if growing.broken and not skip_broken:
            raise InputError(_refusal(items, growing.broken))
        for chunk in _prepared(items, encoder, growing.rows):
            if chunk.broken and not skip_broken:
                raise InputError(_refusal(items, chunk.broken))
            began = time.perf_counter()
            rows = [(order, encoder.forward(inputs).numpy()) for order, inputs in chunk.batches]
            inside += time.perf_counter() - began
            _append(growing, chunk, rows, encoder)
            if time.perf_counter() - kept_at > _KEEP_EVERY:
                growing.keep()
                kept_at = time.perf_counter()
            if progress is not None:
                progress("encode", growing.rows, len(items))
        growing.finish(manifest)
    except BaseException as error:
        # What is written so far serves the next run, whatever ended this one.
        if growing.dim:
            growing.keep()
        if isinstance(error, KeyboardInterrupt) and not error.args:
            raise KeyboardInterrupt(_KEPT) from error
        raise
    finally:
        growing.close()
    return inside, there


def _append(
    growing: Growing, chunk: _Chunk, rows: list[tuple[list[int], np.ndarray]], encoder: Encoder
) -> None:
    dim = rows[0][1].shape[1] if rows else growing.dim
    if not dim:
        reason = next(iter(chunk.broken.values()))
        raise InputError(f"none of the first {chunk.size:,} items can be read; the first: {reason}.")
    if growing.dim not in (0, dim):
        raise InputError(f"{encoder.name} gives features of different lengths: {growing.dim} and {dim}.")
    block = np.full((chunk.size, dim), np.nan, dtype=np.float32)
    for order, values in rows:
        if not np.isfinite(values).all():
            raise InputError(f"{encoder.name} gives features that are not finite. Use --precision float32.")
        block[[chunk.kept[k] for k in order]] = values
    growing.append(block, chunk.broken)


def _prepared(items: Items, encoder: Encoder, start: int) -> Iterator[_Chunk]:
    """Yield chunks in order; the next ones are decoded and prepared in threads meanwhile."""
    workers = max(1, min(8, (os.cpu_count() or 2) - 1))
    stream = items.iterate(np.arange(start, len(items)))
    with ThreadPoolExecutor(workers, thread_name_prefix="lsi-decode") as pool:
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for first in range(start, len(items), encoder.chunk):
                size = min(encoder.chunk, len(items) - first)
                payloads = [next(stream) for _ in range(size)]
                waiting.append(pool.submit(_prepare, items.kind, payloads, encoder, first))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _prepare(kind: str, payloads: list[Payload], encoder: Encoder, first: int) -> _Chunk:
    kept, decoded, broken = [], [], {}
    for k, payload in enumerate(payloads):
        try:
            decoded.append(decode(kind, payload))
            kept.append(k)
        except BrokenItem as error:
            broken[first + k] = str(error)
    return _Chunk(first, len(payloads), kept, encoder.prepare(decoded) if decoded else [], broken)


def _refusal(items: Items, broken: dict[int, str]) -> str:
    named = [f"{items.describe(position)}: {reason}" for position, reason in sorted(broken.items())[:3]]
    more = f", and {len(broken) - 3} more" if len(broken) > 3 else ""
    return (
        f"{'; '.join(named)}{more}. Repair or remove such items, or leave them out with --skip-broken. What "
        "was encoded so far is kept."
    )
