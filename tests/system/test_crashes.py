"""Processes that are killed at a step on the disk leave the old or the new, and nothing that stays.

`python -m benchmarks.kills.steps` tries every step of every command that writes.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="needs Linux, which tells open files' names"
)


def run(*arguments):
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
    )


def test_every_writer_at_every_step():
    done = run("-m", "tests.system.every_step")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    counts = [int(count) for count in re.findall(r": (\d+) steps$", done.stdout, re.M)]
    assert len(counts) == 5
    assert min(counts) >= 8  # folder, lock, draft, content, flush, name, flush, and what goes


COMMANDS = ["merge --overwrite, journal", "apply, two files", "select"]


def test_commands_at_some_of_their_steps():
    done = run("-m", "benchmarks.kills.steps", "--most", "1", "--seed", "3", "--commands", *COMMANDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(COMMANDS)} commands, {len(COMMANDS)} kills" in done.stdout
