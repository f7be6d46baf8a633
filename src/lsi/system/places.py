"""Places of results, held against what a command reads: nothing is ever written over its own input.

Paths are compared by the files they lead to, so that links, hard links, capitals, `..` and relative spellings
make no difference. An output that does not exist yet can only lie inside an input.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from lsi.errors import OutputError
from lsi.system.machine import expand


def check_apart(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuse outputs that are an input or another output, lie inside one, or hold one.

    Both are by what messages call them, such as ``"--report"``; what is None or an input that is not there,
    is left out.
    """
    written = {name: expand(path) for name, path in outputs.items() if path is not None}
    given = {name: expand(path) for name, path in inputs.items() if path is not None}
    for what, place in written.items():
        for name, path in given.items():
            if path.exists():
                _refuse(
                    what,
                    place,
                    name,
                    path,
                    f"an input is never written to, not with --overwrite either. "
                    f"Choose another place for {what}.",
                )
    for (what, place), (name, path) in combinations(written.items(), 2):
        _refuse(what, place, name, path, "They need separate places. Put it next to the other, not inside.")


def _refuse(what: str, place: Path, name: str, path: Path, why: str) -> None:
    if _is_same(place, path):
        raise OutputError(f"{what} {str(place)!r} is the same as {name} {str(path)!r}: {why}")
    if _lies_inside(place, path):
        raise OutputError(f"{what} {str(place)!r} lies inside {name} {str(path)!r}: {why}")
    if _lies_inside(path, place):
        raise OutputError(f"{what} {str(place)!r} holds {name} {str(path)!r}: {why}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def _lies_inside(path: Path, folder: Path) -> bool:
    """Return whether a path is below a folder, by where it is written and by where its links lead."""
    above = set(Path(os.path.realpath(path)).parents)
    if path.name != "..":  # a link is in the folder that holds it, too
        real = Path(os.path.realpath(path.parent))
        above |= {real, *real.parents}
    return any(_is_same(each, folder) for each in above)
