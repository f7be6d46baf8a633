"""What a command reads, by option: the paths that its results must stay away from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.options import DataOptions, LongRunOptions, OutputOptions
from lsi.errors import OutputError

if TYPE_CHECKING:
    from lsi.scores import Scores

NAMES_OR_PATHS = ("dataset", "encoder", "encoder_2", "text_encoder")
"""Options that take a name as well as a path."""
_PLACES = ("data_dir", "cache_dir")
"""Folders in which a command looks for things by name: results may lie beside them."""


def inputs_of(*groups: Any) -> dict[str, Path | None]:
    """Return every path that groups of options read, by the option's name."""
    found: dict[str, Path | None] = {}
    for group in groups:
        for entry in dataclasses.fields(group):
            value = getattr(group, entry.name)
            is_path = isinstance(value, Path) and entry.name not in _PLACES
            if is_path or (isinstance(value, str) and entry.name in NAMES_OR_PATHS and not is_name(value)):
                found[f"--{entry.name.replace('_', '-')}"] = _file_in(value)
    return found


def _file_in(value: str | Path) -> Path:
    return Path(split_file(str(value))[1])


def split_file(value: str) -> tuple[str, str]:
    """Return what stands before a path in an option, and the path: ``resnet18:`` and ``weights.pt``."""
    head, colon, tail = value.partition(":")
    return (head + colon, tail) if Path(tail).suffix and not os.path.lexists(value) else ("", value)


def is_name(value: str) -> bool:
    """Return whether an option that takes names as well as paths holds a known name."""
    from lsi.data.archives.named import is_known

    return is_known(value) or "\0" in value


def check_results(output: OutputOptions, long: LongRunOptions | None, *groups: Any) -> None:
    """Refuse results that would touch what the options read, or each other."""
    from lsi.system.places import check_apart

    outputs = {"--output": output.output, "--report": output.report}
    if long is not None and long.checkpoint is not None:
        outputs["--checkpoint"] = long.checkpoint
    check_apart(outputs, inputs_of(*groups))
    for group in groups:
        if isinstance(group, DataOptions) and group.data_dir is not None and output.report is not None:
            _check_archives(output.report, group.data_dir)


def _check_archives(report: Path, folder: Path) -> None:
    """Refuse to replace a file in the folder of archives, unless it is a page of ours."""
    from lsi.results.marks import REPORT, read_mark

    mark = read_mark(report)
    if not report.is_file() or not folder.is_dir() or (mark is not None and mark.kind == REPORT):
        return
    if any(os.path.samefile(report, entry) for entry in folder.rglob("*") if entry.is_file()):
        raise OutputError(
            f"--report {str(report)!r} is a file in --data-dir {str(folder)!r}, which is never replaced. "
            "Choose another name."
        )


def path_of(dataset: str | None) -> Path | None:
    """Return the path in an option that takes names as well."""
    return None if dataset is None or is_name(dataset) else Path(dataset)


def source_of(scores: Scores) -> Path | None:
    """Return the file or folder that scores were made from, where they say so."""
    path = (scores.manifest.get("source") or {}).get("path")
    return Path(path) if isinstance(path, str) and path else None
