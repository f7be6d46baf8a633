"""Files that together are one table, read in batches of rows; columns of items, read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lsi.data.items import Items, Payload
from lsi.data.readers.table_files import TableFile, is_mixed, texts_of
from lsi.errors import InputError, nearest
from lsi.system.door import charge
from lsi.system.pages import decoded_size

_CELL = 8
"""Bytes that each cell of a column takes at least: missing ones, too, once the column is an array."""
_ROW = 32
"""Bytes that each row of a table takes at least: id, label and position, and a reference to text."""


class Table:
    """Files with the same columns that make up one table, one after another.

    Relative paths in the table start from the folder `root`; `name` is what messages call the table.
    """

    def __init__(self, files: Sequence[TableFile], root: Path, name: str) -> None:
        self.files = files
        self.root = root
        self.name = name
        self.schema = files[0].schema
        self.n_rows = sum(file.n_rows for file in files)
        sizes = [file.n_bytes for file in files]
        self.n_bytes = None if None in sizes else sum(filter(None, sizes))
        charge(self.n_rows * _ROW, f"{name}: {self.n_rows:,} rows", stored=self.n_bytes)

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield `(first row, batch)` in order, beginning with the batch that holds row `start`."""
        offset = 0
        for file in self.files:
            if offset + file.n_rows > start:
                for row, batch in self._of(file, columns, max(start - offset, 0)):
                    yield offset + row, batch
            offset += file.n_rows

    def _of(self, file: TableFile, columns: list[str], start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        end = min(start, file.n_rows)
        try:
            for row, batch in file.batches(columns, start):
                # Lengths and offsets in a damaged file may point anywhere in this process's memory.
                batch.validate(full=True)
                end = row + len(batch)
                if end > file.n_rows:
                    break
                yield row, batch
        except InputError:
            raise
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            raise InputError(f"{file.path} cannot be read: {str(error).partition(chr(10))[0]}") from error
        if end != file.n_rows:
            raise InputError(
                f"{file.path} does not hold the {file.n_rows:,} rows that it states. Write it again."
            )

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column, for labels and ids."""
        chunks = [
            chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
            for chunk in self._chunks([name])[name]
        ]
        values: list[Any] = []
        if len({chunk.type for chunk in chunks}) > 1:  # JSON Lines: types are found batch by batch
            values = [value for chunk in chunks for value in chunk.to_pylist()]
        if is_mixed(values) or any(name in file.mixed for file in self.files):
            raise InputError(
                f"{self.name}: {name!r} mixes texts and numbers. Use one type for labels, and for ids."
            )
        if values:
            return pa.chunked_array([pa.array(values)])
        return pa.chunked_array(chunks) if chunks else pa.chunked_array([], type=pa.null())

    def series(self, names: list[str]) -> dict[str, pd.Series]:
        """Return whole columns as pandas holds them, in one pass over the files."""
        return {name: _series(chunks) for name, chunks in self._chunks(names).items()}

    def _chunks(self, names: list[str]) -> dict[str, list[pa.Array]]:
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        what = f"the column {names[0]!r}" if len(names) == 1 else f"{len(names):,} columns"
        taken = 0
        for _, batch in self.batches(names):
            for name in names:
                chunk = batch.column(name)
                taken += max(decoded_size(chunk), _CELL * len(chunk))
                chunks[name].append(chunk)
            charge(taken, f"{self.name}: {what}", stored=self.n_bytes)
        return chunks

    def require(self, name: str, flag: str) -> str:
        """Return `name` if it is a column; else raise an error that names the nearest ones."""
        if name in self.schema.names:
            return name
        raise InputError(f"{self.name} has no column {name!r} ({flag}). {nearest(name, self.schema.names)}")


class TableItems(Items):
    """A column of images, texts or recordings: text, bytes, paths, or ``{bytes, path}``."""

    def __init__(self, kind: str, table: Table, column: str) -> None:
        self.kind = kind
        self._table = table
        self._column = column

    def __len__(self) -> int:
        return self._table.n_rows

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`."""
        positions = np.asarray(positions, dtype=np.int64)
        while len(positions):
            reached = int(positions[0])
            for first, batch in self._table.batches([self._column], reached):
                inside = int(np.searchsorted(positions, first + len(batch)))
                values = batch.column(0)
                for position in positions[:inside]:
                    yield self._payload(values[int(position) - first].as_py())
                positions = positions[inside:]
                # A position far ahead is reached faster by starting anew: row groups in between are not read.
                if not len(positions) or positions[0] - first > 64 * len(batch):
                    break
            else:
                break

    def _payload(self, value: Any) -> Payload:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and self.kind != "text":
            return self._table.root / value
        return value

    def describe(self, position: int) -> str:
        """Return for example ``row 7 of train.parquet``."""
        return f"row {position} of {self._table.name}"


def _series(chunks: list[pa.Array]) -> pd.Series:
    """Return the values of a column. Times lose their zone and stay the same instants, in UTC."""
    kinds = {chunk.type for chunk in chunks}
    if len(kinds) > 1:
        values = [value for chunk in chunks for value in chunk.to_pylist()]
        return pd.Series(texts_of(values) if is_mixed(values) else values, dtype=object)
    kind, column = kinds.pop(), pa.chunked_array(chunks)
    if pa.types.is_dictionary(kind):
        return pd.Series(
            pa.chunked_array([c.dictionary_decode() for c in chunks]).to_pandas(), dtype="category"
        )
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))
    found: pd.Series = column.to_pandas(date_as_object=False)
    return found
