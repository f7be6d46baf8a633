"""Samples from files of arrays. Nothing here unpickles: a data file must not be able to run code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.options import SourceOptions
from lsi.data.samples import Samples, group_array, row_texts, text_array
from lsi.errors import InputError, nearest
from lsi.system.door import read_text, require_regular
from lsi.system.npy import load_npy, npz_names, open_safetensors
from lsi.system.npy import read_npz as npz_arrays
from lsi.validation.features import tensor_to_numpy


def read_npz(path: str | Path, options: SourceOptions | None = None) -> Samples:
    """Read features ``X``, labels ``y`` and, where present, ``ids`` from a ``.npz`` file.

    Other arrays in the file are not read.

    Args:
        path: The file, as `numpy.savez` writes it.
        options: Names of the arrays: ``label_column`` (default ``y``), ``clean_label_column``,
            ``id_column`` (default ``ids``), ``group_column``, and the first of ``feature_columns`` (default
            ``X``).

    Returns:
        The samples; ids are ``0 … N−1`` where the file has none.

    Raises:
        InputError: If the file is missing or broken, lacks ``X`` or ``y``, or holds Python objects.
    """
    path, options = Path(path), options or SourceOptions()
    require_file(path)
    keys = _Keys.of(options)
    arrays = _read_arrays(path, required=keys.required, optional=keys.optional)
    return _from_arrays(path, arrays, keys, options)


def read_safetensors(path: Path, options: SourceOptions) -> Samples:
    """Read ``X``, ``y`` and, where present, ``ids`` from a ``.safetensors`` file; memory-mapped."""
    keys = _Keys.of(options)
    with open_safetensors(path) as file:
        present = list(file.keys())
        _require_keys(path, keys.required, present)
        wanted = [key for key in (*keys.required, *keys.optional) if key in present]
        arrays = {key: tensor_to_numpy(file.get_tensor(key)) for key in wanted}
    return _from_arrays(path, arrays, keys, options)


def read_npy(path: Path, options: SourceOptions) -> Samples:
    """Read features `(N, D)` from a ``.npy`` file, memory-mapped, and labels from a file next to it."""
    features = load_npy(path)
    if options.unlabelled:
        return _from_arrays(path, {"X": features}, _Keys("X", "y", "ids", None), options)
    labels = find_labels(path, options)
    if labels.suffix.lower() == ".npy":
        target = load_npy(labels)
    else:
        lines = _read_text(labels).split("\n")
        target = text_array(lines[:-1] if len(lines) > 1 and not lines[-1] else lines)
    arrays = {"X": features, "y": target}
    return _from_arrays(path, arrays, _Keys("X", "y", "ids", None), options)


def find_labels(path: Path, options: SourceOptions) -> Path:
    """Return the file of labels that belongs to a ``.npy`` file of features."""
    beside = [path.with_name(f"{path.stem}{tail}.npy") for tail in ("_labels", "_y")]
    labels = options.labels or next((place for place in beside if place.is_file()), None)
    if labels is None:
        raise InputError(
            f"{path} holds only features. Name the file of labels with --labels, or call it {beside[0].name}."
        )
    require_file(labels)
    return labels


def _read_text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Write one label a line, in UTF-8.") from error


@dataclass(frozen=True)
class _Keys:
    """Names of the arrays in a file."""

    features: str
    labels: str
    ids: str
    clean: str | None
    groups: str | None = None
    unlabelled: bool = False

    @staticmethod
    def of(options: SourceOptions) -> _Keys:
        features = options.feature_columns[0] if options.feature_columns else "X"
        return _Keys(
            features,
            options.label_column or "y",
            options.id_column or "ids",
            options.clean_label_column,
            options.group_column,
            options.unlabelled,
        )

    @property
    def required(self) -> tuple[str, ...]:
        labels = () if self.unlabelled else (self.labels, self.groups)
        return tuple(key for key in (self.features, *labels, self.clean) if key is not None)

    @property
    def optional(self) -> tuple[str, ...]:
        return (self.ids, self.labels) if self.unlabelled else (self.ids,)


def _from_arrays(path: Path, arrays: dict[str, np.ndarray], keys: _Keys, options: SourceOptions) -> Samples:
    labels, targets = arrays.get(keys.labels), None
    if labels is None:
        labels = np.full(len(arrays[keys.features]), None)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        targets, labels = labels, row_texts(labels)
    ids = arrays.get(keys.ids)
    if ids is None:
        ids = np.arange(len(labels) if labels.ndim else 0)
    source: dict[str, Any] = {"kind": "file", "name": path.name, "path": str(path.absolute())}
    if described := options.describe():
        source["options"] = described
    return Samples(
        name=path.stem,
        ids=ids,
        labels=labels,
        features=arrays[keys.features],
        clean_labels=arrays[keys.clean] if keys.clean else None,
        groups=group_array(arrays[keys.groups]) if keys.groups in arrays else None,
        description=f"Features and labels from {path.name}.",
        source=source,
        targets=targets,
        target_names=() if targets is None else tuple(map(str, range(targets.shape[1]))),
    )


def require_file(path: Path) -> None:
    """Raise unless there is a file at `path`; the message names the nearest ones."""
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the path of a file.")
    if path.exists():
        require_regular(path)
        return
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{path} does not exist: there is no folder {folder}.")
    siblings = sorted(entry.name for entry in folder.iterdir() if entry.suffix == path.suffix)[:10]
    hint = nearest(path.name, siblings) if siblings else f"The folder {folder} holds no file of this type."
    raise InputError(f"{path} does not exist. {hint}")


def _read_arrays(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the wanted arrays of a .npz file by name."""
    present = npz_names(path)
    _require_keys(path, required, present)
    return npz_arrays(path, [key for key in (*required, *optional) if key in present])


def _require_keys(path: Path, required: tuple[str, ...], present: list[str]) -> None:
    missing = [key for key in required if key not in present]
    if missing:
        held = ", ".join(map(repr, present)) or "nothing"
        raise InputError(
            f"{path} lacks {' and '.join(map(repr, missing))}; it holds {held}. "
            "Write features as X and labels as y: numpy.savez(path, X=features, y=labels). "
            "Or name the labels with --label-column."
        )
