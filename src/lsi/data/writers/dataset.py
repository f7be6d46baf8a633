"""A dataset written again without some samples and with other labels, in the format that it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.options import SourceOptions
from lsi.data.readers.table_files import FORMATS
from lsi.data.readers.tables import label_column
from lsi.data.samples import Samples
from lsi.data.writers.arrays import write_npy, write_npz, write_safetensors
from lsi.data.writers.folder import inside, write_image_folder
from lsi.data.writers.tables import write_table_file
from lsi.errors import InputError
from lsi.system.files import check_new, new_file, new_folder
from lsi.system.places import check_apart


@dataclass(frozen=True)
class Changes:
    """Changes to a dataset, by row of the source.

    Attributes:
        keep: `(N,)` bool, whether a row is kept.
        labels: New labels by row; those of rows that are not kept have no effect.
    """

    keep: np.ndarray
    labels: Mapping[int, Any]


Seal = Callable[[Sequence[Path]], None]
"""Called with the finished drafts of a dataset before they take their places."""


def write_cleaned(
    samples: Samples,
    changes: Changes,
    output: Path,
    options: SourceOptions,
    link: bool = False,
    seal: Seal = lambda drafts: None,
) -> None:
    """Write what is left of a dataset; whatever does not change stays as it is."""
    source = place_of(samples)
    check_target(samples, output)
    if not changes.keep.any():
        raise InputError("no sample would be left. Keep at least one.")
    if changes.labels and samples.targets is not None:
        raise InputError("samples with several targets cannot be relabelled. Only keep or remove them.")
    if source.is_dir():
        tables = tables_in(source)
        with new_folder(output) as staging:
            if tables:
                _write_tables(tables, staging, changes, options)
            else:
                write_image_folder(source, samples, changes.keep, changes.labels, staging, link)
            seal([staging])
        return
    suffix = source.suffix.lower()
    if suffix in _ARRAYS:
        _ARRAYS[suffix](source, output, samples, changes.keep, changes.labels, options, seal)
        return
    column = label_column([source], options) if changes.labels else None
    with new_file(output) as staging:
        write_table_file(source, staging, column, changes.keep, changes.labels)
        seal([staging])


def tables_in(folder: Path) -> list[Path]:
    """Return the table files of a folder in the order in which they are read; none may lie elsewhere."""
    found = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in FORMATS)
    return [inside(folder, path) for path in found]


_ARRAYS: dict[str, Callable[..., None]] = {
    ".npz": write_npz,
    ".npy": write_npy,
    ".safetensors": write_safetensors,
}


def place_of(samples: Samples) -> Path:
    """Return the file or folder that samples came from."""
    if samples.source.get("kind") != "file":
        raise InputError(
            f"{samples.name} is a dataset known by name, not a file or folder that could be written in the "
            "same format. Use the kept positions: X[numpy.load('kept.npy')], from `lsi select -o kept.npy`."
        )
    return Path(samples.source["path"])


def check_target(samples: Samples, output: Path) -> None:
    """Raise before any work if the dataset cannot be written to this place."""
    source = place_of(samples)
    if source.is_file() and output.suffix.lower() != source.suffix.lower():
        raise InputError(
            f"the cleaned dataset keeps its format: give {str(output)!r} the suffix {source.suffix!r}."
        )
    check_apart({"the cleaned dataset": output}, {"the dataset": source})
    check_new(output)


def _write_tables(tables: list[Path], staging: Path, changes: Changes, options: SourceOptions) -> None:
    from lsi.data.readers.table_files import open_table_file

    column, first = label_column(tables, options) if changes.labels else None, 0
    for path in tables:
        stop = first + open_table_file(path).n_rows
        labels = {row - first: label for row, label in changes.labels.items() if first <= row < stop}
        write_table_file(path, staging / path.name, column, changes.keep[first:stop], labels)
        first = stop
