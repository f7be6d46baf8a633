"""Labels that people gave: the published ones of CIFAR-10N and CIFAR-100N.

Wei, Zhu, Cheng, Liu, Niu, Liu, *Learning with Noisy Labels Revisited*, ICLR 2022.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from lsi.data.archives.unpickle import load_arrays
from lsi.data.corruption.labels import Corruption
from lsi.errors import InputError, nearest
from lsi.system.door import LIMITS, charge, open_regular
from lsi.system.npy import PARSE_ERRORS

FILES = {10: "CIFAR-10_human.pt", 100: "CIFAR-100_human.pt"}
KINDS = {
    "aggregate": "aggre_label",
    "worst": "worse_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
    "noisy": "noisy_label",
}
"""Names of the label sets, and their keys in the files; ``noisy`` is CIFAR-100N's only one."""
_SPELLINGS = {"true": "default", "aggre": "aggregate", "worse": "worst"}


def human_labels(labels: np.ndarray, kind: str, path: Path) -> Corruption:
    """Replace labels with those that people gave.

    Args:
        labels: ``(N,)`` class codes of CIFAR's training images in the official order: all of them, or
            the first N.
        kind: A name in `KINDS`, or ``true``: aggregate for CIFAR-10, noisy for CIFAR-100.
        path: The published .pt file, or the folder that holds it.

    Returns:
        The labels that people gave, with the clean ones as originals.

    Raises:
        InputError: If the file is missing or damaged, lacks these labels, or its clean labels are not
            those of the data.
    """
    wanted = _SPELLINGS.get(kind.strip().lower(), kind.strip().lower())
    content = read_human_labels(_find(path, labels))
    present = [name for name, key in KINDS.items() if key in content]
    if wanted == "default":
        wanted = "aggregate" if "aggregate" in present else "noisy"
    if wanted not in present:
        raise InputError(f"there are no human labels {kind!r} in this file. {nearest(wanted, present)}")
    clean, given = content["clean_label"], content[KINDS[wanted]]
    if len(labels) > len(clean) or not np.array_equal(clean[: len(labels)], labels):
        agreeing = float(np.mean(clean[: len(labels)] == labels[: len(clean)]))
        raise InputError(
            f"the clean labels in the file of human labels agree with only {agreeing:.0%} of those of the "
            "data: the file belongs to other data, or to another order of them. It is for CIFAR's training "
            "images in their official order."
        )
    given = given[: len(labels)]
    mask = given != labels
    return Corruption(
        labels=given.astype(labels.dtype),
        mask=mask,
        original_labels=labels,
        rate=float(mask.mean()),
        seed=0,
        kind=f"human {wanted}",
    )


def read_human_labels(path: Path) -> dict[str, np.ndarray]:
    """Read a published .pt file: a zip archive around a pickle of numpy arrays."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            inside = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
            if len(inside) != 1:
                raise InputError(f"{path} is not a file of human labels: it holds no data.pkl.")
            if archive.getinfo(inside[0]).file_size > LIMITS["member"].value:
                raise InputError(f"{path} is not a file of human labels: its data.pkl is too large.")
            size = archive.getinfo(inside[0])
            charge(size.file_size, str(path), stored=size.compress_size)
            content = archive.read(inside[0])
    except InputError:
        raise
    except PARSE_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({error}). Get it from the publisher of CIFAR-N again."
        ) from error
    value = load_arrays(io.BytesIO(content), str(path))
    arrays = {
        (key.decode() if isinstance(key, bytes) else str(key)): np.asarray(array)
        for key, array in (value.items() if isinstance(value, dict) else ())
        if isinstance(array, np.ndarray)
    }
    kept = {key: array.astype(np.int64) for key, array in arrays.items() if array.dtype.kind in "iu"}
    if "clean_label" not in kept:
        raise InputError(
            f"{path} holds no 'clean_label', so it cannot be checked against the data. Get the published "
            "file."
        )
    return kept


def _find(path: Path, labels: np.ndarray) -> Path:
    if path.is_file():
        return path
    classes = 10 if labels.size and labels.dtype.kind in "iu" and labels.max() < 10 else 100
    for name in (FILES[classes], *FILES.values()):
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"{path} holds no {FILES[classes]}, the human labels of CIFAR-{classes}N. Get it from its publisher "
        "(github.com/UCSC-REAL/cifar-10-100n) and put it into the folder of --data-dir, or name it with "
        "--human-labels."
    )
