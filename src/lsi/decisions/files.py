"""Decisions about samples (what to keep, which labels to change), read from files of people and tools."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lsi.decisions.guarded import unguard_text
from lsi.errors import InputError, nearest
from lsi.results.marks import DECISIONS, SELECTION, SUSPECTS, Mark, from_line, read_mark
from lsi.system.door import read_bytes, read_text
from lsi.system.npy import load_npy

ACTIONS = ("accept", "reject", "remove")
MEANINGS = ("keep", "remove", "relabel", "decisions")
"""What a list of samples may mean: `--as`."""
_MEANT = {SELECTION: ("keep",), DECISIONS: ("decisions",), SUSPECTS: ("decisions", "remove", "relabel")}
_COLUMNS = ("sample_id", "decision", "label", "suggested_label")


@dataclass(frozen=True)
class Decisions:
    """What to do with samples, keyed by their id as text.

    Attributes:
        keep: Ids to keep, while all others go; None: everything stays that is not removed.
        remove: Ids to remove.
        relabel: New label by id, as text.
        given: Label that the decision was about, by id, as text, where the file states it.
        rows: Row numbers to keep, for a selection that holds no ids.
    """

    keep: frozenset[str] | None = None
    remove: frozenset[str] = frozenset()
    relabel: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    rows: np.ndarray | None = None

    def and_then(self, other: Decisions) -> Decisions:
        """Return both combined: a sample stays if both keep it, and the labels of `other` win."""
        keep = self.keep if other.keep is None else other.keep
        if self.keep is not None and other.keep is not None:
            keep = self.keep & other.keep
        rows = self.rows if other.rows is None else other.rows
        if self.rows is not None and other.rows is not None:
            rows = np.intersect1d(self.rows, other.rows)
        return Decisions(
            keep,
            self.remove | other.remove,
            {**self.relabel, **other.relabel},
            {**self.given, **other.given},
            rows,
        )


def read_decisions(path: Path, meant: str | None = None) -> tuple[Decisions, Mark | None]:
    """Return what a file decides, and what it says about itself.

    `meant` is one of `MEANINGS`. A file without a mark needs it, and so does a list of suspects on which
    nobody has decided yet; for others it may repeat what they are, never contradict it.
    """
    if not path.is_file():
        raise InputError(
            f"{str(path)!r} is not a file. Pass what `lsi select -o` or the report's export wrote."
        )
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(
            f"{str(path)!r}: decisions are read from {', '.join(_READERS)} files. Export them again."
        )
    mark = read_mark(path)
    _check_meant(path, mark, meant)
    try:
        listed = _READERS[suffix](path)
        return _decided(path, mark, meant or _MEANT[mark.kind if mark else SELECTION][0], listed), mark
    except InputError:
        raise
    except (ValueError, OSError, KeyError, csv.Error, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). Write it again.") from error


def _check_meant(path: Path, mark: Mark | None, meant: str | None) -> None:
    """Refuse a file that is something else, or does not say what it is while nobody else says so."""
    if meant is not None and meant not in MEANINGS:
        raise InputError(f"--as {meant!r}? {nearest(meant, MEANINGS)}")
    if mark is None:
        if meant is None:
            raise InputError(
                f"{str(path)!r} does not say what it is: another program or an older lsi wrote it. Say "
                "what the samples in it are: --as keep (all others go), --as remove, --as relabel (to their "
                "suggested_label), or --as decisions (each row has its own in the column decision)."
            )
        return
    if mark.kind not in _MEANT:
        raise InputError(
            f"{str(path)!r} is {mark.noun}, and samples are kept, removed or relabelled by a selection "
            f"({SELECTION}), decisions ({DECISIONS}), a list of suspects ({SUSPECTS}) or a folder of scores."
        )
    mark.checked(path)
    if meant is not None and meant not in _MEANT[mark.kind]:
        raise InputError(
            f"{str(path)!r} is {mark.noun}, and cannot be taken for --as {meant}. It can be: "
            f"{', '.join(_MEANT[mark.kind])}."
        )


def _decided(path: Path, mark: Mark | None, meaning: str, listed: Any) -> Decisions:
    """Return what a list of records, or an array of positions, means."""
    if isinstance(listed, np.ndarray):
        if meaning != "keep":
            raise InputError(f"{str(path)!r} holds positions, which can only be kept: --as keep.")
        return Decisions(rows=listed)
    if any("sample_id" not in record for record in listed):
        raise InputError(f"{str(path)!r} has no column sample_id. Export the decisions again.")
    records = [{key: _text(record.get(key)) for key in _COLUMNS if key in record} for record in listed]
    if meaning == "decisions":
        records = _check_decided(path, mark, records)
    else:
        if meaning == "relabel":  # where nothing is suggested, the label is more likely right than any other
            records = [record for record in records if record.get("suggested_label")]
        records = [{**record, "decision": _ALL[meaning]} for record in records]
    _check_agreement(path, records)
    given = {record["sample_id"]: record["label"] for record in records if record.get("label")}
    if meaning == "keep":
        return Decisions(keep=frozenset(record["sample_id"] for record in records), given=given)
    return Decisions(
        remove=frozenset(record["sample_id"] for record in records if record["decision"] == "remove"),
        relabel={
            record["sample_id"]: record["suggested_label"]
            for record in records
            if record["decision"] == "accept"
        },
        given=given,
    )


_ALL = {"keep": "keep", "remove": "remove", "relabel": "accept"}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _check_decided(path: Path, mark: Mark | None, records: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the records on which somebody has decided; of a list of suspects, the others are left alone."""
    for number, record in enumerate(records, start=1):
        action, sample = record.get("decision"), record["sample_id"]
        if action is None or (action and action not in ACTIONS):
            raise InputError(
                f"{str(path)!r}: decision {number} ({sample!r}): {action!r}? {nearest(action, ACTIONS)}"
            )
    decided = [record for record in records if record["decision"]]
    if not decided and mark is not None and mark.kind == SUSPECTS:
        raise InputError(
            f"{str(path)!r} is {mark.noun}: it says which labels to look at, not what to keep. Write accept "
            "(take the suggested label), reject (the label is right) or remove into its column decision; "
            "or add --as remove to remove every listed sample, or --as relabel to give each its suggested "
            "label."
        )
    return decided


