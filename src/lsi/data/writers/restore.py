"""A dataset put together again from what was left of it and the rows that changed, as they were before.

Both parts come in the order of the original rows. For row i of the original, `changed[i]` says from which
part it comes.
"""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lsi.data.readers.table_files import FORMATS, open_table_file, separator
from lsi.data.writers.arrays import save_npz
from lsi.data.writers.tables import csv_writers, line_ending, open_rows, parquet_codec
from lsi.errors import InputError
from lsi.system.door import files_below, read_text
from lsi.system.npy import load_npy, npz_names, open_safetensors, read_npz

_ROWS = 4096


def restore_file(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    """Write the original rows; keep, changed: `(N,)` bool, what `left` has and what `before` has."""
    suffix = left.suffix.lower()
    if suffix in FORMATS:
        _TABLES[suffix](left, before, target, keep, changed)
    else:
        _ARRAYS[suffix](left, before, target, keep, changed)


def joined(left: Any, before: Any, keep: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Return the original rows of an array, in the type that they had."""
    out = np.empty((len(keep), *before.shape[1:]), dtype=before.dtype)
    out[changed] = before
    out[~changed] = left[~changed[keep]]
    return out


def _join_npz(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    one, other = (read_npz(path, npz_names(path)) for path in (left, before))
    save_npz(target, {name: _array(one[name], other[name], keep, changed) for name in one})


def _array(left: np.ndarray, before: np.ndarray, keep: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Return an array as it was; both files hold those that have no row for each sample in full."""
    rows = left.ndim and before.ndim and (len(left), len(before)) == (int(keep.sum()), int(changed.sum()))
    return joined(left, before, keep, changed) if rows else before


def _join_safetensors(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    import torch
    from safetensors.torch import save_file

    parts = {}
    with open_safetensors(left) as one, open_safetensors(before) as other:
        metadata = other.metadata()
        for name in one.keys():  # noqa: SIM118 - not a mapping
            first, second = one.get_tensor(name), other.get_tensor(name)
            rows = first.ndim and (len(first), len(second)) == (int(keep.sum()), int(changed.sum()))
            if not rows:
                parts[name] = second
                continue
            out = torch.empty((len(keep), *second.shape[1:]), dtype=second.dtype)
            out[torch.from_numpy(changed)] = second
            out[torch.from_numpy(~changed)] = first[torch.from_numpy(~changed[keep])]
            parts[name] = out
    save_file(parts, target, metadata)


def _join_npy(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    with target.open("wb") as file:
        np.save(file, joined(load_npy(left), load_npy(before), keep, changed))


def join_labels(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    """Write the original labels of a .npy of features."""
    if left.suffix.lower() == ".npy":
        _join_npy(left, before, target, keep, changed)
        return
    texts = (read_text(path).splitlines() for path in (left, before))
    one, other = (np.array(lines, dtype=object) for lines in texts)
    lines = joined(one, other, keep, changed).tolist()
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _chosen(one: Iterator[Any], other: Iterator[Any], keep: np.ndarray, changed: np.ndarray) -> Iterator[Any]:
    """Yield the original rows of two parts, each of which may have the same row."""
    for stays, was in zip(keep.tolist(), changed.tolist(), strict=True):
        now = next(one, None) if stays else None
        found = next(other, None) if was else now
        if found is None:
            raise InputError(
                "the cleaned dataset has fewer rows than its receipt says. Give the one it is for."
            )
        yield found


def _join_csv(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    with (
        open_rows(left) as one,
        open_rows(before) as other,
        target.open("x", encoding="utf-8", newline="") as out,
    ):
        cells = separator(before)
        write = csv_writers(out, line_ending(before), cells)
        csv.field_size_limit(1 << 30)
        first, second = ((row for row in csv.reader(file, delimiter=cells) if row) for file in (one, other))
        write(next(first))
        next(second)
        for row in _chosen(first, second, keep, changed):
            write(row)


def _join_lines(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    with (
        open_rows(left, None) as one,
        open_rows(before, None) as other,
        target.open("x", encoding="utf-8") as out,
    ):
        out.writelines(_chosen(iter(one), iter(other), keep, changed))


class _Rows:
    """Rows of a table file, taken in order."""

    def __init__(self, path: Path) -> None:
        file = open_table_file(path)
        self.schema = file.schema
        self._batches = (batch for _, batch in file.batches(list(file.schema.names)))
        self._held: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.Table:
        """Return the next rows."""
        taken: list[pa.RecordBatch] = []
        while count:
            batch = self._held.pop() if self._held else next(self._batches, None)
            if batch is None:
                raise InputError("the cleaned dataset has fewer rows than its receipt says.")
            taken.append(batch.slice(0, count))
            if len(batch) > count:
                self._held.append(batch.slice(count))
            count -= len(taken[-1])
        return pa.Table.from_batches(taken, self.schema)


def _tables(left: Path, before: Path, keep: np.ndarray, changed: np.ndarray) -> Iterator[pa.Table]:
    """Yield the original rows, `_ROWS` at a time."""
    one, other = _Rows(left), _Rows(before)
    for start in range(0, len(keep), _ROWS):
        stays, was = keep[start : start + _ROWS], changed[start : start + _ROWS]
        first, second = one.take(int(stays.sum())), other.take(int(was.sum()))
        place = np.where(was, len(first) + np.cumsum(was) - 1, np.cumsum(stays) - 1)
        yield pa.concat_tables([first, second.cast(first.schema)]).unify_dictionaries().take(pa.array(place))


def _join_parquet(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(left)
    with pq.ParquetWriter(target, file.schema_arrow, compression=parquet_codec(file.metadata)) as writer:
        for table in _tables(left, before, keep, changed):
            writer.write_table(table)


def _join_arrow(left: Path, before: Path, target: Path, keep: np.ndarray, changed: np.ndarray) -> None:
    with pa.memory_map(str(left)) as content:
        is_file = content.read(6) == b"ARROW1"
    make = pa.ipc.new_file if is_file else pa.ipc.new_stream
    tables = _tables(left, before, keep, changed)
    first = next(tables)
    with pa.OSFile(str(target), "wb") as file, make(file, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def restore_tables(
    left: Path,
    before: Path,
    target: Path,
    sizes: Sequence[tuple[str, int]],
    keep: np.ndarray,
    changed: np.ndarray,
) -> None:
    """Write a folder of tables; `sizes` has the name and the number of rows of each."""
    first = 0
    for name, count in sizes:
        part = slice(first, first + count)
        restore_file(left / name, before / name, target / name, keep[part], changed[part])
        first += count


def restore_images(left: Path, before: Path, target: Path, moved: Sequence[str]) -> None:
    """Write a folder of images; those `moved` to another class are in `before` under their old names."""
    for _ in itertools.chain(files_below(left), files_below(before)):
        pass  # plain files alone, and no links that lead out: they may come from anyone
    shutil.copytree(left, target, dirs_exist_ok=True)
    for name in moved:
        (target / name).unlink(missing_ok=True)
    if before.is_dir():
        shutil.copytree(before, target, dirs_exist_ok=True)
    for folder in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


_Join = Callable[[Path, Path, Path, np.ndarray, np.ndarray], None]
_ARRAYS: dict[str, _Join] = {".npz": _join_npz, ".npy": _join_npy, ".safetensors": _join_safetensors}
_TABLES: dict[str, _Join] = dict.fromkeys(FORMATS, _join_arrow) | {
    ".csv": _join_csv,
    ".tsv": _join_csv,
    ".jsonl": _join_lines,
    ".ndjson": _join_lines,
    ".parquet": _join_parquet,
}
