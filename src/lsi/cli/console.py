"""What the commands print with: tables on stdout, sentences on stderr."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsi.system.text import plain_text


class PipeConsole(Console):
    """A console that lets `lsi.cli.main` end the process when the reader of a pipe has gone.

    rich itself would end it with exit code 1.
    """

    def on_broken_pipe(self) -> None:
        """Raise the error that rich would hide."""
        raise BrokenPipeError


def out_console(width: int = 120) -> PipeConsole:
    """Return a console on stdout; a pipe or a file, which has no width of its own, is `width` wide."""
    console = PipeConsole(highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def plain_table(title: str) -> Table:
    """Return an empty table without lines, under a title."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )


ALARM = "bold red"


def say(line: str, style: str = "") -> None:
    """Print one line on stderr."""
    Console(stderr=True, highlight=False).print(Text(plain_text(line, 500), style=style))


def speaker(quiet: bool) -> Callable[[str], None]:
    """Return what prints a sentence on stderr, unless the command is quiet."""
    return (lambda line: None) if quiet else say
