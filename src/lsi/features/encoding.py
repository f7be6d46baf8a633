"""Raw items → features: decoded and encoded in batches, through the cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lsi.data.items import Items
from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.features.cache import Entry, FeatureCache
from lsi.features.chunks import Blocks, ChunkEncoder, Encoded
from lsi.features.encoders import build_encoder
from lsi.features.encoders.base import Encoder
from lsi.features.growing import Growing
from lsi.system.machine import memory_explained
from lsi.system.progress import Progress

_IN_MEMORY = 1 << 30
_ROUNDING = 1e-2
"""By which share of the largest value features may differ: half precision keeps three digits, and sums over
another number of threads or on another device lose one."""
_KEPT = "what was encoded so far is kept. Start the same run again to go on from there."


@dataclass(frozen=True, eq=False)
class EncodedSamples:
    """Samples with features, and how they came by them.

    Attributes:
        samples: Those that could be read, with features; `images` and `items` stay for pictures and reports.
        kept: ``(n,)`` positions that they have among the samples that were given.
        left_out: Name and reason of every sample that could not be read.
        record: How the features were made, as JSON values: encoder, settings, key, seconds; empty where the
            samples held features already.
    """

    samples: Samples
    kept: np.ndarray
    left_out: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


@memory_explained()
def encode(
    samples: Samples,
    encoder: str | os.PathLike[str] | Encoder | None = None,
    *,
    pooling: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    skip_broken: bool = False,
    cluster: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> EncodedSamples:
    """Turn images, texts or recordings into features with a frozen encoder.

    Features are kept in a cache, under a key made of the items' content and of everything that determines
    the encoder. The same call, made again after any end of the process, goes on from there.

    Args:
        samples: What `load_samples` returned. Samples that hold features stay as they are.
        encoder: A folder that `save_pretrained` or timm wrote, an ONNX file, weights of a network that timm
            knows (``"resnet18:weights.pt"``), your own function (``"module:function"``), a name on the
            Hugging Face hub, ``"raw"`` for the pixels themselves, or an `Encoder`. None:
            ``facebook/dinov2-small`` for images, ``sentence-transformers/all-MiniLM-L6-v2`` for texts,
            ``facebook/wav2vec2-base-960h`` for recordings.
        pooling: ``auto``, ``mean``, ``cls``, ``last``, ``max`` or ``pooler``.
        precision: ``auto`` (float16 on a GPU, else float32), ``float32``, ``bfloat16`` or ``float16``.
        batch_size: Samples a forward pass; None: 32, and 8 for recordings.
        device: Torch device; None: a GPU where there is one, else the processor.
        cache_dir: The library's cache folder; None: ``$LSI_CACHE``, else ``~/.cache/lsi``.
        skip_broken: Whether to leave out samples that cannot be read instead of raising an error.
        cluster: Address of a Ray cluster, or ``"local"`` for the processors of this machine; None: this
            process.
        progress: Called as ``progress("encode", done, total)``.
        say: Called with a sentence when the encoding starts, or waits for another process.

    Returns:
        The samples with features `(n, D)`, float32, and what was left out.

    Raises:
        InputError: If an item cannot be read and `skip_broken` is not set, an encoder is named for samples
            that hold features, or encoder or cluster cannot be used.
        OutputError: If the cache cannot be written.
        OutOfMemoryError: If memory ran out.
    """
    if samples.features is not None:
        if encoder is not None:
            raise InputError(f"{samples.name} holds features: there is nothing to encode. Drop --encoder.")
        return EncodedSamples(samples, np.arange(len(samples)))
    items, tell = samples.items, say or (lambda text: None)
    if items is None:
        raise InputError(f"{samples.name} holds neither features nor items. Load it with lsi.load_samples().")
    if not isinstance(encoder, Encoder):
        encoder = build_encoder(
            items.kind,
            None if encoder is None else os.fspath(encoder),
            pooling=pooling,
            precision=precision,
            device=device,
            batch_size=batch_size,
        )
    tell(f"encoding {len(items):,} {items.kind} items with {encoder.name}")
    made = encode_items(
        items,
        encoder,
        FeatureCache(cache_dir),
        skip_broken=skip_broken,
        name=samples.name,
        cluster=cluster,
        progress=progress,
        on_wait=lambda: tell("another process is encoding the same items; waiting for it"),
    )
    if not made.broken:
        whole = replace(samples, features=made.features)
        return EncodedSamples(whole, np.arange(len(samples)), (), made.record)
    kept = np.setdiff1d(np.arange(len(samples)), list(made.broken))
    left_out = tuple(f"{items.describe(position)}: {reason}" for position, reason in made.broken.items())
    note = f"{len(left_out):,} items that cannot be read were left out, the first: {left_out[0]}."
    found = replace(samples.select(kept), features=made.features[kept], notes=(*samples.notes, note))
    return EncodedSamples(found, kept, left_out, made.record)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of raw items.

    Attributes:
        features: ``(N, D)`` float32, memory-mapped where they are large; NaN in the rows of broken items.
        broken: Reason by position of the items that could not be decoded.
        record: How they were made, as JSON values: encoder, its settings, key, seconds in all and inside the
            encoder, and how many rows were there already.
    """

    features: np.ndarray
    broken: dict[int, str]
    record: dict[str, Any]


