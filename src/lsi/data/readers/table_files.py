"""Table files (Parquet, Arrow, CSV, JSON Lines), read in batches of rows and never as a whole."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa

from lsi.errors import InputError
from lsi.system.door import LIMITS, charge, open_regular, require_regular
from lsi.system.pages import Chunk, arrow_batches, parquet_batches, parquet_chunks

_HEADER = 1 << 24
ROWS = 256
"""Rows in a batch: a few megabytes of images."""


class TableFile(ABC):
    """One file of a table.

    Attributes:
        path: The file.
        schema: Names and types of its columns.
        n_rows: Number of rows.
        n_bytes: Size of the file; None where that is not known.
        mixed: Columns that were found to hold texts and numbers; they are read as texts.
    """

    path: Path
    schema: pa.Schema
    n_rows: int
    n_bytes: int | None = None
    mixed: Set[str] = frozenset()

    @abstractmethod
    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield `(first row, batch)` of these columns in order; what ends before `start` may be left out."""


class ParquetFile(TableFile):
    """A Parquet file: row groups before `start` are not read."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        # Through a buffer, or else whole columns of a row group are read at once.
        self._file = pq.ParquetFile(pa.OSFile(os.fsencode(path)), pre_buffer=False, buffer_size=1 << 20)
        self._chunks: list[list[Chunk]] | None = None
        self.schema = self._file.schema_arrow
        self.n_rows = self._file.metadata.num_rows

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of rows in order."""
        with open_regular(self.path) as content:
            if self._chunks is None:
                self._chunks = parquet_chunks(content)
            what = str(self.path)
            yield from parquet_batches(self._file, self._chunks, content, what, columns, ROWS, start)


class ArrowFile(TableFile):
    """An Arrow file in the file or the stream format, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = pa.memory_map(os.fsencode(path)).read_buffer()
        stated = None
        if self._content[:6].to_pybytes() == b"ARROW1":  # a file is a stream between a mark and a footer
            stated = pa.ipc.open_file(pa.BufferReader(self._content)).num_record_batches
            self._content = self._content[8:]
        for size in arrow_batches(self._content):
            charge(size, f"{path}: a batch of it", "page")
        with self._open() as reader:
            self.schema = reader.schema
        sizes = [len(batch) for batch in self._all()]
        if stated not in (None, len(sizes)):
            raise InputError(f"{path} does not hold the batches that it states. Write it again.")
        self.n_rows = sum(sizes)

    def _open(self) -> Any:
        return pa.ipc.open_stream(pa.BufferReader(self._content))

    def _all(self) -> Iterator[pa.RecordBatch]:
        with self._open() as reader:
            yield from reader

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of rows in order."""
        row = 0
        for batch in self._all():
            for offset in range(0, len(batch), ROWS):
                part = batch.slice(offset, ROWS)
                if row + len(part) > start:
                    yield row, part.select(columns)
                row += len(part)


class CsvFile(TableFile):
    """A CSV file with a header; in .tsv files, cells are separated by tabs.

    Column types are those that the first rows suggest; a column with a later row that does not fit is text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._separator = separator(path)
        self._as_text: set[str] = set()
        with open_regular(path) as file:  # Arrow takes 30 µs a column before it tells how many there are
            if file.readline(_HEADER).count(self._separator.encode()) >= LIMITS["columns"].value:
                raise InputError(_TOO_WIDE.format(path=path))
        with self._open(None) as reader:
            self.schema = reader.schema
        self.n_rows = self._count()

    def _open(self, columns: list[str] | None) -> Any:
        import pyarrow.csv as csv

        types = {name: pa.string() for name in self._as_text}
        return csv.open_csv(
            pa.OSFile(os.fsencode(self.path)),
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=types, strings_can_be_null=True
            ),
        )

    def _count(self) -> int:
        """Count the rows; read the file again as text for every column with a row that does not fit."""
        while True:
            try:
                return sum(len(batch) for batch in self._open(None))
            except pa.ArrowInvalid as error:
                misled = re.match(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error", str(error))
                name = self.schema.names[int(misled[1])] if misled else None
                if name is None or name in self._as_text:
                    raise
                self._as_text.add(name)
                with self._open(None) as reader:
                    self.schema = reader.schema

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of rows in order."""
        row = 0
        for batch in self._open(columns):
            for offset in range(0, len(batch), ROWS):
                part = batch.slice(offset, ROWS)
                if row + len(part) > start:
                    yield row, part
                row += len(part)


