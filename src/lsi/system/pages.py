"""What Parquet and Arrow files unpack to, read from the headers in front of what is compressed.

The footer of a Parquet file states sizes too, but a reader obeys the header of each page, and so does this
module: it reads no more than the headers. Formats: Parquet's ``PageHeader`` in Thrift's compact protocol, and
Arrow's ``Message`` as a flatbuffer.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lsi.system.door import LIMITS, charge, has_grown

_HEADER = 1 << 14  # bytes of a page header; statistics inside hold two values of the column
_LONGEST_HEADER = 16 << 20  # the bound of Arrow's own reader
_DELTA_BYTE_ARRAY = 7
_SCHEMA, _DICTIONARY_BATCH, _RECORD_BATCH = 1, 2, 3


_PER_CHARACTER = 4  # in numpy's arrays of text


@dataclass(frozen=True)
class Chunk:
    """Where the pages of one column in one row group are, as the footer says.

    Attributes:
        path: Names from the column of the table down to what is stored.
        start: Place of the first page.
        packed: Bytes of all pages as they are in the file.
    """

    path: tuple[str, ...]
    start: int
    packed: int


def parquet_chunks(content: BinaryIO) -> list[list[Chunk]]:
    """Return the chunks of each row group.

    They are read here, since asking pyarrow for a chunk whose description is damaged ends the interpreter.
    """
    end = content.seek(0, io.SEEK_END)
    content.seek(max(0, end - 8))
    size = int.from_bytes(content.read(4), "little")
    if size > end - 8:
        raise OSError("the footer is damaged")
    charge(size, "the footer", "text")
    content.seek(end - 8 - size)
    try:
        footer = _struct(content.read(size), 0, 0)[0]
        return [[_chunk(chunk[3]) for chunk in group[1]] for group in footer[4]]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise OSError("the footer is damaged") from error


def _chunk(described: dict[int, Any]) -> Chunk:
    places = [described[9], *([described[11]] if described.get(11) else [])]
    path = tuple(bytes(name).decode("utf-8", "replace") for name in described[3])
    return Chunk(path, _whole(min(places)), _whole(described[7]))


def parquet_batches(
    file: pq.ParquetFile,
    chunks: list[list[Chunk]],
    content: BinaryIO,
    what: str,
    columns: list[str],
    most_rows: int,
    start: int = 0,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield `(first row, batch)` in order; row groups before `start` are not read.

    Batches have as many rows as are sure to fit (`LIMITS`), and at most `most_rows`. `content` is the same
    file, for its pages' headers; `chunks` are what its footer says.
    """
    row = 0
    if len(chunks) != file.metadata.num_row_groups:
        raise OSError("the footer is damaged")
    nested = {
        file.schema.column(place).path: file.schema.column(place).max_repetition_level > 0
        for place in range(len(file.schema))
    }
    for group, described in enumerate(chunks):
        count = file.metadata.row_group(group).num_rows
        if row + count > start:
            rows = most_rows
            for chunk in described:
                if chunk.path[0] in columns:
                    lists = nested.get(".".join(chunk.path), True)
                    rows = min(rows, _rows_at_once(chunk, content, what, count, lists))
            at = row
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                yield at, batch
                at += len(batch)
            if at != row + count:
                return  # the caller counts
        row += count


