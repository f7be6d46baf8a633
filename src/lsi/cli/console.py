"""Consoles that leave a closed pipe to `lsi.cli.main`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsi.system.text import plain_text

if TYPE_CHECKING:
    pass


class PipeConsole(Console):
    """A console that raises BrokenPipeError where rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Let the error through."""
        raise BrokenPipeError


def out_console(width: int = 120) -> PipeConsole:
    """Return a console on stdout; a pipe or a file, which has no width, gets this one."""
    console = PipeConsole(highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def plain_table(title: str) -> Table:
    """Return an empty table without lines, under a title."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )


def say(line: str) -> None:
    """Print one line on stderr."""
    Console(stderr=True, highlight=False).print(Text(plain_text(line, 300)))