def _check_agreement(path: Path, records: Sequence[Mapping[str, str]]) -> None:
    """Refuse two rows that decide differently about the same sample, and a new label that is missing."""
    first: dict[str, tuple[int, tuple[str | None, ...]]] = {}
    for number, record in enumerate(records, start=1):
        sample, action, label = record["sample_id"], record["decision"], record.get("suggested_label")
        if action == "accept" and not label:
            raise InputError(
                f"{str(path)!r}: decision {number} accepts a label for {sample!r}, but suggests none."
            )
        says = (action, label if action == "accept" else None, record.get("label"))
        before, said = first.setdefault(sample, (number, says))
        if said != says:
            raise InputError(
                f"{str(path)!r}: rows {before} and {number} contradict each other about the sample "
                f"{sample!r}: {_spoken(said)}, and {_spoken(says)}. Keep one of them."
            )


def _spoken(says: tuple[str | None, ...]) -> str:
    action, label, given = says
    return f"{action}{f' {label!r}' if label else ''}{f' (label {given!r})' if given else ''}"


def _read_json(path: Path) -> Any:
    content = json.loads(read_text(path, "utf-8-sig"))
    key = {SELECTION: "kept", DECISIONS: "decisions", SUSPECTS: "rows"}
    kind = content.get("format") if isinstance(content, dict) else None
    entries = content.get(key.get(str(kind), "decisions")) if isinstance(content, dict) else content
    plain = kind == SELECTION or (isinstance(content, list) and not any(isinstance(e, dict) for e in content))
    if not isinstance(entries, list) or not all(
        isinstance(entry, str | int | float if plain else dict) for entry in entries
    ):
        raise InputError(
            f"{str(path)!r} cannot be read: it does not hold the list that lsi writes there. Export again."
        )
    return [{"sample_id": entry} for entry in entries] if plain else entries


def _read_csv(path: Path) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(read_text(path, "utf-8-sig"), newline=""))
    return [
        {key: unguard_text(value) for key, value in row.items() if key and isinstance(value, str)}
        for row in rows
    ]


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from lsi.system.pages import read_parquet

    content = read_bytes(path)
    return read_parquet(content, str(path), list(_COLUMNS), missing=True).to_pylist()


def _read_npy(path: Path) -> np.ndarray:
    return load_npy(path, mapped=False)


def _read_txt(path: Path) -> list[dict[str, str]]:
    lines = read_text(path, "utf-8-sig").splitlines()
    if lines and from_line(lines[0]) is not None:
        lines = lines[1:]
    return [{"sample_id": line} for line in lines if line]


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".txt": _read_txt,
}
