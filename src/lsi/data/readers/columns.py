"""Columns of a table → features: prepared, or its numbers as they are."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lsi.data.options import SourceOptions
from lsi.data.preparation.plan import ColumnPlan, TablePreparation, left_out, refuse_empty
from lsi.data.preparation.table import plan_column, seconds_of, vector_plan
from lsi.data.readers.table import Table
from lsi.errors import InputError
from lsi.system.digests import digest_values
from lsi.system.door import charge, has_grown
from lsi.system.files import check_space

_CELL = 64
"""Bytes that a cell takes in memory, about: a text of Python, or a number and its copies."""
_ITEMS = "For images, texts or recordings name --image-column, --text-column or --audio-column."
_LOOK, _FEW = 10_000, 20
"""Rows that are looked at for likely labels, and most classes that these have."""


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a table.

    Attributes:
        values: `(N, D)` numbers.
        columns: Names of the columns that they were made of.
        how: What was done to every column; None where numbers were taken as they are.
        content: Digest of the columns as they were read; None as for `how`.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    how: TablePreparation | None = None
    content: str | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the D features, where they are known."""
        names = self.columns if self.how is None else self.how.feature_names
        return names if len(names) == self.values.shape[1] else None


def read_features(
    table: Table, options: SourceOptions, other: Iterable[str | None], in_memory: int
) -> Features:
    """Read the feature columns; what is too large for memory goes to a mapped temporary file."""
    taken, asked = set(other), bool(options.feature_columns)
    if options.preparation is not None:
        plans = {plan.column: plan for plan in options.preparation.columns if plan.features}
        names = [table.require(name, "the table that the probe was trained on") for name in plans]
        return _prepared(table, names, asked, in_memory, plans)
    names = [table.require(name, "--feature-columns") for name in options.feature_columns]
    names = names or [name for name in table.schema.names if name not in taken]
    if options.prepare:
        return _prepared(table, names, asked, in_memory)
    if not asked:
        types = {name: table.schema.field(name).type for name in names}
        names = [name for name, kind in types.items() if is_number(kind) or _is_vector(kind)]
    if not names:
        held = ", ".join(map(repr, table.schema.names))
        raise InputError(f"{table.name} has no numeric columns besides the label. It has {held}. {_ITEMS}")
    return Features(_numbers(table, names, in_memory), tuple(names))


def _numbers(table: Table, names: list[str], in_memory: int) -> np.ndarray:
    """Return columns of numbers and vectors, read batch by batch, as they are."""
    features: np.ndarray | None = None
    for first, batch in table.batches(names):
        block = np.column_stack([_as_columns(batch.column(name), name, table.name) for name in names])
        if features is None:
            features = _room(table, block.shape[1], in_memory)
        if block.shape[1] != features.shape[1]:
            raise InputError(f"{table.name}: row {first} has vectors of another length. Make them equal.")
        features[first : first + len(block)] = block
    assert features is not None  # there is at least one row
    return features


