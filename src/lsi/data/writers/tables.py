"""Cleaned tables (Parquet, Arrow, CSV, JSON Lines), written batch by batch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from lsi.data.readers.table_files import separator
from lsi.errors import InputError
from lsi.system.door import open_regular


def write_table_file(
    source: Path, target: Path, column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> None:
    """Write the rows of a table file that are kept `(n_rows,)`, in the file's own format."""
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        _write_csv(source, target, column, keep, labels)
    elif suffix in (".jsonl", ".ndjson"):
        _write_json_lines(source, target, column, keep, labels)
    elif suffix == ".parquet":
        _write_parquet(source, target, column, keep, labels)
    else:
        _write_arrow(source, target, column, keep, labels)


def _changed_batches(
    batches: Iterator[pa.RecordBatch], column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in batches:
        _check_batch(batch)
        stop = first + len(batch)
        inside = {row - first: label for row, label in labels.items() if first <= row < stop}
        if inside and column is not None:
            batch = _relabelled(batch, column, inside)
        yield batch.filter(pa.array(keep[first:stop]))
        first = stop


def _check_batch(batch: pa.RecordBatch) -> None:
    """Raise if a batch is damaged: its lengths and offsets may point anywhere in memory."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"the dataset is damaged: {error}. Write it again.") from error


def _relabelled(batch: pa.RecordBatch, column: str, labels: Mapping[int, Any]) -> pa.RecordBatch:
    place = batch.schema.get_field_index(column)
    field = batch.schema.field(place)
    values = batch.column(place).to_pylist()
    for row, label in labels.items():
        values[row] = label
    try:
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.array(values, type=plain)
        array = array.dictionary_encode().cast(field.type) if plain != field.type else array
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"a new label does not fit the column {column!r} of {field.type}: {error}"
        ) from error
    return batch.set_column(place, field, array)


def _write_parquet(
    source: Path, target: Path, column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> None:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source, pre_buffer=False)
    with pq.ParquetWriter(target, file.schema_arrow, compression=parquet_codec(file.metadata)) as writer:
        batches = file.iter_batches(4096, use_threads=False)
        for batch in _changed_batches(batches, column, keep, labels):
            if len(batch):
                writer.write_batch(batch)


def parquet_codec(metadata: Any) -> str:
    """Return the compression of a Parquet file."""
    codec = metadata.row_group(0).column(0).compression if metadata.num_row_groups else "SNAPPY"
    return "none" if codec == "UNCOMPRESSED" else str(codec.lower())


def _write_arrow(
    source: Path, target: Path, column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> None:
    with pa.memory_map(str(source)) as content:
        try:
            reader: Any = pa.ipc.open_file(content)
            batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
            make = pa.ipc.new_file
        except pa.ArrowInvalid:
            content.seek(0)
            reader = pa.ipc.open_stream(content)
            batches, make = iter(reader), pa.ipc.new_stream
        with pa.OSFile(str(target), "wb") as file, make(file, reader.schema) as writer:
            for batch in _changed_batches(batches, column, keep, labels):
                writer.write_batch(batch)


def _write_csv(
    source: Path, target: Path, column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> None:
    """Copy rows cell by cell, so that cells that do not change keep their exact text."""
    csv.field_size_limit(1 << 30)
    with open_rows(source) as given, target.open("x", encoding="utf-8", newline="") as file:
        cells = separator(source)
        rows = (row for row in csv.reader(given, delimiter=cells) if row)  # empty lines are no rows
        write = csv_writers(file, line_ending(source), cells)
        header = next(rows)
        place = None if column is None else header.index(column)
        write(header)
        count = -1
        for count, row in enumerate(rows):
            if count >= len(keep):
                break
            if keep[count]:
                if place is not None and count in labels:
                    row[place] = str(labels[count])
                write(row)
    _check_rows(source, count + 1, len(keep))


def open_rows(path: Path, newline: str | None = "") -> TextIO:
    """Open a file of lines; by default with the ends that they have, as the reader of CSV wants them."""
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline=newline)


def line_ending(path: Path) -> str:
    """Return how the lines of a CSV end."""
    with open_regular(path) as file:
        return "\r\n" if b"\r\n" in file.read(1 << 16) else "\n"


def csv_writers(file: TextIO, ending: str, cells: str) -> Callable[[list[str]], Any]:
    """Return what writes a row, with `cells` between them, so that reading gives the same cells."""
    writer = csv.writer(file, delimiter=cells, lineterminator=ending)
    # Where lines end without a carriage return, the writer does not quote one, and it would end a row.
    quoting = csv.writer(file, delimiter=cells, lineterminator=ending, quoting=csv.QUOTE_ALL)
    return lambda row: (quoting if any("\r" in cell for cell in row) else writer).writerow(row)


def _write_json_lines(
    source: Path, target: Path, column: str | None, keep: np.ndarray, labels: Mapping[int, Any]
) -> None:
    with (
        open_rows(source, None) as given,
        target.open("x", encoding="utf-8") as file,
    ):
        count = -1
        for count, line in enumerate(line for line in given if line.strip()):
            if count >= len(keep):
                break
            if not keep[count]:
                continue
            if column is not None and count in labels:
                line = json.dumps({**json.loads(line), column: labels[count]}, ensure_ascii=False)
            file.write(line.rstrip("\r\n") + "\n")
    _check_rows(source, count + 1, len(keep))


def _check_rows(source: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(
            f"{source} has {found:,} rows, but {expected:,} were read before: either it is changing, or its "
            "quotes are broken. Write it again, for example as Parquet."
        )
