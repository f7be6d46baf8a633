"""From what a user typed after ``--dataset`` to samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lsi.data.archives.named import is_known, load_named
from lsi.data.options import SourceOptions
from lsi.data.readers.files import read_npy, read_npz, read_safetensors, require_file
from lsi.data.readers.folder import read_image_folder
from lsi.data.readers.hub import PREFIX, read_hub
from lsi.data.readers.table_files import FORMATS
from lsi.data.readers.tables import read_table
from lsi.data.samples import Samples
from lsi.errors import InputError

READERS: dict[str, Callable[[Path, SourceOptions], Samples]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    **dict.fromkeys(FORMATS, read_table),
}
"""What reads a file, by its suffix."""


def load_samples(source: str | Path, options: SourceOptions | None = None) -> Samples:
    """Load samples from a dataset name or a path.

    A known name wins over a file of the same name; write ``./digits`` to mean the file.

    Args:
        source: A name of `lsi.data.archives.named`, ``hf:owner/name``, the path of a file with a suffix in
            `READERS`, or the path of a folder of images or of table files.
        options: Where archives are, which columns are what.

    Returns:
        The samples.

    Raises:
        InputError: If `source` is none of these.
    """
    text, options = os.fspath(source), options or SourceOptions()
    if isinstance(source, str):
        if text.startswith(PREFIX):
            return read_hub(text, options)
        if is_known(text):
            return load_named(text, options)
    path = Path(text).expanduser()
    if not _looks_like_path(text, path):
        return load_named(text, options)
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


def _read_folder(path: Path, options: SourceOptions) -> Samples:
    if any(entry.suffix.lower() in FORMATS for entry in path.iterdir()):
        return read_table(path, options)
    return read_image_folder(path)


def _looks_like_path(text: str, path: Path) -> bool:
    """Tell a path, which may not exist, from a misspelt dataset name."""
    separators = {os.sep, "/", os.altsep or os.sep}
    return bool(path.suffix) or any(mark in text for mark in separators) or path.exists()