class JsonLinesFile(TableFile):
    """A file with one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self.mixed: set[str] = set()
        names: dict[str, pa.Field] = {}
        for record in self._records():
            self.n_rows += 1
            if len(names) > LIMITS["columns"].value:
                raise InputError(_TOO_WIDE.format(path=self.path))
            unseen = [name for name in record if name not in names or pa.types.is_null(names[name].type)]
            for name in unseen:
                names[name] = pa.field(name, self._array([record[name]], name).type)
        self.schema = pa.schema(list(names.values()))

    def _records(self) -> Iterator[dict[str, Any]]:
        longest = LIMITS["text"].bytes()
        with io.TextIOWrapper(open_regular(self.path), encoding="utf-8-sig") as file:
            for number in itertools.count(1):
                line = file.readline(longest + 1)
                if not line:
                    return
                charge(len(line), f"{self.path}, line {number}", "text")
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{self.path}, line {number}: not JSON ({error}).") from error
                if not isinstance(record, dict):
                    raise InputError(f"{self.path}, line {number}: expected one JSON object on each line.")
                yield record

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of rows in order."""
        rows: list[dict[str, Any]] = []
        first = 0
        for number, record in enumerate(self._records()):
            if number < start:
                first = number + 1
                continue
            rows.append({name: record.get(name) for name in columns})
            if len(rows) == ROWS:
                yield first, self._batch(rows, columns)
                first, rows = first + len(rows), []
        if rows:
            yield first, self._batch(rows, columns)

    def _batch(self, rows: list[dict[str, Any]], columns: list[str]) -> pa.RecordBatch:
        arrays = [self._array([row[name] for row in rows], name) for name in columns]
        return pa.RecordBatch.from_arrays(arrays, names=columns)

    def _array(self, values: list[Any], name: str) -> pa.Array:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            if all(value is None or isinstance(value, str | int | float) for value in values):
                self.mixed.add(name)
                values = texts_of(values)
            try:
                return pa.array(values)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                raise InputError(
                    f"{self.path}: the column {name!r} mixes types ({error}). Use one type in each column."
                ) from error


def texts_of(values: Sequence[Any]) -> list[str | None]:
    """Return texts as they are, and numbers as JSON writes them."""
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


def is_mixed(values: Sequence[Any]) -> bool:
    """Return whether there are texts and other things among values."""
    texts = {isinstance(value, str) for value in values if value is not None}
    return len(texts) > 1


def separator(path: Path) -> str:
    """Return what separates the cells of a file of lines."""
    return "\t" if path.suffix.lower() == ".tsv" else ","


FORMATS: dict[str, Callable[[Path], TableFile]] = {
    ".parquet": ParquetFile,
    ".arrow": ArrowFile,
    ".feather": ArrowFile,
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
}
"""What reads a table, by the file's suffix."""


def open_table_file(path: Path) -> TableFile:
    """Open a table file by its suffix."""
    require_regular(path)
    try:
        file = FORMATS[path.suffix.lower()](path)
        file.n_bytes = path.stat().st_size
        _check_names(file)
        return file
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = path.suffix.lower().lstrip(".")
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable {kind} file ({reason}). Write it again.") from error


_TOO_WIDE = (
    "{path} has more than " + f"{LIMITS['columns'].value:,} columns. Keep numbers in a column of lists."
)


def _check_width(file: TableFile) -> None:
    if len(file.schema) > LIMITS["columns"].value:
        raise InputError(_TOO_WIDE.format(path=file.path))


def _check_names(file: TableFile) -> None:
    _check_width(file)
    if file.n_rows < 0:
        raise InputError(f"{file.path} is damaged: it states {file.n_rows:,} rows. Write it again.")
    names = file.schema.names  # raises where a name is not UTF-8
    inner = [field.type for field in file.schema]
    while inner:
        kind = inner.pop()
        fields = [kind.field(k) for k in range(kind.num_fields)]
        inner += [field.type for field in fields if field.name is not None]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        shown = ", ".join(map(repr, twice[:5]))
        raise InputError(f"{file.path} has two columns of the same name: {shown}. Rename one of them.")
