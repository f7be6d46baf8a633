"""Decisions about samples (what to keep, which labels to change): read from files, and applied to rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsi.errors import InputError, nearest
from lsi.system.door import read_bytes, read_text
from lsi.system.npy import load_npy

if TYPE_CHECKING:
    import pandas as pd

DECISIONS_FORMAT = "lsi-decisions"
SELECTION_FORMAT = "lsi-selection"
ACTIONS = ("accept", "reject", "remove")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_SHOWN = 5


@dataclass(frozen=True)
class Decisions:
    """What to do with samples, keyed by their id as text.

    Attributes:
        keep: Ids to keep, while all others go; None: everything stays that is not removed.
        remove: Ids to remove.
        relabel: New label by id, as text.
        given: Label that the decision was about, by id, as text, where the file states it.
        rows: Row numbers to keep, for a selection that holds no ids.
        fingerprint: Fingerprint of the scored data, where the file states it.
    """

    keep: frozenset[str] | None = None
    remove: frozenset[str] = frozenset()
    relabel: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    rows: np.ndarray | None = None
    fingerprint: str | None = None

    def and_then(self, other: Decisions) -> Decisions:
        """Return both combined: a sample stays if both keep it, and the labels of `other` win."""
        keep = self.keep if other.keep is None else other.keep
        if self.keep is not None and other.keep is not None:
            keep = self.keep & other.keep
        return Decisions(
            keep,
            self.remove | other.remove,
            {**self.relabel, **other.relabel},
            {**self.given, **other.given},
            self.rows if other.rows is None else other.rows,
            self.fingerprint or other.fingerprint,
        )


def guard_text(value: Any) -> str:
    """Return text for a CSV cell that no spreadsheet reads as a formula.

    Examples:
        >>> guard_text("=1+1"), guard_text("cat")
        ("'=1+1", 'cat')
    """
    # Text that begins with an apostrophe gets another one, so that removing one restores every text.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)


def write_guarded_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table in which no cell of text is a formula (`guard_text`)."""
    texts = frame.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz"])
    safe = frame.assign(**{str(name): texts[name].map(_guard_cell) for name in texts})
    # With the standard's line ending a lone carriage return in a cell is quoted too, and starts no row.
    safe.to_csv(path, index=False, lineterminator="\r\n")


def _guard_cell(value: Any) -> Any:
    return guard_text(value) if isinstance(value, str) else value


def unguard_text(text: str) -> str:
    """Undo `guard_text`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def read_decisions(path: Path) -> Decisions:
    """Read decisions that the report exported, or a selection that ``lsi select`` wrote."""
    if not path.is_file():
        raise InputError(
            f"{str(path)!r} is not a file. Pass what `lsi select -o` or the report's export wrote."
        )
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(
            f"{str(path)!r}: decisions are read from {', '.join(_READERS)} files. Export them again."
        )
    try:
        return _READERS[suffix](path)
    except InputError:
        raise
    except (ValueError, OSError, KeyError, csv.Error, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). Write it again.") from error


def by_row(
    decisions: Decisions, ids: Sequence[Any] | np.ndarray, labels: np.ndarray, names: Mapping[Any, str] | None
) -> tuple[np.ndarray, dict[int, Any]]:
    """Return which rows of a dataset stay, `(N,)` bool, and the new label of each relabelled row.

    Shapes: ids `(N,)`, labels `(N,)`.
    """
    text = [str(value) for value in np.asarray(ids).tolist()]
    row_of = {value: row for row, value in enumerate(text)}
    if len(row_of) < len(text):
        raise InputError(
            "the dataset's ids are not unique, so decisions cannot be matched to its rows. Pass unique ids."
        )
    named = [*(decisions.keep or ()), *decisions.remove, *decisions.relabel, *decisions.given]
    _check_known(named, row_of)
    keep = np.ones(len(text), dtype=bool)
    if decisions.rows is not None:
        keep = _from_rows(decisions.rows, len(text))
    if decisions.keep is not None:
        keep &= np.fromiter((value in decisions.keep for value in text), dtype=bool, count=len(text))
    for value in decisions.remove:
        keep[row_of[value]] = False
    known = _label_values(labels, names)
    for value, expected in decisions.given.items():
        found = labels[row_of[value]]
        if str(found) != expected and known.get(expected) != found:
            raise InputError(
                f"sample {value!r} has the label {str(found)!r}, but the decision was about {expected!r}. "
                "These decisions belong to another version of the dataset."
            )
    new = {row_of[value]: _as_label(label, known, labels) for value, label in decisions.relabel.items()}
    return keep, {row: label for row, label in new.items() if keep[row]}


def _check_known(named: list[str], row_of: Mapping[str, int]) -> None:
    unknown = list(dict.fromkeys(value for value in named if value not in row_of))
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", …" if len(unknown) > _SHOWN else "")
        raise InputError(
            f"{len(unknown):,} ids are not in the dataset: {shown}. Use the dataset that was scored, with "
            "the same --id-column."
        )


def _from_rows(rows: np.ndarray, n: int) -> np.ndarray:
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise InputError(
            "a .npy selection must hold the positions to keep, as a flat array of whole numbers."
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        raise InputError(f"the selection names row {int(rows.max())}, but the dataset has {n:,} rows.")
    keep = np.zeros(n, dtype=bool)
    keep[rows] = True
    return keep


def _label_values(labels: np.ndarray, names: Mapping[Any, str] | None) -> dict[str, Any]:
    """Return the dataset's labels by their text and by their class names."""
    present = {value: None for value in labels.tolist()}
    found: dict[str, Any] = {str(name): label for label, name in (names or {}).items()}
    return found | {str(value): value for value in present}


