"""``python -m lsi``, and the command ``lsi``: from here on, an interruption ends in one line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code; SIGTERM interrupts it as Ctrl-C does, from here on."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Threads that wait for each other by spinning stand still while another program has one of their cores:
    # beside one such program, sums over sampled rows took four times as long on two cores as without that.
    # Where the machine does nothing else, that costs a tenth. OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from lsi.cli import main as run

        code = run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _INTERRUPTED
    # After `python -m`, the interpreter ends itself by SIGINT if the last `exec` of a text was interrupted,
    # as it may be in an import, even where that was caught.
    exec("pass")
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
