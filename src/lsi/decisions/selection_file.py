"""A selection written to a file, in the format of its suffix."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsi.decisions.files import SELECTION_FORMAT, guard_text
from lsi.errors import InputError
from lsi.results.table import json_label
from lsi.system.files import new_file

COLUMNS = ["sample_id", "position", "label", "lsi"]


def check_selection_file(path: Path) -> None:
    """Refuse a name whose suffix is not a format of selections."""
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{str(path)!r}: give the selection one of the suffixes {', '.join(WRITERS)}.")


def write_selection(
    path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Write the samples that are kept."""
    check_selection_file(path)
    with new_file(path) as staging:
        WRITERS[path.suffix.lower()](staging, kept, manifest, settings)


def _parquet(
    path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    kept[COLUMNS].to_parquet(path, index=False)


def _csv(path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in kept[COLUMNS].itertuples(index=False):
            writer.writerow([guard_text(value) for value in row])


def _json(path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    data = manifest.get("data") or {}
    content = {
        "format": SELECTION_FORMAT,
        "version": 1,
        "fingerprint": data.get("fingerprint"),
        "n_samples": data.get("n_samples"),
        "settings": dict(settings),
        "kept": [json_label(value) for value in kept["sample_id"].tolist()],
        "positions": kept["position"].tolist(),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _txt(path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    lines = [str(value) for value in kept["sample_id"].tolist()]
    if any(len(line.splitlines()) != 1 for line in lines):
        raise InputError(
            "an id is empty or has line breaks, which a .txt cannot hold. Use .json or .parquet."
        )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _npy(path: Path, kept: pd.DataFrame, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    np.save(path, kept["position"].to_numpy())


WRITERS: dict[str, Callable[[Path, pd.DataFrame, Mapping[str, Any], Mapping[str, Any]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".npy": _npy,
    ".txt": _txt,
}