def _rows_at_once(chunk: Chunk, content: BinaryIO, what: str, count: int, nested: bool) -> int:
    """Return how many rows of a chunk to decode at a time; refuse one that is a bomb."""
    pages = parquet_pages(content, chunk.start, chunk.packed)
    called = f"{what}: the column {'.'.join(chunk.path)!r}"
    charge(pages.largest, f"{called}: a page of it", "page")
    if has_grown(pages.whole, chunk.packed):
        charge(pages.whole, called, "grown")
    if nested:  # a single row may have all of the values
        charge(8 * pages.values, called, stored=chunk.packed)
    row = pages.whole // max(count, 1) + pages.repeated
    return max(1, LIMITS["batch"].bytes() // max(row, 1))


def read_parquet(
    content: bytes, what: str, columns: list[str] | None = None, *, missing: bool = False
) -> pa.Table:
    """Return a Parquet file as a table that is checked in full, without more memory than is allowed.

    With `missing`, columns that are not there are left out.
    """
    file = pq.ParquetFile(io.BytesIO(content))
    there = file.schema_arrow.names
    names = there if columns is None else [name for name in columns if name in there or not missing]
    if gone := [name for name in names if name not in there]:
        raise ValueError(f"it has no column {gone[0]!r}")
    rows = file.metadata.num_rows
    taken = 8 * rows * max(len(names), 1)
    charge(taken, f"{what}: {rows:,} rows", stored=len(content))
    parts = []
    raw = io.BytesIO(content)
    for _, batch in parquet_batches(file, parquet_chunks(raw), raw, what, names, 1 << 16):
        batch.validate(full=True)
        taken += sum(decoded_size(column) for column in batch.columns)
        charge(taken, what, stored=len(content))
        parts.append(batch)
    return pa.Table.from_batches(parts) if parts else file.schema_arrow.empty_table().select(names)


def decoded_size(column: pa.Array) -> int:
    """Return what the values of a column take when they are written out."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return len(column) * 8
        lengths = pc.binary_length(column.dictionary).take(column.indices)
    elif _is_text(kind):
        lengths = pc.binary_length(column)
    else:
        return int(column.nbytes)
    return _PER_CHARACTER * (pc.sum(lengths).as_py() or 0) + 8 * len(column)


def _is_text(kind: pa.DataType) -> bool:
    plain, large = pa.types.is_string(kind) or pa.types.is_binary(kind), pa.types.is_large_string(kind)
    return bool(plain or large or pa.types.is_large_binary(kind))


@dataclass
class Pages:
    """Sums over the pages of one column in one row group.

    Attributes:
        whole: Bytes of all pages, unpacked.
        largest: Bytes of the largest page.
        repeated: Bytes that each value may have, although they are held once: in a dictionary, or as prefix.
        values: Number of values.
    """

    whole: int = 0
    largest: int = 0
    repeated: int = 0
    values: int = 0


def parquet_pages(file: BinaryIO, start: int, length: int) -> Pages:
    """Return what the pages in so many bytes of a Parquet file unpack to."""
    found, place, end = Pages(), start, start + length
    while place < end:
        header, taken = _page_header(file, place)
        size, packed = _whole(header.get(2)), _whole(header.get(3))
        data = header.get(5) or header.get(8) or {}
        if not isinstance(data, dict):
            raise OSError("a page header is damaged")
        found.whole += size
        found.largest = max(found.largest, size)
        found.values += _whole(data.get(1, 0))
        encoding = data.get(2) if 5 in header else data.get(4)
        if 7 in header or encoding == _DELTA_BYTE_ARRAY:
            found.repeated = max(found.repeated, size)
        place += taken + packed
    return found


def _whole(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise OSError("a page header is damaged")
    return value


def _page_header(file: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    size = _HEADER
    while True:
        file.seek(place)
        content = file.read(size)
        try:
            return _struct(content, 0, 0)
        except IndexError as error:
            if len(content) < size or size >= _LONGEST_HEADER:
                raise OSError("a page header is damaged") from error
            size *= 16


def _struct(content: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a Thrift struct by number, and where it ends."""
    if depth > 8:
        raise OSError("a page header is damaged")
    fields: dict[int, Any] = {}
    number = 0
    while kind := content[at]:
        at += 1
        step, kind = kind >> 4, kind & 15
        if step:
            number += step
        else:
            zigzag, at = _varint(content, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        fields[number], at = _value(content, at, kind, depth)
    return fields, at + 1


def _value(content: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        content[at]
        return None, at + 1
    if kind in (4, 5, 6):
        zigzag, at = _varint(content, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if kind == 7:
        return None, at + 8
    if kind == 8:
        size, at = _varint(content, at)
        if at + size > len(content):
            raise IndexError(size)
        return content[at : at + size], at + size
    if kind in (9, 10):
        count, inner = content[at] >> 4, content[at] & 15
        at += 1
        if count == 15:
            count, at = _varint(content, at)
        values = []
        for _ in range(count):
            value, at = _value(content, at, inner, depth + 1) if inner not in (1, 2) else (None, at + 1)
            if at > len(content):
                raise IndexError(at)
            values.append(value)
        return values, at
    if kind == 12:
        return _struct(content, at, depth + 1)
    raise OSError("a page header is damaged")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise OSError("a page header is damaged")


def arrow_batches(content: pa.Buffer) -> Iterator[int]:
    """Yield what each batch of an Arrow stream takes beside the file: 0 where it is not compressed."""
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(content))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        try:
            yield _unpacked(memoryview(message.metadata), message.body)
        except (struct.error, IndexError, TypeError) as error:
            raise OSError("a message is damaged") from error


def _unpacked(metadata: memoryview, body: pa.Buffer | None) -> int:
    root = struct.unpack_from("<I", metadata, 0)[0]
    kind = struct.unpack_from("<B", metadata, _field(metadata, root, 1) or _none())[0]
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or body is None:
        return 0
    batch = _table(metadata, _field(metadata, root, 2))
    if kind == _DICTIONARY_BATCH:
        batch = _table(metadata, _field(metadata, batch, 1))
    if not _field(metadata, batch, 3):  # no compression
        return 0
    vector = _table(metadata, _field(metadata, batch, 2))
    count, content, total = struct.unpack_from("<I", metadata, vector)[0], memoryview(body), 0
    for place in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * place)
        if length >= 8 and 0 <= offset <= len(content) - 8:
            total += max(0, struct.unpack_from("<q", content, offset)[0])
    return total


def _field(buffer: memoryview, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table is; 0 where it has its default."""
    layout = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, layout)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, layout + place)[0] if place + 2 <= size else 0
    return table + offset if offset else 0


def _table(buffer: memoryview, place: int) -> int:
    return place + int(struct.unpack_from("<I", buffer, place or _none())[0])


def _none() -> int:
    raise IndexError("a field is missing")
