"""CSV files that a spreadsheet may open: no cell is a formula, and the header says what the file is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from lsi.results.marks import Mark

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def guard_text(value: Any) -> str:
    """Return text for a CSV cell that no spreadsheet reads as a formula.

    Examples:
        >>> guard_text("=1+1"), guard_text("cat")
        ("'=1+1", 'cat')
    """
    # Text that begins with an apostrophe gets another one, so that removing one restores every text.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)


def unguard_text(text: str) -> str:
    """Undo `guard_text`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def write_guarded_csv(frame: pd.DataFrame, path: Path, mark: Mark) -> None:
    """Write a table in which no cell of text is a formula, and whose header ends with its mark."""
    path.write_bytes(guarded_csv(frame, mark))


def guarded_csv(frame: pd.DataFrame, mark: Mark) -> bytes:
    """Return what `write_guarded_csv` writes."""
    file = io.StringIO(newline="")
    _write(
        file,
        [str(name) for name in frame],
        frame.astype(object).where(frame.notna(), "").itertuples(index=False),
        mark,
    )
    return file.getvalue().encode("utf-8", "surrogatepass")


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]], mark: Mark) -> None:
    """Write rows below a header; the mark has a column of its own, which is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        _write(file, names, rows, mark)


def _write(file: TextIO, names: Sequence[str], rows: Iterable[Sequence[Any]], mark: Mark) -> None:
    # With the standard's line ending a lone carriage return in a cell is quoted too, and starts no row.
    writer = csv.writer(file)
    writer.writerow([*map(guard_text, names), mark.line()])
    for row in rows:
        writer.writerow([*map(guard_text, row), ""])
