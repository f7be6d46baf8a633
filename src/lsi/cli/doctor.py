"""``lsi doctor``: what is installed, what the machine can do, and whether a folder of scores is well."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.errors import LsiError
from lsi.text import plain_text

if TYPE_CHECKING:
    from lsi.doctor import Health


class UnwellError(LsiError):
    """Something has to be mended (exit code 1)."""


def doctor(
    scores: Path | None = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say what is installed, what the machine can do, and whether a folder of scores is as it should be.

    Exit code 0: all is well; 1: there are problems.

    Args:
        scores: Folder that `lsi compute --output` wrote; default: none is checked.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        UnwellError: If there are problems.
    """
    from lsi.doctor import examine

    health = examine(scores)
    if json:
        print(to_json.dumps(health.to_dict()))
    else:
        for line in _lines(health):
            print(plain_text(line, 1000))
    if health.problems:
        count = len(health.problems)
        raise UnwellError(f"{count} problem{'s' if count > 1 else ''} found.")


def _lines(health: Health) -> list[str]:
    from lsi.report.format import number

    machine = health.machine
    packages = ", ".join(f"{name} {found or 'missing'}" for name, found in health.versions.items())
    lines = [f"Installed: {packages}"]
    for name, extra in health.extras.items():
        lines.append(f"Extra {name}: {'complete' if extra['complete'] else extra['install']}")
    memory = machine["available_memory"]
    room = "an unknown amount" if memory is None else f"{memory / (1 << 30):.1f} GiB"
    lines += [
        f"Machine: {machine['system']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{room} of memory available",
        f"Products: {number(machine['float32_rate'] / 1e9)} GFLOP/s in float32, "
        f"{number(machine['float64_rate'] / 1e9)} in float64",
        f"GPUs: {', '.join(machine['gpus']) or 'none'}",
    ]
    if health.scores is not None and health.scores["readable"]:
        found = health.scores
        what = f"{found['rows']:,} rows, {found['task']}, {found['size'] / 1e6:.1f} MB"
        lines.append(f"Scores: {what}, {found['path']}")
    lines += [f"Remark: {remark}" for remark in health.remarks]
    lines += [f"Problem: {problem}" for problem in health.problems] or ["No problems found."]
    return lines
