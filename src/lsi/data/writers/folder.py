"""A cleaned folder of images in which every sub-folder is a class."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lsi.data.samples import Samples
from lsi.errors import InputError


def write_image_folder(
    source: Path,
    samples: Samples,
    keep: np.ndarray,
    labels: Mapping[int, Any],
    target: Path,
    link: bool,
) -> None:
    """Copy the images that are kept `(N,)`; one with a new label goes to the sub-folder of that label."""
    names = _names(source, samples)
    taken: dict[PurePosixPath, str] = {}
    for row in np.flatnonzero(keep).tolist():
        name = PurePosixPath(names[row])
        if row in labels:
            name = PurePosixPath(_folder_name(labels[row]), *name.parts[1:])
        if name in taken:
            raise InputError(
                f"{taken[name]!r} and {names[row]!r} would both become {str(name)!r}. Rename one of them."
            )
        taken[name] = names[row]
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            os.link(source / names[row], place)
        else:
            shutil.copy2(source / names[row], place)


def _names(source: Path, samples: Samples) -> list[str]:
    """Return the names of the files as they are in the folder: ids may be escaped forms of them."""
    if samples.items is None:
        raise InputError(f"{source} holds no images.")
    return [
        Path(path).relative_to(source).as_posix() for path in samples.items.iterate(np.arange(len(samples)))
    ]


def _folder_name(label: Any) -> str:
    name = str(label)
    if not name or name.startswith(".") or any(mark in name for mark in ("/", "\\", "\0")):
        raise InputError(
            f"the new label {name!r} cannot be the name of a folder. Change it in the decisions."
        )
    return name