def _prepared(
    table: Table, names: list[str], asked: bool, in_memory: int, given: Mapping[str, ColumnPlan] | None = None
) -> Features:
    """Plan what is done to each column, if no plan is given, then make room for the features, and fill it.

    Columns are read in groups that fit into memory; a table of one group is read once.
    """
    types = {name: table.schema.field(name).type for name in names}
    plain = [name for name, kind in types.items() if is_plain(kind)]
    groups = _groups(plain, max(1, in_memory // (table.n_rows * _CELL)))
    plans: dict[str, ColumnPlan] = {}
    digests: dict[str, str] = {}
    held: dict[str, pd.Series] = {}
    for group in groups:
        held = table.series(group)
        for name, values in held.items():
            plans[name] = given[name] if given else plan_column(name, values, asked)
            digests[name] = _digest(values)
    for name, kind in types.items():
        if name not in plans:
            plans[name], digests[name] = _plan_unread(table, name, kind)
            if given and plans[name].features != given[name].features:
                raise InputError(
                    f"{table.name}: {name!r} holds {kind}, which is not what it held in the table that the "
                    "probe was trained on. Give rows of the same types."
                )
    how = TablePreparation(tuple(plans[name] for name in names))
    refuse_empty(how.columns, table.name, _ITEMS)
    features, places = _room(table, len(how.feature_names), in_memory), _places(how.columns)
    for group in groups:
        for name, values in (held if len(groups) == 1 else table.series(group)).items():
            if (make := plans[name].make) is not None:
                try:
                    features[:, places[name]] = make(values)
                except (AttributeError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{table.name}: {name!r} does not hold what it held in the table that the probe was "
                        f"trained on ({plans[name].kind}): {error}. Give rows of the same types."
                    ) from error
    for name in places.keys() - set(plain):
        for first, batch in table.batches([name]):
            features[first : first + len(batch), places[name]] = _as_columns(
                batch.column(0), name, table.name
            )
    used = tuple(plan.column for plan in how.columns if plan.features)
    content = hashlib.sha256(repr([(name, digests[name]) for name in names]).encode()).hexdigest()
    return Features(features, used, how, content)


def _groups(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def _places(plans: tuple[ColumnPlan, ...]) -> dict[str, slice]:
    """Return by column the place of its features."""
    places, start = {}, 0
    for plan in plans:
        if plan.features:
            places[plan.column] = slice(start, start + len(plan.features))
            start += len(plan.features)
    return places


def _plan_unread(table: Table, name: str, kind: pa.DataType) -> tuple[ColumnPlan, str]:
    """Return plan and digest of a column that is not held in memory: vectors, or none of our kinds."""
    if not _is_vector(kind):
        pictures = pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        cure = "; for pictures or recordings: --image-column, --audio-column" if pictures else ""
        return left_out(name, f"values of type {kind}{cure}"), str(kind)
    lengths: set[int | None] = set()
    digest = hashlib.sha256()
    for _, batch in table.batches([name]):
        column = batch.column(0)
        lengths |= set(pc.unique(pc.list_value_length(column)).to_pylist())
        digest.update(np.ascontiguousarray(_flat(column)).tobytes())
    if len(lengths - {None, 0}) != 1:
        return left_out(name, "lists of different lengths"), digest.hexdigest()
    if len(lengths) > 1:
        raise InputError(f"{table.name}: vectors in {name!r} are missing. Fill them in, or drop these rows.")
    return vector_plan(name, int(lengths.pop() or 0)), digest.hexdigest()


def _digest(values: pd.Series) -> str:
    """Return a digest of a column, the same for every format that holds the same values."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return digest_values(seconds_of(values))
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return digest_values(values.to_numpy(dtype=np.float64))
    return digest_values(values.astype(object).where(values.notna(), None).to_numpy(dtype=object))


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
        return _flat(column).reshape(len(column), lengths[0])
    if not is_number(column.type) and not pa.types.is_null(column.type):
        raise InputError(f"{table}: {name!r} holds {column.type}, not numbers. Leave it out, or encode it.")
    # Integers beyond 2⁵³ lose their last digits, as they do in any matrix of floating-point numbers.
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def is_number(kind: pa.DataType) -> bool:
    """Return whether the values of a column are numbers, or true and false."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and is_number(kind.value_type))


def _flat(column: pa.Array) -> np.ndarray:
    """Return the numbers of all lists, one after another."""
    return np.asarray(column.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def is_plain(kind: pa.DataType) -> bool:
    """Return whether values are numbers, texts, times, or categories of these."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_plain(kind.value_type)
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(
        is_number(kind) or texts or types.is_temporal(kind) or types.is_decimal(kind) or types.is_null(kind)
    )


def likely_labels(table: Table, *without: str) -> str:
    """Return as a sentence which columns may hold labels: few values, in many rows; empty where none does."""

    def may_hold(kind: pa.DataType) -> bool:
        # Moments are no classes, and some that a file can hold are beyond what Python has.
        return is_plain(kind) and not (pa.types.is_floating(kind) or pa.types.is_temporal(kind))

    names = [field.name for field in table.schema if field.name not in without and may_hold(field.type)]
    values: dict[str, list[object]] = {name: [] for name in names}
    for row, batch in table.batches(names) if names else ():
        if row >= _LOOK:
            break
        for name in names:
            values[name] += batch.column(name).to_pylist()
    counts = {name: len(set(found) - {None}) for name, found in values.items()}
    likely = sorted((n, name) for name, n in counts.items() if 2 <= n <= min(_FEW, len(values[name]) // 2))
    shown = ", ".join(f"{name!r} ({n} values)" for n, name in likely[:5])
    return f" Likely: {shown}." if shown else ""
