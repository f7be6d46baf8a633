"""Tables → samples: labels and ids are read at once; images, texts and recordings when they are needed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lsi.data.decode import ItemImages
from lsi.data.items import Items, Payload
from lsi.data.options import SourceOptions
from lsi.data.readers.table_files import FORMATS, TableFile, open_table_file
from lsi.data.samples import Samples, row_texts, text_array
from lsi.errors import InputError, nearest
from lsi.system.door import charge, has_grown, inside
from lsi.system.files import check_space
from lsi.system.pages import decoded_size

LABEL_NAMES = ("label", "labels", "y", "target", "class", "category", "fine_label")
"""Columns that are taken for the label where none is named; the first one present wins."""
_GUESSED = {"image": ("image", "img", "picture"), "text": ("text", "sentence"), "audio": ("audio",)}
_ROW = 32
"""Bytes that each row of a table takes at least: id, label and position, and a reference to text."""
IN_MEMORY = 1 << 30
"""Bytes of features up to which they are held in memory; larger ones go to a temporary file."""


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
        chunks, taken = [], 0
        for _, batch in self.batches([name]):
            chunk = batch.column(0)
            taken += decoded_size(chunk)
            charge(taken, f"{self.name}: the column {name!r}", stored=self.n_bytes)
            chunks.append(chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk)
        if len({chunk.type for chunk in chunks}) > 1:  # JSON Lines: types are found batch by batch
            return pa.chunked_array([pa.array([v for chunk in chunks for v in chunk.to_pylist()])])
        return pa.chunked_array(chunks) if chunks else pa.chunked_array([], type=pa.null())

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


def read_table(path: Path, options: SourceOptions, in_memory: int = IN_MEMORY) -> Samples:
    """Read a table file, or a folder of table files that together are one table."""
    if path.is_dir():
        paths = table_paths(path)
        table = Table([open_table_file(entry) for entry in paths], path, path.resolve().name)
        if any(set(file.schema.names) != set(table.schema.names) for file in table.files):
            raise InputError(f"the files in {path} have different columns. Keep one table in a folder.")
    else:
        table = Table([open_table_file(path)], path.parent, path.name)
    source = {"kind": "file", "name": path.resolve().name, "path": str(path.absolute())}
    return samples_of(table, options, {**source, "options": options.describe()}, in_memory)


def table_paths(folder: Path) -> list[Path]:
    """Return the tables in a folder, none of which may be a link out of it."""
    return sorted(inside(entry, folder) for entry in folder.iterdir() if entry.suffix.lower() in FORMATS)


def samples_of(
    table: Table, options: SourceOptions, source: dict[str, Any], in_memory: int = IN_MEMORY
) -> Samples:
    """Return the samples that a table holds."""
    if not table.n_rows:
        raise InputError(f"{table.name} has no rows.")
    several = _label_columns(table, options)
    label = several[0] if several else _label_column(table, options)
    if label is None and not options.unlabelled:
        raise _no_label(table)
    clean = _named(table, options.clean_label_column, "--clean-label-column", options)
    id_column = _named(table, options.id_column, "--id-column", options)
    ids = np.arange(table.n_rows) if not id_column else to_numpy(table.column(id_column))
    kind, column = _item_column(table, options)
    features = names = items = None
    if column is not None and kind is not None:
        items = TableItems(kind, table, column)
    else:
        features, names = _features(table, options, {label, *several, clean, id_column}, in_memory)
    notes = []
    if items is None and not options.feature_columns:
        unused = [
            name
            for name in table.schema.names
            if name not in {label, *several, clean, id_column, *(names or ())}
        ]
        if names and unused:
            notes.append(f"columns that hold no numbers were left out: {', '.join(map(repr, unused))}.")
    what = f"{kind}s from the column {column!r}" if items else f"{len(names or ())} feature columns"
    targets = _targets(table, several) if several else None
    return Samples(
        name=Path(table.name).stem,
        ids=ids,
        labels=_labels(table, label) if targets is None else row_texts(targets),
        features=features,
        items=items,
        images=ItemImages(items) if items and kind == "image" else None,
        clean_labels=to_numpy(table.column(clean)) if clean else None,
        class_names=None if label is None else _class_names(table.schema, label),
        feature_names=names if features is not None and len(names or ()) == features.shape[1] else None,
        description=f"{what} of {table.name}, {_from(several, label)}.",
        notes=tuple(notes),
        source=source,
        targets=targets,
        target_names=tuple(several),
    )


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column with its values unchanged: missing ones become None, and whole numbers stay whole."""
    simple = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if (simple or pa.types.is_boolean(column.type)) and not column.null_count:
        return np.asarray(column.to_numpy())
    values = column.to_pylist()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return text_array(values)
    return np.fromiter(values, dtype=object, count=len(values))


def _named(table: Table, name: str | None, flag: str, options: SourceOptions) -> str | None:
    """Return a column that an option names; new rows may lack it."""
    if not name or (options.unlabelled and name not in table.schema.names):
        return None
    return table.require(name, flag)


def _label_columns(table: Table, options: SourceOptions) -> list[str]:
    """Return the columns of several targets or labels, where they were named."""
    if options.unlabelled and not set(options.label_columns) <= set(table.schema.names):
        return []
    if options.label_columns and options.label_column:
        raise InputError("--label-column and --label-columns both name labels. Use one of them.")
    return [table.require(name, "--label-columns") for name in dict.fromkeys(options.label_columns)]


