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
    names = names_of(source, samples)
    taken: dict[PurePosixPath, str] = {}
    for row in np.flatnonzero(keep).tolist():
        name = place_in(names[row], labels[row]) if row in labels else PurePosixPath(names[row])
        if name in taken:
            raise InputError(
                f"{taken[name]!r} and {names[row]!r} would both become {str(name)!r}. Rename one of them."
            )
        taken[name] = names[row]
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        given = inside(source, source / names[row])
        if link:
            os.link(given, place)
        else:
            shutil.copy2(given, place)


def place_in(name: str, label: Any) -> PurePosixPath:
    """Return where an image with a new label goes, relative to the folder."""
    return PurePosixPath(_folder_name(label), *PurePosixPath(name).parts[1:])


def inside(folder: Path, path: Path) -> Path:
    """Return the file behind a path, or refuse a link that leads out of the dataset's folder."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise InputError(
            f"{str(path)!r} is a link to {str(real)!r}, outside of the dataset, which is not copied. Put the "
            "file itself into the folder, or remove the link."
        )
    return real


def names_of(source: Path, samples: Samples) -> list[str]:
    """Return the names of the files as they are in the folder: ids may be escaped forms of them."""
    if samples.items is None:
        raise InputError(f"{source} holds no images.")
    return [
        Path(path).absolute().relative_to(source.absolute()).as_posix()
        for path in samples.items.iterate(np.arange(len(samples)))
    ]


def _folder_name(label: Any) -> str:
    name = str(label)
    if not name or name.startswith(".") or any(mark in name for mark in ("/", "\\", "\0")):
        raise InputError(
            f"the new label {name!r} cannot be the name of a folder. Change it in the decisions."
        )
    return name
