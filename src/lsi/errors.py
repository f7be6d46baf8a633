"""Errors of the library: each message says what is wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LsiError(Exception):
    """Base of every error that the library raises on purpose."""


class InputError(LsiError, ValueError):
    """Data or settings that cannot be used as they are (command line: exit code 2)."""


class OutputError(LsiError, OSError):
    """A result that cannot be written: folder taken, read-only, disk full (exit code 2)."""


class ConvergenceError(LsiError, RuntimeError):
    """An optimisation that did not reach its tolerance (command line: exit code 1)."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the tail of an "unknown name" message: the closest known names, then all of them.

    Args:
        name: What was given.
        known: The names that exist.

    Returns:
        For example ``Did you mean 'diag'? Known: 'diag', 'kron', 'full'.``
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Known: {', '.join(map(repr, names))}."
