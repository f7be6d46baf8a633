"""Consoles that leave a closed pipe to `lsi.cli.main`."""

from __future__ import annotations

from rich.console import Console


class PipeConsole(Console):
    """A console that raises BrokenPipeError where rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Let the error through."""
        raise BrokenPipeError
