"""A short soak: what grows with each run or command would grow here too."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import soak

REPOSITORY = Path(__file__).parents[2]


def test_nothing_grows_with_runs_and_commands():
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    command = [sys.executable, "-m", "benchmarks.soak", "--runs", "4", "--commands", "4"]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing grew\n")


def test_a_leak_is_noticed():
    steady = {"memory": 1 << 29, "files open": 6, "threads": 4, "processes": 0, "files left": 1}
    assert soak._grown([steady] * 20) == []
    for name, more in (("memory", soak.GROWTH + 1), ("files open", 1), ("threads", 1), ("files left", 1)):
        grown = soak._grown([steady] * 19 + [steady | {name: steady[name] + more}])
        assert len(grown) == 1 and grown[0].startswith(name)