def encode_items(
    items: Items,
    encoder: Encoder,
    cache: FeatureCache,
    *,
    skip_broken: bool = False,
    name: str = "",
    cluster: str | None = None,
    progress: Progress | None = None,
    on_wait: Callable[[], None] | None = None,
    keep_every: float = 0.5,
) -> FeatureSet:
    """Return the features of all items, taken from the cache where they are complete there.

    `name` is what `lsi cache ls` shows; what is encoded is safe on disk every `keep_every` seconds. The
    workers of a cluster are sent the encoder and the items' content.
    """
    if not len(items):
        raise InputError("there are no items to encode.")
    described = encoder.key()
    key = _key(items.fingerprint(), described)
    with cache.open(key, on_wait) as entry:
        began, inside, there = time.perf_counter(), 0.0, len(items)
        if not encoder.certain and not _as_before(entry, items, encoder):
            entry.clear()
        found = entry.read()
        if found is None:
            manifest = {"encoder": encoder.name, "data": name, "key": described}
            inside, there = _fill(entry, items, encoder, skip_broken, manifest, cluster, progress, keep_every)
            found = entry.read()
        if found is None:
            raise InputError(f"the cache entry {key[:12]} changed while it was written. Start the run again.")
    features, stored = found
    broken = {int(position): reason for position, reason in stored["broken"].items()}
    if broken and not skip_broken:
        raise InputError(_refusal(items, broken))
    record = {
        "encoder": encoder.name,
        "settings": described,
        "key": key,
        **encoder.origin,
        "rows_already_there": there,
        "seconds": time.perf_counter() - began,
        "seconds_in_encoder": inside,
    }
    small = features.nbytes <= _IN_MEMORY
    return FeatureSet(np.array(features) if small else features, broken, record)


def _as_before(entry: Entry, items: Items, encoder: Encoder) -> bool:
    """Return whether the encoder still gives the first rows that are there, up to rounding."""
    stored = entry.first(min(encoder.chunk, len(items)))
    if not len(stored):
        return True
    chunks = ChunkEncoder(items.kind, encoder)
    rows = chunks.forward(chunks.prepare(next(iter(Blocks(items, 0, encoder.chunk))))).rows[: len(stored)]
    if rows.shape != stored.shape:
        return False
    scale = float(np.nanmax(np.abs(stored), initial=0.0))
    return bool(np.allclose(rows, stored, rtol=0, atol=_ROUNDING * scale, equal_nan=True))


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
    keep_every: float,
) -> tuple[float, int]:
    """Encode what is missing; return the seconds inside the encoder, and how many rows were there already."""
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
                if time.perf_counter() - kept_at > keep_every:
                    growing.keep()
                    kept_at = time.perf_counter()
                if progress is not None:
                    progress("encode", growing.rows, len(items))
        growing.finish(manifest)
    except BaseException as error:
        # Whatever ended this run, the next one goes on from the rows that are written.
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
    """Give the chunks from `start` on, in order; threads or cluster are released on exit."""
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
        f"{'; '.join(named)}{more}. Repair or remove these items, or leave them out with --skip-broken "
        "(skip_broken=True). What was encoded so far is kept."
    )
