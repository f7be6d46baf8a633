"""Errors of the library. Every message says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LsiError(Exception):
    """Base class of the errors that the library raises on purpose."""


class InputError(LsiError, ValueError):
    """Data or settings that cannot be used (command line: exit code 2)."""


class OutputError(LsiError, OSError):
    """A place that cannot be written to: taken, in use, read-only, disk full (exit code 2)."""


class ConvergenceError(LsiError, RuntimeError):
    """An optimisation that did not reach its tolerance (command line: exit code 1)."""


class OutOfMemoryError(LsiError, MemoryError):
    """Memory that ran out (command line: exit code 1)."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: ``Did you mean 'diag'? Known: 'diag', 'kron'.``."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Known: {', '.join(map(repr, names))}."
