"""Cleaned arrays: .npz, .safetensors, and .npy with a file of labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.options import SourceOptions
from lsi.data.readers.files import find_labels
from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.system.files import check_left, new_file
from lsi.system.npy import load_npy, npz_names, open_safetensors, read_npz


def relabelled(values: np.ndarray, labels: Mapping[int, Any]) -> np.ndarray:
    """Return `(N,)` labels with some of them replaced, of the same kind; texts may become longer."""
    if not labels:
        return values
    rows = np.fromiter(labels, dtype=np.int64, count=len(labels))
    new = np.array(list(labels.values()))
    if new.dtype.kind == "U" and values.dtype.kind == "S":
        new = np.char.encode(new, "utf-8")
    kinds = {"i": "iub", "u": "iub", "b": "b", "f": "iuf"}.get(values.dtype.kind, values.dtype.kind)
    out = (
        values.astype(np.promote_types(values.dtype, new.dtype))
        if values.dtype.kind in "US"
        else values.copy()
    )
    if new.dtype.kind not in kinds:
        raise InputError(f"the new label {new[0]!r} does not fit among labels of type {values.dtype}.")
    out[rows] = new
    if values.dtype.kind in "iu" and (out[rows] != new).any():
        raise InputError(f"a new label does not fit into {values.dtype}: {new.max()!r}.")
    return out


def _ids_move(names: Container[str], options: SourceOptions, keep: np.ndarray) -> bool:
    """Return whether row numbers are the ids and change now, so that the old ones must be written down."""
    return "ids" not in names and options.id_column is None and not keep.all()


def write_npz(
    source: Path,
    output: Path,
    samples: Samples,
    keep: np.ndarray,
    labels: Mapping[int, Any],
    options: SourceOptions,
    seal: Callable[[list[Path]], None],
) -> None:
    """Write a .npz in which arrays with a row for each sample lose rows, and others stay; keep: `(N,)`."""
    key = options.label_column or "y"
    arrays = read_npz(source, npz_names(source))
    if _ids_move(arrays, options, keep):
        arrays["ids"] = np.asarray(samples.ids)
    arrays[key] = relabelled(arrays[key], labels)
    parts = {name: _rows(array, keep) for name, array in arrays.items()}
    with new_file(output) as staging:
        save_npz(staging, parts)
        seal([staging])


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays like `numpy.savez`, which does not take every name for an array."""
    with zipfile.ZipFile(path, "w") as out:
        for name, array in arrays.items():
            with out.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def write_safetensors(
    source: Path,
    output: Path,
    samples: Samples,
    keep: np.ndarray,
    labels: Mapping[int, Any],
    options: SourceOptions,
    seal: Callable[[list[Path]], None],
) -> None:
    """Write a .safetensors file, as `write_npz` does; keep: `(N,)`."""
    import torch
    from safetensors.torch import save_file

    key = options.label_column or "y"
    with open_safetensors(source) as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    if _ids_move(tensors, options, keep):
        tensors["ids"] = torch.from_numpy(np.asarray(samples.ids))
    tensors[key] = torch.from_numpy(relabelled(tensors[key].numpy(), labels))
    mask = torch.from_numpy(keep)
    parts = {
        name: (tensor[mask] if tensor.ndim and len(tensor) == len(keep) else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    with new_file(output) as staging:
        save_file(parts, staging, metadata)
        seal([staging])


def write_npy(
    source: Path,
    output: Path,
    samples: Samples,
    keep: np.ndarray,
    labels: Mapping[int, Any],
    options: SourceOptions,
    seal: Callable[[list[Path]], None],
) -> None:
    """Write features as .npy and labels next to them, as .npy or text; keep: `(N,)`.

    The labels get their name first: the same command goes on from there after it was killed in between.
    """
    given = find_labels(source, options)
    beside = labels_beside(output, given.suffix)
    left = relabelled(samples.labels, labels)[keep]
    features = load_npy(source)
    with new_file(output) as staging, new_file(beside, again=True) as staging_labels:
        if given.suffix.lower() == ".npy":
            with staging_labels.open("wb") as file:
                np.save(file, left)
        else:
            staging_labels.write_text("".join(f"{label}\n" for label in left.tolist()), encoding="utf-8")
        check_left(staging_labels, beside)
        with staging.open("wb") as file:
            np.save(file, features[keep])
        seal([staging, staging_labels])


def labels_beside(features: Path, suffix: str) -> Path:
    """Return where the labels of a .npy of features are written."""
    return features.with_name(f"{features.stem}_labels{suffix}")


def _rows(array: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return array[keep] if array.ndim and len(array) == len(keep) else array
