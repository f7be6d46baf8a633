"""Every writer of `lsi.system.files` killed at each of its steps, in a light process that forks quickly.

Prints how many steps there were, and what was wrong after a kill.
"""

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.kills.shim import Steps

from lsi.system import drafts, files

OLD, NEW = {"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new"}


def content(path):
    if not path.is_dir():
        return path.read_bytes() if path.exists() else None
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def new_file(path):
    with files.new_file(path) as draft:
        draft.write_bytes(b"new")


def new_folder(path):
    with files.new_folder(path) as draft:
        for name, value in NEW.items():
            (draft / name).write_bytes(value)


def replace_file(path):
    files.replace_file(path, b"new")


def replace_folder(path):
    files.replace_folder(path, NEW, "scores", lambda folder: set(os.listdir(folder)) <= {"a", "b"})


WRITERS = [
    ("a new file", new_file, None, b"new", False),
    ("a new folder", new_folder, None, NEW, False),
    ("a file that replaces another", replace_file, b"old", b"new", False),
    ("a folder that replaces another", replace_folder, OLD, NEW, False),
    ("the same by a journal", replace_folder, OLD, NEW, True),
]


def killed(write, place, journal, last):
    """Write in a fork that ends at a step; return whether it did, and how many steps there were."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        if journal:
            drafts._exchange = lambda: None
        steps = Steps(place.parent, last)
        write(place)
        os.write(writer, str(len(steps.done)).encode())
        os._exit(0)
    os.close(writer)
    status, count = os.waitpid(child, 0)[1], os.read(reader, 100)
    os.close(reader)
    return os.waitstatus_to_exitcode(status) < 0, int(count or 0)


def wrong(write, place, old, new, journal, last):
    """Return what is wrong after a kill and another try: an empty text if nothing is, None after the last."""
    if isinstance(old, dict):
        place.mkdir()
        for name, value in old.items():
            (place / name).write_bytes(value)
    elif old is not None:
        place.write_bytes(old)
    if not killed(write, place, journal, last)[0]:
        return None
    drafts.tidy(place.parent)
    left = content(place)
    if left not in (old, new):
        return f"{left} is there"
    if {entry.name for entry in place.parent.iterdir()} - {place.name}:
        return f"{os.listdir(place.parent)} is left"
    if not (left == new and old is None) and killed(write, place, journal, 0)[0]:
        return "it cannot be written again"
    return (
        "" if content(place) == new and os.listdir(place.parent) == [place.name] else "it is not the new one"
    )


if __name__ == "__main__":
    for name, write, old, new, journal in WRITERS:
        last, found = 0, ""
        while found is not None:
            last += 1
            with tempfile.TemporaryDirectory() as folder:
                found = wrong(write, Path(folder).resolve() / "place", old, new, journal, last)
            if found:
                print(f"{name}, step {last}: {found}", file=sys.stderr)
        print(f"{name}: {last - 1} steps")
