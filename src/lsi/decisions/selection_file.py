"""A selection written to a file, in the format of its suffix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lsi.decisions.guarded import write_rows
from lsi.errors import InputError
from lsi.results.marks import Mark, marked_table
from lsi.results.table import json_label
from lsi.system.files import new_file

COLUMNS = ["sample_id", "position", "label", "lsi"]


def check_selection_file(path: Path) -> None:
    """Refuse a name whose suffix is not a format of selections."""
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{str(path)!r}: give the selection one of the suffixes {', '.join(WRITERS)}.")


def write_selection(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    """Write the samples that are kept."""
    check_selection_file(path)
    with new_file(path) as staging:
        WRITERS[path.suffix.lower()](staging, kept, mark, settings)


def _parquet(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(marked_table(pa.Table.from_pandas(kept[COLUMNS], preserve_index=False), mark), path)


def _csv(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    write_rows(path, COLUMNS, kept[COLUMNS].itertuples(index=False), mark)


def _json(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    content = {
        **mark.fields(),
        "settings": dict(settings),
        "kept": [json_label(value) for value in kept["sample_id"].tolist()],
        "positions": kept["position"].tolist(),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _txt(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    lines = [str(value) for value in kept["sample_id"].tolist()]
    if any(len(line.splitlines()) != 1 for line in lines):
        raise InputError(
            "an id is empty or has line breaks, which a .txt cannot hold. Use .json or .parquet."
        )
    path.write_text("".join(f"{line}\n" for line in (mark.line(), *lines)), encoding="utf-8")


def _npy(path: Path, kept: pd.DataFrame, mark: Mark, settings: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.save(file, kept["position"].to_numpy())
        file.write(f"\n{mark.line()}\n".encode())  # after the array: numpy reads what its header promises


WRITERS: dict[str, Callable[[Path, pd.DataFrame, Mark, Mapping[str, Any]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".npy": _npy,
    ".txt": _txt,
}
