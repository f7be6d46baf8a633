"""Raw items → features: decode, prepare and encode in batches, through the cache."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.data.items import Items
from lsi.errors import InputError
from lsi.features.cache import Entry, FeatureCache
from lsi.features.chunks import ChunkEncoder, Encoded
from lsi.features.encoders.base import Encoder
from lsi.features.growing import Growing
from lsi.system.progress import Progress

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


def encode(
    items: Items,
    encoder: Encoder,
    cache: FeatureCache,
    *,
    skip_broken: bool = False,
    name: str = "",
    cluster: str | None = None,
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
        cluster: Where items are decoded and encoded: ``"local"``, ``"auto"`` or the address of a Ray
            cluster, whose workers are sent the encoder and the items' content; None: here.
        progress: Called as ``progress("encode", done, total)``.
        on_wait: Called once where another process is encoding the same.

    Returns:
        The features.

    Raises:
        InputError: If an item is broken and `skip_broken` is not set, the features are not finite, or the
            cluster cannot be used.
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
            inside, there = _fill(entry, items, encoder, skip_broken, manifest, cluster, progress)
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
    cluster: str | None,
    progress: Progress | None,
) -> tuple[float, int]:
    """Encode what is missing; return the seconds inside the encoder, and the rows already there."""
    growing = entry.resume(len(items))
    growing.info = {name: manifest[name] for name in ("encoder", "data")}
    there, inside, kept_at = growing.rows, 0.0, time.perf_counter()
    try:
        if growing.broken and not skip_broken:
            raise InputError(_refusal(items, growing.broken))
        with _chunks(items, encoder, growing.rows, cluster) as chunks:
            for chunk in chunks:
                if chunk.broken and not skip_broken:
                    raise InputError(_refusal(items, chunk.broken))
                inside += chunk.seconds
                _append(growing, chunk, encoder)
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


def _append(growing: Growing, found: Encoded, encoder: Encoder) -> None:
    dim = found.rows.shape[1] or growing.dim
    if not dim:
        reason = next(iter(found.broken.values()))
        raise InputError(f"none of the first {len(found.rows):,} items can be read; the first: {reason}.")
    if growing.dim not in (0, dim):
        raise InputError(f"{encoder.name} gives features of different lengths: {growing.dim} and {dim}.")
    rows = found.rows
    if not rows.shape[1]:  # all of them are broken
        rows = np.full((len(rows), dim), np.nan, dtype=np.float32)
    growing.append(rows, found.broken)


@contextmanager
def _chunks(items: Items, encoder: Encoder, start: int, cluster: str | None) -> Iterator[Iterator[Encoded]]:
    """Yield the chunks from `start` on, in order, and let go of who makes them."""
    chunks = ChunkEncoder(items.kind, encoder)
    if cluster is None:
        with closing(chunks.here(items, start)) as found:
            yield found
        return
    from lsi.execution.ray_cluster import open_cluster

    with (
        open_cluster(cluster, encoder.device) as executor,
        closing(chunks.elsewhere(items, start, executor)) as found,
    ):
        yield found


def _refusal(items: Items, broken: dict[int, str]) -> str:
    named = [f"{items.describe(position)}: {reason}" for position, reason in sorted(broken.items())[:3]]
    more = f", and {len(broken) - 3} more" if len(broken) > 3 else ""
    return (
        f"{'; '.join(named)}{more}. Repair or remove such items, or leave them out with --skip-broken. What "
        "was encoded so far is kept."
    )
