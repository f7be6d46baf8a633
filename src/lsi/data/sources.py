"""From what a user typed after ``--dataset`` to samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lsi.data.files import read_npz, require_file
from lsi.data.named import NAMED, canonical_name, load_named
from lsi.data.samples import Samples
from lsi.errors import InputError

READERS: dict[str, Callable[[Path], Samples]] = {".npz": read_npz}
"""What reads a file, by its suffix."""


def load_samples(source: str | Path) -> Samples:
    """Load samples from a dataset name or a path.

    A known name wins over a file of the same name; write ``./digits`` to mean the file.

    Args:
        source: A name in `NAMED`, or the path of a file with a suffix in `READERS`.

    Returns:
        The samples.

    Raises:
        InputError: If `source` is neither.
    """
    text = os.fspath(source)
    if canonical_name(text) in NAMED and not isinstance(source, Path):
        return load_named(text)
    path = Path(text).expanduser()
    if not _looks_like_path(text, path):
        return load_named(text)
    require_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"cannot read {text!r}: its type is not one of {', '.join(READERS)}. "
            "Write features and labels with numpy.savez('data.npz', X=features, y=labels)."
        )
    return reader(path)


def reload_samples(source: Mapping[str, str]) -> Samples:
    """Load the samples that a manifest's ``source`` entry describes.

    Args:
        source: `Samples.source` of an earlier run.

    Returns:
        The samples.

    Raises:
        InputError: If the entry is unknown or its data are gone.
    """
    kind = source.get("kind")
    if kind == "named":
        return load_named(source.get("name", ""))
    if kind == "file":
        return load_samples(Path(source.get("path", "")))
    raise InputError("these scores do not say where their samples came from. Name the data with --dataset.")


def _looks_like_path(text: str, path: Path) -> bool:
    """Tell a path, which may not exist, from a misspelt dataset name."""
    separators = {os.sep, "/", os.altsep or os.sep}
    return bool(path.suffix) or any(mark in text for mark in separators) or path.exists()
