"""Samples from files. Nothing here unpickles: a data file must not be able to run code."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lsi.data.samples import Samples
from lsi.errors import InputError, nearest


def read_npz(path: str | Path) -> Samples:
    """Read features ``X``, labels ``y`` and, where present, ``ids`` from a ``.npz`` file.

    Other arrays in the file are left alone.

    Args:
        path: The file, as `numpy.savez` writes it.

    Returns:
        The samples; ids are ``0 … N−1`` where the file has none.

    Raises:
        InputError: If the file is missing or broken, lacks ``X`` or ``y``, or holds Python objects.
    """
    path = Path(path)
    require_file(path)
    arrays = _read_arrays(path, required=("X", "y"), optional=("ids",))
    labels = arrays["y"]
    ids = arrays.get("ids")
    if ids is None:
        ids = np.arange(len(labels) if labels.ndim else 0)
    return Samples(
        name=path.stem,
        ids=ids,
        labels=labels,
        features=arrays["X"],
        description=f"Features and labels from {path.name}.",
        source={"kind": "file", "name": path.name, "path": str(path.absolute())},
    )


def require_file(path: Path) -> None:
    """Check that a file is there.

    Args:
        path: The file.

    Raises:
        InputError: If it is not there; the message says what is, and which files have similar names.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the path of a .npz file that holds X and y.")
    if path.is_file():
        return
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{path} does not exist: there is no folder {folder}.")
    siblings = sorted(entry.name for entry in folder.iterdir() if entry.suffix == path.suffix)[:10]
    hint = nearest(path.name, siblings) if siblings else f"Folder '{folder}' holds no file of that type."
    raise InputError(f"{path} does not exist. {hint}")


def _read_arrays(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the wanted arrays of a .npz file by name."""
    broken = f"{path} is not a readable .npz file"
    cure = "Write it again with numpy.savez(path, X=X, y=y)."
    try:
        if not zipfile.is_zipfile(path):
            raise InputError(f"{broken} (it is no zip archive). {cure}")
        with np.load(path, allow_pickle=False) as archive:
            _require_keys(path, required, archive.files)
            wanted = [key for key in (*required, *optional) if key in archive.files]
            return {key: _read_array(path, archive, key) for key in wanted}
    except PermissionError as error:
        raise InputError(f"{path} may not be read. Change its permissions or copy it.") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{broken} ({error}). {cure}") from error


def _require_keys(path: Path, required: tuple[str, ...], present: list[str]) -> None:
    missing = [key for key in required if key not in present]
    if missing:
        held = ", ".join(map(repr, present)) or "nothing"
        raise InputError(
            f"{path} lacks {' and '.join(map(repr, missing))}; it holds {held}. "
            "Write features as X and labels as y: numpy.savez(path, X=features, y=labels)."
        )


def _read_array(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    """Read one array, turning numpy's refusal of Python objects into advice."""
    try:
        value = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        example = "y=y.astype(str)" if key != "X" else "X=X.astype('float32')"
        raise InputError(
            f"{path}: {key!r} holds Python objects (dtype object), which are not read because loading them "
            f"could run code. Save plain numbers or strings: numpy.savez(path, …, {example})."
        ) from error
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path}: {key!r} is not an array. Write it with numpy.savez(path, X=X, y=y).")
    return value
