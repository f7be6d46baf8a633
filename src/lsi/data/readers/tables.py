"""Tables → samples: labels and ids are read at once; images, texts and recordings when they are needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lsi.data.decode import ItemImages
from lsi.data.options import SourceOptions
from lsi.data.preparation.numbers import ID_ROWS
from lsi.data.readers.columns import is_number, is_plain, likely_labels, read_features
from lsi.data.readers.table import Table, TableItems
from lsi.data.readers.table_files import FORMATS, open_table_file
from lsi.data.samples import Samples, group_array, row_texts, text_array
from lsi.data.targets import first_answers
from lsi.errors import InputError
from lsi.system.door import inside

LABEL_NAMES = ("label", "labels", "y", "target", "class", "category", "fine_label")
"""Columns that are taken for the label where none is named; the first one present wins."""
_GUESSED = {"image": ("image", "img", "picture"), "text": ("text", "sentence"), "audio": ("audio",)}
IN_MEMORY = 1 << 30
"""Bytes of features up to which they are held in memory; larger ones go to a temporary file."""


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
    group = _group_column(table, options)
    kind, column = _item_column(table, options)
    answers = _answers(table, several) if options.annotators else None
    targets = _targets(table, several) if several and answers is None else None
    if answers is not None:
        labels = first_answers(answers)
    else:
        labels = _labels(table, label) if targets is None else row_texts(targets)
    found = items = None
    if column is not None and kind is not None:
        items = TableItems(kind, table, column)
    else:
        found = read_features(table, options, {label, *several, clean, id_column, group}, in_memory)
    names = None if found is None else found.columns
    how = None if found is None else found.how
    notes = [] if how is None else list(how.notes())
    if found is not None and how is None and not options.feature_columns:
        unused = [
            name
            for name in table.schema.names
            if name not in {label, *several, clean, id_column, group, *(names or ())}
        ]
        if names and unused:
            notes.append(f"columns that hold no numbers were left out: {', '.join(map(repr, unused))}.")
    what = f"{kind}s from the column {column!r}" if items else f"{len(names or ())} feature columns"
    return Samples(
        name=Path(table.name).stem,
        ids=ids,
        labels=labels,
        features=None if found is None else found.values,
        items=items,
        images=ItemImages(items) if items and kind == "image" else None,
        clean_labels=to_numpy(table.column(clean)) if clean else None,
        class_names=None if label is None else _class_names(table.schema, label),
        feature_names=None if found is None else found.names,
        description=f"{what} of {table.name}, {_from(several, label)}.",
        notes=tuple(notes),
        source=source,
        targets=targets,
        target_names=() if targets is None else tuple(several),
        answers=answers,
        label_doubt=None if several or label is None else _label_doubt(table, label, labels),
        preparation=how,
        groups=None if group is None else group_array(to_numpy(table.column(group))),
        content=None if found is None else found.content,
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


def _group_column(table: Table, options: SourceOptions) -> str | None:
    """Return the column of groups, which is no feature."""
    name = _named(table, options.group_column, "--group-column", options)
    if name is None:
        return None
    if not is_plain(kind := table.schema.field(name).type):
        raise InputError(f"{table.name}: {name!r} holds {kind}, which names no groups. Name another one.")
    if name in options.feature_columns:
        raise InputError(
            f"{name!r} is both --group-column and one of --feature-columns: what a group is worth is asked "
            "of features that do not name it. Leave it out of --feature-columns."
        )
    return name


def _label_columns(table: Table, options: SourceOptions) -> list[str]:
    """Return the columns of several targets or labels, where they were named."""
    if options.unlabelled and not set(options.label_columns) <= set(table.schema.names):
        return []
    if options.label_columns and options.label_column:
        raise InputError("--label-column and --label-columns both name labels. Use one of them.")
    return [table.require(name, "--label-columns") for name in dict.fromkeys(options.label_columns)]


def _answers(table: Table, names: list[str]) -> pd.DataFrame:
    """Return the labels of annotators, one column each; an empty text is a gap."""
    if len(names) < 2:
        raise InputError("--annotators needs the columns of two or more annotators: --label-columns a b.")
    columns = {name: to_numpy(table.column(name)).astype(object) for name in names}
    for values in columns.values():
        values[values == ""] = None
    return pd.DataFrame(columns, dtype=object)


def _targets(table: Table, names: list[str]) -> np.ndarray:
    for name in names:
        if not is_number(table.schema.field(name).type):
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
        f"{held}.{_other_separator(table)}{likely_labels(table)}"
    )


def _other_separator(table: Table) -> str:
    """Return what to do about a file of lines whose cells are separated by something else."""
    names = table.schema.names
    found = next((mark for mark in (";", "\t", "|", ",") if len(names) == 1 and mark in names[0]), None)
    return (
        f" Its cells seem to be separated by {found!r}: save it with commas, or tabs (.tsv)." if found else ""
    )


def _label_doubt(table: Table, label: str, labels: np.ndarray) -> str | None:
    """Return why labels can be no classes: every row has its own, as ids have."""
    kind = table.schema.field(label).type
    if pa.types.is_floating(kind) or not is_plain(kind):
        return None
    present = labels[~pd.isna(labels)]
    if len(present) < ID_ROWS or len(pd.unique(present)) < len(present):
        return None
    return (
        f"{table.name}: {label!r} holds {len(present):,} different values in {len(labels):,} rows, so it "
        f"names rows rather than classes. Name another --label-column.{likely_labels(table, label)} If it "
        "holds numbers to predict, add --task regression."
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
            if name in table.schema.names and not is_number(table.schema.field(name).type):
                return kind, name
    return None, None


def _class_names(schema: pa.Schema, label: str) -> dict[Any, str] | None:
    """Return the class names that Hugging Face keeps in the schema; None where there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return dict(enumerate(map(str, features[label]["names"])))
    except (KeyError, TypeError, ValueError):
        return None
