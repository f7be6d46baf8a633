"""What a run was asked for: its options, as the manifest keeps them and as one would type them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsi.cli.inputs.options import (
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    PairOptions,
    ProbeOptions,
)
from lsi.cli.inputs.places import NAMES_OR_PATHS, is_name, split_file


def asked(*groups: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults, by name, as JSON values; paths are absolute."""
    found: dict[str, Any] = {}
    for group in groups:
        for entry in dataclasses.fields(group):
            value = getattr(group, entry.name)
            if value != entry.default:
                found[entry.name.replace("_", "-")] = _plain(entry.name, value)
    return found


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if name in NAMES_OR_PATHS and not is_name(value):
        before, path = split_file(value)
        return before + str(Path(path).absolute()) if Path(path).exists() else value
    return list(value) if isinstance(value, tuple) else value


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line.

    Examples:
        >>> words_of({"tol": 0.1, "audit": False, "active-classes": ["a", "b"], "first": -1})
        ['--tol', '0.1', '--no-audit', '--active-classes', 'a', 'b', '--first=-1']
    """
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name}")
            continue
        values = [str(each) for each in (value if isinstance(value, list) else [value])]
        if any(each.startswith("-") for each in values):  # which would be taken for options
            words += [f"{flag}={each}" for each in values]
        elif values:
            words += [flag, *values]
    return words


def again(options: Mapping[str, Any], dataset: Path) -> list[str]:
    """Return the words that score another version of a dataset in the same way, without planted errors."""
    groups = (DataOptions, EncoderOptions, ProbeOptions, PairOptions, MethodOptions, MachineOptions)
    known = {entry.name.replace("_", "-") for group in groups for entry in dataclasses.fields(group)}
    kept = {name: _shown(value) for name, value in options.items() if name in known}
    return words_of({**kept, "dataset": str(dataset)})


def _shown(value: Any) -> Any:
    """Return a path below the current folder as one would type it here."""
    if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_relative_to(Path.cwd()):
        return str(Path(value).relative_to(Path.cwd()))
    return value