def _targets(table: Table, names: list[str]) -> np.ndarray:
    for name in names:
        if not _is_number(table.schema.field(name).type):
            kind = table.schema.field(name).type
            raise InputError(
                f"{table.name}: {name!r} holds {kind} instead of numbers. The columns of --label-columns "
                "must hold numbers, or zeros and ones."
            )
    columns = [table.column(name).cast(pa.float64(), safe=False).to_numpy() for name in names]
    return np.column_stack(columns)


def label_column(paths: Sequence[Path], options: SourceOptions) -> str:
    """Return the column that `read_table` takes the labels from."""
    table = Table([open_table_file(paths[0])], paths[0].parent, paths[0].name)
    found = _label_column(table, options)
    if found is None:
        raise _no_label(table)
    return found


def _label_column(table: Table, options: SourceOptions) -> str | None:
    """Return the column of the labels; None where there seems to be none."""
    if found := _named(table, options.label_column, "--label-column", options):
        return found
    return next((name for name in LABEL_NAMES if name in table.schema.names), None)


def _labels(table: Table, label: str | None) -> np.ndarray:
    """Return the labels `(N,)`, None where there are none."""
    return np.full(table.n_rows, None) if label is None else to_numpy(table.column(label))


def _from(several: list[str], label: str | None) -> str:
    named = ", ".join(map(repr, several or ([] if label is None else [label])))
    return f"labels from {named}" if named else "without labels"


def _no_label(table: Table) -> InputError:
    held = ", ".join(map(repr, table.schema.names))
    return InputError(
        f"{table.name}: it is not clear which column holds the labels. Name it with --label-column. It has "
        f"{held}."
    )


def _item_column(table: Table, options: SourceOptions) -> tuple[str | None, str | None]:
    """Return kind and name of the column of items; None and None for a table of features."""
    given = {"image": options.image_column, "text": options.text_column, "audio": options.audio_column}
    named = {kind: name for kind, name in given.items() if name}
    if len(named) > 1 or (named and options.feature_columns):
        raise InputError("name one of --image-column, --text-column, --audio-column, --feature-columns.")
    for kind, name in named.items():
        return kind, table.require(name, f"--{kind}-column")
    if options.feature_columns:
        return None, None
    for kind, names in _GUESSED.items():
        for name in names:
            if name in table.schema.names and not _is_number(table.schema.field(name).type):
                return kind, name
    return None, None


def _features(
    table: Table, options: SourceOptions, other: Iterable[str | None], in_memory: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read feature columns batch by batch; what is too large for memory goes to a mapped temporary file."""
    names = [table.require(name, "--feature-columns") for name in options.feature_columns]
    if not names:
        taken = set(other)
        fields = [table.schema.field(name) for name in table.schema.names if name not in taken]
        names = [field.name for field in fields if _is_number(field.type) or _is_vector(field.type)]
    if not names:
        held = ", ".join(map(repr, table.schema.names))
        raise InputError(
            f"{table.name} has no numeric columns besides the label. It has {held}. For images, texts or "
            "recordings name --image-column, --text-column or --audio-column."
        )
    features: np.ndarray | None = None
    for first, batch in table.batches(names):
        block = np.column_stack([_as_columns(batch.column(name), name, table.name) for name in names])
        if features is None:
            features = _room(table, block.shape[1], in_memory)
        if block.shape[1] != features.shape[1]:
            raise InputError(f"{table.name}: row {first} has vectors of another length. Make them equal.")
        features[first : first + len(block)] = block
    assert features is not None  # there is at least one row
    return features, tuple(names)


def _room(table: Table, columns: int, in_memory: int) -> np.ndarray:
    rows, needed, what = table.n_rows, table.n_rows * columns * 8, f"{table.name}: its features"
    if table.n_bytes is not None and has_grown(needed, table.n_bytes):
        charge(needed, what, "grown")
    if needed <= in_memory:
        charge(needed, what)
        return np.empty((rows, columns))
    check_space(Path(tempfile.gettempdir()), needed // 2, "The features", "Set TMPDIR to another disk.")
    # The file has no name: the map keeps it alive, and it is gone with the process, whatever ends that.
    with tempfile.TemporaryFile(prefix="lsi-table-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, columns))


def _as_columns(column: pa.Array, name: str, table: str) -> np.ndarray:
    if _is_vector(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) > 1 or lengths[0] in (None, 0):
            raise InputError(f"{table}: the vectors in {name!r} have different lengths, or are missing.")
        values = column.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(values).reshape(len(column), lengths[0])
    if not _is_number(column.type) and not pa.types.is_null(column.type):
        raise InputError(f"{table}: {name!r} holds {column.type}, not numbers. Leave it out, or encode it.")
    # Integers beyond 2⁵³ lose their last digits, as they do in any matrix of floating-point numbers.
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and _is_number(kind.value_type))


def _class_names(schema: pa.Schema, label: str) -> dict[Any, str] | None:
    """Return the class names that Hugging Face keeps in the schema; None where there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return dict(enumerate(map(str, features[label]["names"])))
    except (KeyError, TypeError, ValueError):
        return None
