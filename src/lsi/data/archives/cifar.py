"""CIFAR-10 and CIFAR-100 from the official python archives."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.archives.fetch import Archive, Found, locate, md5_of, member, open_tar, plain_members
from lsi.data.archives.unpickle import load_arrays
from lsi.data.items import ArrayItems
from lsi.data.options import SourceOptions
from lsi.data.samples import Samples
from lsi.errors import InputError, OutputError
from lsi.system.door import open_regular
from lsi.system.machine import cache_folder


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets.

    Attributes:
        title: Its name in messages.
        archive: The published file.
        folder: Folder that it unpacks to.
        batches: Members of each split, in the official order of samples.
        labels: Key of the labels in a batch.
        meta: Member and key of the class names.
    """

    title: str
    archive: Archive
    folder: str
    batches: dict[str, tuple[str, ...]]
    labels: bytes
    meta: tuple[str, bytes]


_HOME = "https://www.cs.toronto.edu/~kriz/"
CIFAR = {
    "cifar10": Cifar(
        "CIFAR-10",
        Archive(
            "cifar-10-python.tar.gz", f"{_HOME}cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
        ),
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
        b"labels",
        ("batches.meta", b"label_names"),
    ),
    "cifar100": Cifar(
        "CIFAR-100",
        Archive(
            "cifar-100-python.tar.gz", f"{_HOME}cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"
        ),
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        b"fine_labels",
        ("meta", b"fine_label_names"),
    ),
}


def load_cifar(name: str, options: SourceOptions) -> Samples:
    """Load CIFAR-10 or CIFAR-100.

    The pixels are unpacked once into the cache and memory-mapped from there.
    """
    which, split = CIFAR[name], options.split or "train"
    if split not in which.batches:
        raise InputError(f"{which.title} has the splits train and test, not {split!r}.")
    found = _unpacked(which, split, options) or locate(which.archive, options)
    content = _read(which, split, found)
    pixels = _memory_mapped(content["pixels"], found, split, options)
    names = content["names"]
    return Samples(
        name=name,
        ids=np.arange(len(pixels)),
        labels=content["labels"],
        items=ArrayItems("image", pixels, f"{which.title} {split} image"),
        images=pixels,
        class_names=dict(enumerate(names)) if names else None,
        description=f"{which.title}, {split} split: {len(pixels):,} images of 32×32 pixels.",
        notes=found.notes,
        source={"kind": "named", "name": name, "options": options.describe()},
    )


def _unpacked(which: Cifar, split: str, options: SourceOptions) -> Found | None:
    """Return the unpacked folder, where ``data_dir`` holds that instead of the archive; else None."""
    place = options.data_dir
    if place is None or (place / which.archive.name).is_file():
        return None
    folder = place if place.name == which.folder else place / which.folder
    present = [folder / base for base in which.batches[split] if (folder / base).is_file()]
    if not present:
        return None
    digest = hashlib.blake2b("".join(map(md5_of, present)).encode(), digest_size=16).hexdigest()
    return Found(folder, digest)


def _read(which: Cifar, split: str, found: Found) -> dict[str, Any]:
    """Return pixels, labels and class names; the archive is read in one pass."""
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    names: list[str] = []
    for base, value in _members(found.path, {*which.batches[split], which.meta[0]}):
        if base == which.meta[0]:
            names = [_as_text(name) for name in value.get(which.meta[1], [])]
        else:
            parts[base] = _batch(base, value, which.labels)
    missing = [base for base in which.batches[split] if base not in parts]
    if len(missing) == len(which.batches[split]):
        raise InputError(f"{found.path.name} lacks {', '.join(missing)}: it is not a {which.title} archive.")
    # A subset in the same format may have fewer batches: those that are there are read.
    ordered = [parts[base] for base in which.batches[split] if base in parts]
    return {
        "pixels": [pixels for pixels, _ in ordered],
        "labels": np.concatenate([labels for _, labels in ordered]),
        "names": names,
    }


def _members(path: Path, wanted: set[str]) -> Iterator[tuple[str, dict[bytes, Any]]]:
    if path.is_dir():
        for base in sorted(wanted):
            if (path / base).is_file():
                with open_regular(path / base) as file:
                    yield base, _as_batch(load_arrays(file, str(path / base)), base, path)
        return
    try:
        with open_tar(path) as archive:
            for entry in plain_members(archive, path):
                base = entry.name.rpartition("/")[2]
                if base in wanted and entry.isreg():
                    value = load_arrays(member(archive, entry), f"{entry.name} in {path.name}")
                    yield base, _as_batch(value, entry.name, path)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, MemoryError) as error:
        raise InputError(f"{path} is damaged ({error}). Get it from its publisher again.") from error


def _as_batch(value: Any, name: str, path: Path) -> dict[bytes, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} in {path.name} holds no CIFAR batch.")
    return value


def _batch(base: str, value: dict[bytes, Any], label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    data, labels = value.get(b"data"), value.get(label_key)
    if (
        not isinstance(data, np.ndarray)
        or data.ndim != 2
        or data.shape[1] != 3072
        or not isinstance(labels, np.ndarray | list)
    ):
        raise InputError(f"{base} holds no CIFAR images: expected 'data' of shape (N, 3072) and labels.")
    # Lists that hold one another would become an array of any size.
    flat = isinstance(labels, np.ndarray) or all(isinstance(code, int | np.integer) for code in labels)
    codes = np.asarray(labels if flat else (), dtype=np.int64)
    if codes.shape != (len(data),):
        raise InputError(f"{base} has {len(data)} images but {codes.size} labels. Get the archive again.")
    return data.astype(np.uint8, copy=False).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), codes


def _memory_mapped(batches: list[np.ndarray], found: Found, split: str, options: SourceOptions) -> np.ndarray:
    """Store the pixels once, keyed by the archive's content, and map them."""
    path = cache_folder(options.cache_dir) / "arrays" / f"{found.digest}-{split}.npy"
    shape = (sum(map(len, batches)), 32, 32, 3)
    if not _is_stored(path, shape):
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for pixels in batches:
                    file.write(np.ascontiguousarray(pixels).tobytes())
            os.replace(part, path)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{path} cannot be written: {reason}. Choose another --cache-dir.") from error
        finally:
            with suppress(OSError):  # after a success it is gone already
                part.unlink()
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _is_stored(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _as_text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
