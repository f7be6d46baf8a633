"""A folder of images in which every sub-folder is a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lsi.data.decode import ItemImages
from lsi.data.items import FileItems
from lsi.data.samples import Samples, text_array
from lsi.errors import InputError
from lsi.system.door import inside, readable_name

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
"""Folders that divide a dataset, with the classes inside of them."""


def read_image_folder(folder: Path) -> Samples:
    """Find the images in a folder without opening any."""
    names: list[str] = []
    labels: list[str] = []
    loose = other = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(folder)
        for file in files:
            if os.path.islink(os.path.join(place, file)):
                inside(Path(place) / file, folder)
            if file.startswith(".") or not file.lower().endswith(IMAGE_SUFFIXES):
                other += not file.startswith(".")
            elif not below.parts:
                loose += 1
            else:
                names.append((below / file).as_posix())
                labels.append(below.parts[0])
    if not names:
        hint = f" ({loose} images lie directly in it)" if loose else ""
        raise InputError(
            f"{folder} holds no images in sub-folders{hint}. Make one sub-folder for each class, with files "
            f"of the types {', '.join(IMAGE_SUFFIXES)}; or name a table with a column of paths and one of "
            "labels: --dataset labels.csv --image-column file --label-column label."
        )
    if {label.lower() for label in labels} <= _SPLITS and all(name.count("/") > 1 for name in names):
        one = min(labels)
        raise InputError(
            f"{folder} is divided into {', '.join(sorted(set(labels)))}, which would be taken for the "
            f"classes. Name one of them: --dataset {folder / one}."
        )
    order = np.argsort(names, kind="stable")
    items = FileItems("image", folder, [names[k] for k in order])
    notes = []
    if loose:
        notes.append(f"{loose:,} images outside of any class folder were left out.")
    if other:
        notes.append(f"{other:,} files that are not images were left out.")
    called = readable_name(folder.resolve().name)
    return Samples(
        name=called,
        ids=text_array([readable_name(names[k]) for k in order]),
        labels=text_array([readable_name(labels[k]) for k in order]),
        items=items,
        images=ItemImages(items),
        description=f"Images from the folder {called}; the sub-folder is the class.",
        notes=tuple(notes),
        source={"kind": "file", "name": called, "path": str(folder.absolute())},
    )
