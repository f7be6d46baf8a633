"""Samples from a dataset name or a path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lsi.data.archives.named import is_known, load_named
from lsi.data.options import SourceOptions
from lsi.data.readers.files import read_npy, read_npz, read_safetensors, require_file
from lsi.data.readers.folder import read_image_folder
from lsi.data.readers.hub import PREFIX, read_hub
from lsi.data.readers.table_files import FORMATS
from lsi.data.readers.tables import read_table
from lsi.data.samples import Samples
from lsi.errors import InputError, nearest
from lsi.results.marks import read_mark, refuse_other
from lsi.system.machine import expand

READERS: dict[str, Callable[[Path, SourceOptions], Samples]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    **dict.fromkeys(FORMATS, read_table),
}
"""What reads a file, by its suffix."""


def load_samples(source: str | Path, options: SourceOptions | None = None, **settings: Any) -> Samples:
    """Load samples from a dataset name or a path.

    A known name wins over a file of the same name; write ``./digits`` to mean the file. Images, texts and
    recordings are only found, not read: `encode` turns them into features.

    Args:
        source: ``digits``, ``wine``, ``breast_cancer``, ``diabetes``, ``cifar10``, ``cifar100``,
            ``fashion_mnist``, ``imagenette`` or ``imagewoof``; ``hf:owner/name``; the path of a folder of
            images or of table files; or the path of a file: .npz, .npy, .safetensors, .parquet, .arrow,
            .feather, .csv, .tsv, .jsonl or .ndjson.
        options: Where archives are and which columns are what; None: the defaults.
        **settings: Fields of `SourceOptions` by name, such as ``label_column="mood"``; they go before
            `options`.

    Returns:
        The samples, with features or with raw items. Their values are checked when they are scored.

    Raises:
        InputError: If `source` is none of these, cannot be read, or a setting is not known.

    Examples:
        >>> samples = load_samples("wine")
        >>> len(samples), samples.features.shape, samples.class_name(2)
        (178, (178, 13), 'class_2')
    """
    options = _with_settings(options or SourceOptions(), settings)
    samples = _load(source, options)
    if options.group_column and samples.groups is None and not options.unlabelled:
        name = options.group_column
        raise InputError(
            f"{samples.name} has no columns, so that --group-column {name} finds no groups. Give a table "
            "that has one; for pictures a table that names their files: --dataset table.csv "
            f"--image-column file --label-column label --group-column {name}."
        )
    return samples


def _load(source: str | Path, options: SourceOptions) -> Samples:
    text = os.fspath(source)
    if isinstance(source, str):
        if text.startswith(PREFIX):
            return read_hub(text, options)
        if is_known(text):
            return load_named(text, options)
    path = expand(text)
    if not _looks_like_path(text, path):
        return load_named(text, options)
    refuse_other(path, read_mark(path), "a dataset, which is what lsi reads samples from")
    if path.is_dir():
        return _read_folder(path, options)
    require_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"cannot read {text!r}: its type is not one of {', '.join(READERS)}. "
            "Write features and labels with numpy.savez('data.npz', X=features, y=labels)."
        )
    return reader(path, options)


def _with_settings(options: SourceOptions, settings: dict[str, Any]) -> SourceOptions:
    known = [field.name for field in fields(SourceOptions)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InputError(f"load_samples() has no setting {unknown[0]!r}. {nearest(unknown[0], known)}")
    return replace(options, **settings)


def _read_folder(path: Path, options: SourceOptions) -> Samples:
    if any(entry.suffix.lower() in FORMATS for entry in path.iterdir()):
        return read_table(path, options)
    return read_image_folder(path)


def _looks_like_path(text: str, path: Path) -> bool:
    """Return whether this is a path, which may not exist, rather than a misspelt dataset name."""
    separators = {os.sep, "/", os.altsep or os.sep}
    return bool(path.suffix) or any(mark in text for mark in separators) or path.exists()
