"""Messages of the library in the spelling of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cyclopts import App

_SETTING = re.compile(r"(?<![^\s(])(\w+)=(?:'([\w.-]+)'|([+-]?\d[\d.e+-]*\d|\d))(?![\w=(\[])")
"""A setting as Python takes it: a name, and a text in quotes or a number."""


def options_of(app: App, tokens: Sequence[str]) -> set[str]:
    """Return the long options of the command that these words call."""
    command = app
    for word in tokens:
        if word.startswith("-") or word not in command:
            break
        command = command[word]
    if command.default_command is None:
        return set()
    arguments = command.assemble_argument_collection(parse_docstring=False)
    return {name for argument in arguments for name in argument.names if name.startswith("--")}


def as_options(message: str, options: Iterable[str]) -> str:
    """Return a message with settings such as ``keep=0.5`` as the command takes them, where it has them.

    Examples:
        >>> as_options("Use method='retrain', or keep=0.5.", {"--method", "--keep"})
        'Use --method retrain, or --keep 0.5.'
        >>> as_options("Use dim=32.", {"--keep"})
        'Use dim=32.'
    """
    known = set(options)

    def spelt(found: re.Match[str]) -> str:
        option = f"--{found[1].replace('_', '-')}"
        return f"{option} {found[2] or found[3]}" if option in known else found[0]

    return _SETTING.sub(spelt, message)
