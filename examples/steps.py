"""What the examples share: a command is printed as one would type it, and run."""

from __future__ import annotations

import shlex
import sys

from lsi.cli import main


def run(command: str) -> None:
    """Run a command line such as `lsi compute …` in this process; end here if it fails."""
    print(f"\n$ {command}", flush=True)
    program, *words = shlex.split(command)
    assert program == "lsi"
    code = main(words)
    if code:
        sys.exit(code)
