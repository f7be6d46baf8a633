"""Pairs from files: two columns of a table, two arrays of a ``.npz``, or two views of the same items."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lsi.data.corruption.labels import Corruption
from lsi.data.decode import BrokenItem, ItemImages, decode
from lsi.data.items import Items, Payload
from lsi.data.options import SourceOptions
from lsi.data.readers.table import Table, TableItems
from lsi.data.readers.table_files import FORMATS, open_table_file
from lsi.data.readers.tables import to_numpy
from lsi.data.samples import Samples
from lsi.data.sources import load_samples
from lsi.errors import InputError, nearest
from lsi.system.door import require_regular
from lsi.system.machine import expand
from lsi.system.npy import npz_names, read_npz

AUGMENTATIONS = ("crop", "flip", "grey")


@dataclass(frozen=True, eq=False)
class PairSource:
    """Two sides of the same pairs, each with raw items or features.

    Attributes:
        left: The left side, with the ids, images and source of the pairs.
        right: The right side; the same object where both sides are views of one item.
    """

    left: Samples
    right: Samples


def holds_pairs(path: str) -> bool:
    """Return whether a file is a ``.npz`` with arrays ``left`` and ``right`` and without ``X``."""
    place = expand(path)
    if not path.lower().endswith(".npz") or not place.exists():
        return False
    require_regular(place)
    if not zipfile.is_zipfile(place):
        return False
    names = set(npz_names(place))
    return {"left", "right"} <= names and "X" not in names


def load_pairs(source: str, options: SourceOptions) -> PairSource:
    """Load both sides of pairs; labels are neither needed nor read."""
    path = expand(source)
    if holds_pairs(source):
        return _read_arrays(path)
    if path.suffix.lower() in FORMATS and path.is_file():
        return _read_table(path, options)
    named = _named_columns(options)
    if len(named) > 1:
        raise InputError(
            f"two item columns need a table file ({', '.join(FORMATS)}), and {source!r} is none."
        )
    samples = replace(load_samples(source, options), class_names=None)  # ids stand in for labels
    return PairSource(samples, samples)


def augmented(items: Items, kind: str) -> Items:
    """Return changed views of images, as the right side where both sides are the same images."""
    if kind not in AUGMENTATIONS:
        raise InputError(f"--augment {kind!r} is not known. {nearest(kind, AUGMENTATIONS)}")
    if items.kind != "image":
        raise InputError(f"--augment changes images, not {items.kind}. Use --encoder-2 for a second view.")
    return _Augmented(items, kind)


def mismatched(pairs: Samples, right: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, Corruption]:
    """Exchange the partners of a share of the pairs in a ring.

    Returns the right side `(N, D)` after the exchange, and the truth: for each right item the id of the
    left item that it belongs to.
    """
    count = round(share * len(right))
    if not 0 < share <= 1 or count < 2:
        raise InputError(
            f"--mismatch {share} of {len(right)} pairs: choose a share up to 1 that makes at least 2 pairs."
        )
    moved = np.random.default_rng(seed).choice(len(right), count, replace=False)
    origin = np.arange(len(right))
    origin[moved] = np.roll(moved, 1)
    ids = np.asarray(pairs.ids)
    truth = Corruption(
        ids, origin != np.arange(len(right)), ids[np.argsort(origin)], share, seed, "mismatched pairs"
    )
    return right[origin], truth


class _Augmented(Items):
    """Views of images: every image is changed in the same way, so that a run can be repeated."""

    kind = "image"

    def __init__(self, items: Items, change: str) -> None:
        self._items, self._change = items, change

    def __len__(self) -> int:
        return len(self._items)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield changed pixels; what cannot be decoded is passed on, and named when it is encoded."""
        for payload in self._items.iterate(positions):
            try:
                picture = decode("image", payload)
            except BrokenItem:
                yield payload
                continue
            yield self._changed(np.asarray(picture.convert("RGB")))

    def describe(self, position: int) -> str:
        """Return what the item itself is called."""
        return self._items.describe(position)

    def _changed(self, pixels: np.ndarray) -> np.ndarray:
        if self._change == "flip":
            return np.ascontiguousarray(pixels[:, ::-1])
        if self._change == "grey":
            grey = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
            return np.repeat(grey, 3, axis=2)
        height, width = pixels.shape[:2]
        top, left = height // 8, width // 8
        return np.ascontiguousarray(pixels[top : height - top, left : width - left])


def _named_columns(options: SourceOptions) -> dict[str, str]:
    given = {"image": options.image_column, "text": options.text_column, "audio": options.audio_column}
    return {kind: name for kind, name in given.items() if name}


def _read_table(path: Path, options: SourceOptions) -> PairSource:
    table = Table([open_table_file(path)], path.parent, path.name)
    columns = _named_columns(options)
    if not columns or len(columns) > 2:
        raise InputError(
            f"{path.name}: name two of --image-column, --text-column and --audio-column for pairs, or one of "
            "them for two views of each item."
        )
    if table.n_rows == 0:
        raise InputError(f"{table.name} has no rows.")
    id_column = options.id_column and table.require(options.id_column, "--id-column")
    ids = np.arange(table.n_rows) if not id_column else to_numpy(table.column(id_column))
    source = {
        "kind": "pairs", "name": path.name, "path": str(path.absolute()), "options": options.describe(),
    }  # fmt: skip
    sides = []
    for kind, name in columns.items():
        items = TableItems(kind, table, table.require(name, f"--{kind}-column"))
        images = ItemImages(items) if kind == "image" else None
        text = " and ".join(f"{a}s from {b!r}" for a, b in columns.items())
        sides.append(
            Samples(
                name=path.stem, ids=ids, labels=ids, items=items, images=images,
                description=f"Pairs of {path.name}: {text}.", source=source,
            )
        )  # fmt: skip
    return PairSource(sides[0], sides[-1])


def _read_arrays(path: Path) -> PairSource:
    names = [name for name in ("left", "right", "ids") if name in npz_names(path)]
    arrays = read_npz(path, names)
    left, right = arrays["left"], arrays["right"]
    ids = arrays.get("ids", np.arange(len(left) if left.ndim else 0))
    source = {"kind": "pairs", "name": path.name, "path": str(path.absolute())}
    one = Samples(
        name=path.stem,
        ids=ids,
        labels=ids,
        features=left,
        description=f"Pairs of {path.name}.",
        source=source,
    )
    return PairSource(one, replace(one, features=right))
