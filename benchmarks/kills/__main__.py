"""Runs that are killed again and again, and started again by the same command.

`python -m benchmarks.kills --kills 50 --seed 0 --output kills.json`: real commands in processes of their own
get SIGKILL at random moments, from the start of the interpreter to the removal of finished blocks, and are
started again until they end. The table has to be that of the uninterrupted command, byte for byte; nothing
else may be left in the folder.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lsi
import lsi.cli

FORK = multiprocessing.get_context("fork")
KINDS = {
    "newton, certified": ["--tol", "0.001", "--label-noise"],
    "newton, kron, overwriting": ["--posterior", "kron", "--overwrite"],
    "blocks": ["--solver", "blocks"],
    "retrain, two seeds": ["--method", "retrain", "--epochs", "60", "--lr", "0.05", "--n-seeds", "2"],
    "one of two shards": ["--shard", "1/2"],
}
CALL = "import sys; from lsi.cli import main; sys.exit(main(sys.argv[1:]))"
ENDINGS = ("identical", "different", "littered", "lost", "refused")
BY_TIME = 0.3  # share of kills at any time after the start; the others come soon after a result was kept
MOMENT = 0.15  # seconds


def main():
    """Kill commands of every kind in turn, print a line each, and exit with 1 where one ended differently."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="lsi-kills-"))
    draw, began, runs = random.Random(options.seed), time.perf_counter(), []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    if options.forks:
        _ = lsi.score, lsi.score_pairs  # imported on first use
    try:
        data = _data(folder, options.samples)
        whole = {kind: _whole(kind, data, folder, options) for kind in KINDS}
        while sum(run["kills"] for run in runs) < options.kills:
            kind = list(KINDS)[len(runs) % len(KINDS)]
            left = options.kills - sum(run["kills"] for run in runs)
            runs.append(_killed(kind, whole[kind], data, folder, draw, min(left, options.at_most), options))
            print(_line(runs[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = {ending: sum(run["ending"] == ending for run in runs) for ending in ENDINGS}
    total = sum(run["kills"] for run in runs)
    seconds = time.perf_counter() - began
    print(f"{total} kills in {len(runs)} runs, {seconds:.0f} s: {counts}")
    if options.output is not None:
        record = {"kills": total, "runs": runs, "counts": counts, "seconds": seconds, "seed": options.seed}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(counts["identical"] != len(runs))


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--at-most", type=int, default=5, help="kills of one run")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--forks", action="store_true", help="fork commands from a process that has imported all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="JSON file for the result")
    return parser.parse_args()


def _data(folder, n_samples):
    """Write overlapping classes, so that refinement has work to do."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, n_samples)
    X = rng.normal(size=(n_samples, 24)) + 1.5 * rng.normal(size=(6, 24))[codes]
    path = folder / "data.npz"
    np.savez(path, X=X.astype(np.float32), y=codes)
    return path


def _whole(kind, data, folder, options):
    """Return the table of the uninterrupted command and the seconds that it took."""
    place = folder / "whole"
    began = time.perf_counter()
    code, err = _Command(kind, data, place, options, extra=["--no-checkpoint"]).ended()
    if code:
        raise SystemExit(f"{kind}: the uninterrupted command failed: {err}")
    seconds = time.perf_counter() - began
    table = (place / "scores.parquet").read_bytes()
    shutil.rmtree(place)
    return table, seconds


def _killed(kind, whole, data, folder, draw, most, options):
    """Kill and start again up to `most` times, then let the command end."""
    place = folder / "runs"
    place.mkdir()
    output, (table, seconds) = place / "scores", whole
    kills, kept = 0, []
    while kills < most:
        started = _Command(kind, data, output, options)
        if draw.random() < BY_TIME:
            code = started.killed_after(draw.uniform(0, 1.1) * seconds)
        else:
            code = started.killed_at(place / "scores.unfinished", draw.randint(1, 8), draw.uniform(0, MOMENT))
        if code != -signal.SIGKILL:
            break  # it had ended before
        kills += 1
        kept.append(_count(place / "scores.unfinished"))
    last = None if _finished(output, place) else _Command(kind, data, output, options)
    code, err = (0, "") if last is None else last.ended()
    run = {"kind": kind, "kills": kills, "kept": kept, "error": err if code else ""}
    run["ending"] = _ending(code, output, place, table)
    shutil.rmtree(place)
    return run


def _finished(output, place):
    """Tell whether the last start ended, so that there is nothing to start again."""
    return output.exists() and not (place / "scores.unfinished").exists()


def _ending(code, output, place, table):
    if code:
        return "refused"
    if not (output / "scores.parquet").exists():
        return "lost"
    if (output / "scores.parquet").read_bytes() != table:
        return "different"
    # The lock of a command that was killed after its last step is empty, and no obstacle.
    left = {entry.name for entry in place.iterdir()} - {"scores", ".scores.lock"}
    return "littered" if left else "identical"


class _Command:
    """A command in a process of its own: a fresh interpreter, or a fork of this one, without imports."""

    def __init__(self, kind, data, output, options, extra=()):
        arguments = ["compute", "--dataset", str(data), "--quiet", "--audit", "6", *KINDS[kind]]
        arguments += ["--threads", str(options.threads), "--output", str(output), *extra]
        self.said = data.with_name("said.txt")
        if options.forks:
            self.process = FORK.Process(target=_call, args=(arguments, self.said))
            self.process.start()
            return
        with self.said.open("w") as said:
            self.process = subprocess.Popen([sys.executable, "-c", CALL, *arguments], stderr=said)

    def code(self, timeout=None):
        """Return the exit code; None where the command has not ended in time."""
        if isinstance(self.process, FORK.Process):
            self.process.join(timeout)
            return self.process.exitcode
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def ended(self):
        """Return exit code and what was said, after the end."""
        return self.code(), self.said.read_text()

    def killed_at(self, folder, more, moment):
        """Kill the process a moment after so many more results are kept, and return its exit code."""
        wanted = _count(folder) + more
        while self.code(0.002) is None and _count(folder) < wanted:
            pass
        return self.killed_after(moment)

    def killed_after(self, seconds):
        """Kill the process unless it ends before, and return its exit code."""
        if self.code(seconds) is None:
            self.process.kill()
        return self.code()


def _call(arguments, said):
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(lsi.cli.main(arguments))


def _count(folder):
    try:
        return sum(name.endswith(".block") for name in os.listdir(folder))
    except FileNotFoundError:  # not there yet, or gone: the run is complete
        return 0


def _line(run):
    kept = ", ".join(map(str, run["kept"])) or "none"
    return f"{run['kind']:28}{run['kills']:3} kills   {run['ending']:10} kept at each: {kept} {run['error']}"


if __name__ == "__main__":
    main()
