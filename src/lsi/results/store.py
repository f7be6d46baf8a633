"""Scores on disk: a folder with `scores.parquet` and `manifest.json`, written as a whole or not at all.

Groups that a run left out are a table of their own, `groups.parquet`. The folder is built under a hidden name
next to its target, flushed to the disk, and renamed; scores that it replaces are kept until then.
`manifest.json` holds the SHA-256 of each table, so damage is noticed on loading. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from lsi.errors import InputError
from lsi.results.marks import GROUPS, SCORES, TABLE, Mark, marked_table, read_mark, refuse_other
from lsi.results.schema import groups_fault, manifest_fault, table_fault
from lsi.system.door import read_bytes, read_json
from lsi.system.drafts import tidy
from lsi.system.files import Content, PathLike, check_folder, replace_folder
from lsi.system.pages import read_parquet
from lsi.system.versions import install_hint

TABLE_FILE, GROUPS_FILE = "scores.parquet", "groups.parquet"
MANIFEST_FILE = "manifest.json"
FORMAT = SCORES
FORMAT_VERSION = 1
_FILE_KEYS = ("format", "format_version", "table")
_OVERHEAD_BYTES = 1 << 20
_ROW_BYTES = 256  # estimate of a row on disk, to notice a full disk before any work


def check_output(path: PathLike, overwrite: bool = False, n_rows: int = 0) -> Path:
    """Refuse a folder to which scores cannot be written; called before any work is done."""
    return check_folder(path, "scores", _holds_scores, overwrite, _OVERHEAD_BYTES + _ROW_BYTES * n_rows)


def write_scores(path: PathLike, table: pd.DataFrame, manifest: dict[str, Any], overwrite: bool) -> Path:
    """Write a table and its manifest into a folder, as a whole or not at all."""
    target = check_output(path, overwrite, len(table))
    content, described_table = _packed(table, TABLE_FILE, Mark.of(manifest, TABLE))
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "table": described_table}
    described = {key: value for key, value in manifest.items() if key not in _FILE_KEYS}
    files: dict[str, Content] = {TABLE_FILE: content}
    if manifest.get("groups"):
        groups = pd.DataFrame(manifest["groups"])
        files[GROUPS_FILE], described["groups"] = _packed(groups, GROUPS_FILE, Mark.of(manifest, GROUPS))
    text = json.dumps({**header, **described}, indent=2, allow_nan=False) + "\n"
    files[MANIFEST_FILE] = text.encode()
    replace_folder(target, files, "scores", _holds_scores)
    return target


def read_scores(path: PathLike) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read what `write_scores` wrote."""
    folder = Path(path)
    manifest = _read_manifest(folder)
    table = _read_table(folder, TABLE_FILE, manifest["table"])
    if fault := table_fault(table, manifest):
        raise _damaged(folder, f"{TABLE_FILE}: {fault}")
    if manifest.get("groups"):
        groups = _read_table(folder, GROUPS_FILE, manifest["groups"])
        manifest["groups"] = groups.astype(object).where(groups.notna(), None).to_dict("records")
        if fault := groups_fault(manifest["groups"]):
            raise _damaged(folder, f"{GROUPS_FILE}: {fault}")
    return table, {key: value for key, value in manifest.items() if key not in _FILE_KEYS}


def written_run(path: PathLike) -> str | None:
    """Return which run wrote the scores in a folder, by the digest of its data and settings."""
    try:
        run = _read_manifest(Path(path)).get("run")
    except InputError:
        return None
    return run if isinstance(run, str) else None


def _packed(table: pd.DataFrame, name: str, mark: Mark) -> tuple[bytes, dict[str, Any]]:
    """Return a table as the content of a file, and what the manifest says about it."""
    stored, repr_columns = _storable(table)
    content = _parquet_bytes(stored, mark)
    digest = hashlib.sha256(content).hexdigest()
    return content, {"file": name, "rows": len(table), "sha256": digest, "repr_columns": repr_columns}


def _storable(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table that Parquet can hold, and the columns that became text by `repr` for it."""
    columns, repr_columns = {}, []
    for name, column in table.items():
        if not _is_storable(column):
            column = column.map(repr)
            repr_columns.append(str(name))
        columns[name] = column
    return pd.DataFrame(columns), repr_columns


def _is_storable(column: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return True
    return all(isinstance(value, str) for value in column)


def _parquet_bytes(table: pd.DataFrame, mark: Mark) -> bytes:
    buffer = io.BytesIO()
    arrow = marked_table(pa.Table.from_pandas(table, preserve_index=False), mark)
    pa.parquet.write_table(arrow, buffer, compression="zstd")
    return buffer.getvalue()


def _holds_scores(folder: Path) -> bool:
    """Return whether a folder holds scores and nothing else."""
    if not set(os.listdir(folder)) <= {TABLE_FILE, GROUPS_FILE, MANIFEST_FILE}:
        return False
    try:
        manifest = read_json(folder / MANIFEST_FILE)
    except (OSError, ValueError):  # damaged, or no plain file
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        tidy(folder.absolute().parent)  # a process that died while it replaced them may have moved them away
    if (mark := read_mark(folder)) is not None and mark.kind not in (FORMAT, TABLE):
        refuse_other(folder, mark, "a folder of scores, which Scores.save or --output writes")
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{os.fspath(folder)!r} {kind}. Pass the folder that Scores.save or --output wrote.")
    content = _read_file(folder, MANIFEST_FILE)
    try:
        manifest = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST_FILE} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{os.fspath(folder / MANIFEST_FILE)!r} was not written by Scores.save. Pass a folder of scores."
        )
    _check_version(folder, manifest.get("format_version"))
    if not isinstance(manifest.get("table"), dict):
        raise _damaged(folder, f"{MANIFEST_FILE} does not describe the table")
    if fault := manifest_fault(manifest):
        raise _damaged(folder, f"{MANIFEST_FILE}: {fault}")
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_version(folder: Path, version: object) -> None:
    if version != FORMAT_VERSION:
        raise InputError(
            f"The scores in {os.fspath(folder)!r} have format version {version!r}; this installation reads "
            f"version {FORMAT_VERSION}. Install a newer lsi: {install_hint()}."
        )


def _read_table(folder: Path, name: str, described: dict[str, Any]) -> pd.DataFrame:
    content = _read_file(folder, name)
    if hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise _damaged(folder, f"{name} does not match the checksum in {MANIFEST_FILE}")
    try:
        table = _to_pandas(content, name)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{name} cannot be read: {error}") from error
    if len(table) != described.get("rows"):
        raise _damaged(folder, f"{name} has {len(table)} rows, not {described.get('rows')}")
    return table


def _to_pandas(content: bytes, name: str) -> pd.DataFrame:
    frame = read_parquet(content, name).to_pandas()
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    raise ValueError("it has an index")


def _read_file(folder: Path, name: str) -> bytes:
    if not (folder / name).exists():
        raise InputError(
            f"{os.fspath(folder)!r} has no {name}, so it holds no complete scores. Pass the folder that "
            "Scores.save or --output wrote."
        )
    return read_bytes(folder / name, "text" if name == MANIFEST_FILE else "held")


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(
        f"The scores in {os.fspath(folder)!r} are damaged: {what}. Restore the folder from a copy, or score "
        "again."
    )
