"""The command that usually comes next, printed so that it can be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsi.cli.inputs.recall import again
from lsi.errors import LsiError
from lsi.results.marks import Mark
from lsi.system.text import plain_text

_FLAGS = (
    "label_column", "id_column", "group_column", "image_column", "text_column", "audio_column",
    "feature_columns",
)  # fmt: skip


def tell_next(*words: object, then: str = "Next") -> None:
    """Print a command line."""
    line = shlex.join(["lsi", *(str(word) for word in words)])
    print(plain_text(f"{then}: {line}", 2000))


def column_words(columns: Mapping[str, Any]) -> list[str]:
    """Return the options that say how a dataset is read."""
    words: list[str] = []
    for name in _FLAGS:
        value = columns.get(name)
        if value:
            words += [f"--{name.replace('_', '-')}", *([value] if isinstance(value, str) else value)]
    return words + (["--no-prepare"] if columns.get("prepare") else [])


def dataset_of(manifest: Mapping[str, Any]) -> Path | None:
    """Return the dataset that scores were made from, if `lsi apply` can write one like it."""
    source = manifest.get("source") or {}
    path = source.get("path")
    return Path(path) if source.get("kind") == "file" and isinstance(path, str) else None


def command_of(folder: Path) -> dict[str, Any] | None:
    """Return the options that scores were made with, where they are at hand and say so."""
    from lsi.scores import load

    try:
        command = load(folder).manifest.get("command")
    except (LsiError, OSError):
        return None
    return dict(command) if isinstance(command, Mapping) and command else None


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def tell_apply(
    listed: Path, manifest: Mapping[str, Any], dataset: Path | None = None, words: Sequence[str] = ()
) -> None:
    """Say how a list is applied to a dataset, read by these options; None: that of the scores, as then."""
    dataset = dataset or dataset_of(manifest)
    if dataset is not None:
        cleaned = f"{dataset.stem}-cleaned{dataset.suffix if not dataset.is_dir() else ''}"
        tell_next("apply", listed, shown(dataset), *words, "-o", cleaned)


def tell_compute(cleaned: Path, mark: Mark | None, columns: Mapping[str, Any]) -> None:
    """Say how a cleaned dataset is scored, and its scores compared with the old ones."""
    old = (mark.scores if mark else None) or "OLD-SCORES"
    new = f"{str(old).rstrip('/')}-cleaned" if mark and mark.scores else "scores-cleaned"
    asked = command_of(Path(mark.scores)) if mark and mark.scores else None
    plain = ["--dataset", cleaned, *column_words(columns)]
    tell_next("compute", *(again(asked, cleaned) if asked else plain), "--output", new)
    tell_next("compare", old, new, then="Then")
