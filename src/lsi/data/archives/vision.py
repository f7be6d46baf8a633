"""Fashion-MNIST (idx files), and Imagenette and Imagewoof (folders of images in an archive)."""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lsi.data.archives.fetch import Archive, locate, unpack
from lsi.data.items import ArrayItems
from lsi.data.options import SourceOptions
from lsi.data.readers.folder import read_image_folder
from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.system.door import charge, open_unpacked
from lsi.system.machine import cache_folder

_ZALANDO = "https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas/"
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FOLDERS = {
    # The publisher of Imagewoof states no checksum.
    "imagenette": Archive(
        "imagenette2-160.tgz", f"{_FASTAI}imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"
    ),
    "imagewoof": Archive("imagewoof2-160.tgz", f"{_FASTAI}imagewoof2-160.tgz"),
}
_SYNSETS = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player",
    "n03000684": "chain saw", "n03028079": "church", "n03394916": "French horn", "n03417042": "garbage truck",
    "n03425413": "gas pump", "n03445777": "golf ball", "n03888257": "parachute",
    "n02086240": "Shih-Tzu", "n02087394": "Rhodesian ridgeback", "n02088364": "beagle",
    "n02089973": "English foxhound", "n02093754": "Border terrier", "n02096294": "Australian terrier",
    "n02099601": "golden retriever", "n02105641": "Old English sheepdog", "n02111889": "Samoyed",
    "n02115641": "dingo",
}  # fmt: skip


def load_fashion_mnist(name: str, options: SourceOptions) -> Samples:
    """Load Fashion-MNIST from its four idx files, gzipped or not."""
    split = options.split or "train"
    if split not in ("train", "test"):
        raise InputError(f"Fashion-MNIST has the splits train and test, not {split!r}.")
    stem = "train" if split == "train" else "t10k"
    pixels, notes = _idx(f"{stem}-images-idx3-ubyte.gz", 3, options)
    labels, more = _idx(f"{stem}-labels-idx1-ubyte.gz", 1, options)
    return Samples(
        name=name,
        ids=np.arange(len(pixels)),
        labels=labels.astype(np.int64),
        items=ArrayItems("image", pixels, f"Fashion-MNIST {split} image"),
        images=pixels,
        class_names=dict(enumerate(_FASHION_NAMES)),
        description=f"Fashion-MNIST, {split} split: {len(pixels):,} grey images of 28×28 pixels.",
        notes=notes + more,
        source={"kind": "named", "name": name, "options": options.describe()},
    )


def load_archived_folder(name: str, options: SourceOptions) -> Samples:
    """Load Imagenette or Imagewoof (160 pixels)."""
    archive = _FOLDERS[name]
    notes: tuple[str, ...] = ()
    stem = archive.name.removesuffix(".tgz")
    folder = None if options.data_dir is None else options.data_dir / stem
    if folder is None or not folder.is_dir():
        found = locate(archive, options)
        notes = found.notes
        folder = unpack(found, cache_folder(options.cache_dir) / "unpacked" / found.digest) / stem
    part = {"train": "train", "test": "val", "val": "val"}.get(options.split or "train")
    if part is None or not (folder / part).is_dir():
        raise InputError(f"{stem} has the splits train and test, not {options.split or part!r}.")
    samples = read_image_folder(folder / part)
    return replace(
        samples,
        name=name,
        class_names={label: _SYNSETS.get(str(label), str(label)) for label in np.unique(samples.labels)},
        description=f"{name.capitalize()}, {part} split, 160 pixels.",
        notes=samples.notes + notes,
        source={"kind": "named", "name": name, "options": options.describe()},
    )


def _idx(name: str, dimensions: int, options: SourceOptions) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the array of an idx file: a magic number, the sizes, then bytes."""
    notes: tuple[str, ...] = ()
    plain = None if options.data_dir is None else options.data_dir / name.removesuffix(".gz")
    if plain is not None and plain.is_file():
        path = plain
    else:
        found = locate(Archive(name, _ZALANDO + name, _FASHION_MD5[name]), options)
        path, notes = found.path, found.notes
    try:
        with open_unpacked(path) as file:
            return _idx_array(path, file, dimensions), notes
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} is damaged ({error}). Get it from its publisher again.") from error


def _idx_array(path: Path, file: BinaryIO, dimensions: int) -> np.ndarray:
    """Read as many bytes as the sizes ask for and one more, so that a bomb is never unpacked."""
    size = 4 + 4 * dimensions
    header = file.read(size)
    if len(header) < size or header[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(f"{path} is not an idx file of {dimensions}-dimensional bytes. Get it again.")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape[1:]:
        raise InputError(f"{path} states the shape {shape}, without any pixels. Get it again.")
    expected = math.prod(shape)
    charge(expected, str(path))
    content = _read_some(file, expected + 1)
    if len(content) != expected:
        raise InputError(f"{path} is shorter or longer than its shape {shape} states. Get it again.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_some(file: BinaryIO, count: int) -> bytes:
    """Return at most `count` bytes, read in parts: a single call would make room for all of them at once."""
    parts: list[bytes] = []
    while count > 0 and (part := file.read(min(count, 1 << 24))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