def _as_label(text: str, known: Mapping[str, Any], labels: np.ndarray) -> Any:
    if text in known:
        return known[text]
    if labels.dtype.kind in "iu":
        try:
            return int(text)
        except ValueError:
            raise InputError(
                f"the new label {text!r} is not a class of the dataset. {nearest(text, list(known)[:200])}"
            ) from None
    return text


def _read_json(path: Path) -> Decisions:
    content = json.loads(read_text(path, "utf-8-sig"))
    kind = content.get("format") if isinstance(content, dict) else None
    if kind not in (DECISIONS_FORMAT, SELECTION_FORMAT):
        raise InputError(
            f'{str(path)!r} holds neither decisions nor a selection: its "format" is {kind!r}, not '
            f"{DECISIONS_FORMAT!r} or {SELECTION_FORMAT!r}."
        )
    if content.get("version") != 1:
        raise InputError(
            f"{str(path)!r} has version {content.get('version')!r}; this installation reads version 1."
        )
    if kind == SELECTION_FORMAT:
        kept = frozenset(str(value) for value in _entries(path, content, "kept", str | int | float))
        return Decisions(keep=kept, fingerprint=content.get("fingerprint"))
    return _from_records(_entries(path, content, "decisions", dict), content.get("fingerprint"))


def _entries(path: Path, content: Mapping[str, Any], key: str, kind: Any) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
        raise InputError(
            f"{str(path)!r} cannot be read: {key!r} is not the list that lsi writes there. Export again."
        )
    return entries


def _read_csv(path: Path) -> Decisions:
    rows = list(csv.DictReader(io.StringIO(read_text(path, "utf-8-sig"), newline="")))
    records = [
        {key: unguard_text(value) for key, value in row.items() if key and isinstance(value, str)}
        for row in rows
    ]
    if rows and "sample_id" not in rows[0]:
        raise InputError(f"{str(path)!r} has no column sample_id. Export the decisions again.")
    if rows and "decision" in rows[0]:
        return _from_records(records, None)
    return Decisions(keep=frozenset(record["sample_id"] for record in records))


def _read_parquet(path: Path) -> Decisions:
    from lsi.system.pages import read_parquet

    kept = read_parquet(read_bytes(path), str(path), ["sample_id"]).column(0).to_pylist()
    return Decisions(keep=frozenset(str(value) for value in kept))


def _read_npy(path: Path) -> Decisions:
    return Decisions(rows=load_npy(path, mapped=False))


def _read_txt(path: Path) -> Decisions:
    lines = read_text(path, "utf-8-sig").splitlines()
    return Decisions(keep=frozenset(line for line in lines if line))


def _from_records(records: Sequence[Mapping[str, Any]], fingerprint: str | None) -> Decisions:
    remove, relabel, given = set(), {}, {}
    for number, record in enumerate(records, start=1):
        if "sample_id" not in record:
            raise InputError(f"decision {number} has no sample_id. Export the decisions again.")
        sample, action = str(record["sample_id"]), record.get("decision")
        if action not in ACTIONS:
            raise InputError(f"decision {number} ({sample!r}): {action!r}? {nearest(action, ACTIONS)}")
        label, suggested = record.get("label"), record.get("suggested_label")
        if label not in (None, ""):
            given[sample] = str(label)
        if action == "remove":
            remove.add(sample)
        elif action == "accept":
            if suggested in (None, ""):
                raise InputError(f"decision {number} accepts a label for {sample!r}, but suggests none.")
            relabel[sample] = str(suggested)
    return Decisions(remove=frozenset(remove), relabel=relabel, given=given, fingerprint=fingerprint)


_READERS: dict[str, Callable[[Path], Decisions]] = {
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".txt": _read_txt,
}
