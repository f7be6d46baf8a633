"""Commands that are killed at every single step on the disk, and started again.

`python -m benchmarks.kills.steps --output steps.json`: each command is a fork of this process, and ends by
SIGKILL at its first step on the disk, then at its second, and so on to the last (`benchmarks.kills.shim`).
After each kill what was there before has to be there, or else the new, each as a whole. Then the same command
is started again: it has to succeed, or to say that its work is done already, and leave the bytes of a
command that was never killed, and nothing else.

The journal's trials replace folders as systems do that cannot exchange two in one step.
"""

import argparse
import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tests import makers

import lsi
import lsi.cli
import lsi.report
from benchmarks.kills.shim import Steps
from lsi.system import drafts

LIMIT = 120  # seconds for one command of a second or two, on a machine that is busy
ENDINGS = ("as one", "half there", "lost", "refused", "different", "littered")
SCORE = ["compute", "--quiet", "--threads", "1", "--audit", "2", "--no-label-noise"]
DATA, SCORES, PARTS = ["--dataset", "in/data.npz"], "in/scores", ["in/part1", "in/part2"]
MERGE = ["merge", *PARTS, "--quiet", "--output", "out/scores"]
REPORT = ["--report", "out/report.html"]
ENCODE = ["--dataset", "in/photos", "--encoder", "in/encoder", "--cache-dir", "out/cache"]
OLD = [[*SCORE, *DATA, "--posterior", "kron", "--output", "out/scores", *REPORT]]
COMMANDS = {
    "compute": ([], [*SCORE, *DATA, "--output", "out/scores", *REPORT]),
    "compute --overwrite": (OLD, [*SCORE, *DATA, "--output", "out/scores", *REPORT, "--overwrite"]),
    "compute --overwrite, journal": (OLD, [*SCORE, *DATA, "--output", "out/scores", "--overwrite"]),
    "compute, encoding": ([], [*SCORE, *ENCODE, "--output", "out/scores"]),
    "apply, arrays": ([], ["apply", "in/kept.json", "in/data.npz", "--output", "out/clean.npz"]),
    "apply, two files": (
        [],
        ["apply", "in/kept.json", "in/plain.npy", "--output", "out/clean.npy"],
    ),
    "apply, folder": ([], ["apply", "in/photos.json", "in/photos", "--output", "out/clean"]),
    "select": ([], ["select", SCORES, "--keep", "0.95", "--output", "out/kept.parquet"]),
    "mislabeled": ([], ["mislabeled", SCORES, "--output", "out/list.csv"]),
    "merge": ([], MERGE),
    "merge --overwrite": (
        OLD,
        ["merge", *PARTS, "--quiet", "--output", "out/scores", *REPORT, "--overwrite"],
    ),
    "merge --overwrite, journal": (
        OLD,
        ["merge", *PARTS, "--quiet", "--output", "out/scores", "--overwrite"],
    ),
    "report": (OLD, ["report", SCORES, "--output", "out/report.html"]),
    "cache rm": (
        [[*SCORE, *ENCODE, "--output", "out/scores"]],
        ["cache", "rm", "--all", "--cache-dir", "out/cache"],
    ),
}
DONE_BEFORE = ("already there", "already holds")


def main():
    """Try the commands in turn, print a line each, and exit with 1 where one kill did any harm."""
    options = _options()
    os.environ["OMP_NUM_THREADS"] = "1"
    _ = lsi.score, lsi.load_samples, lsi.encode, lsi.report.write_report  # imported on first use
    folder, here, began = (
        Path(tempfile.mkdtemp(prefix="lsi-steps-")).resolve(),
        Path.cwd(),
        time.perf_counter(),
    )
    try:
        os.chdir(folder)
        names = [name for name in COMMANDS if not options.commands or name in options.commands]
        _inputs(names)
        trials = [_tried(name, folder, options.most, options.seed) for name in names]
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)
    kills = sum(len(trial["kills"]) for trial in trials)
    counts = {ending: sum(trial["counts"][ending] for trial in trials) for ending in ENDINGS}
    print(f"{len(trials)} commands, {kills} kills, {time.perf_counter() - began:.0f} s: {counts}")
    if options.output is not None:
        options.output.write_text(json.dumps({"counts": counts, "trials": trials}, indent=1) + "\n")
    sys.exit(counts["as one"] != kills)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=0, help="kills of one command, spread; 0: at every step")
    parser.add_argument("--commands", nargs="*", choices=list(COMMANDS), default=[])
    parser.add_argument("--seed", type=int, default=0, help="where the first of spread kills is")
    parser.add_argument("--output", type=Path, default=None, help="JSON file for the result")
    options = parser.parse_args()
    options.output = options.output and options.output.absolute()
    return options


def _inputs(names):
    """Make what the commands read: data and scores of them."""
    place = Path("in")
    place.mkdir()
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 150)
    X = rng.normal(size=(150, 5)) + 2 * rng.normal(size=(3, 5))[codes]
    np.savez(place / "data.npz", X=X.astype(np.float32), y=codes)
    np.save(place / "plain.npy", X.astype(np.float32))
    np.save(place / "plain_labels.npy", codes)
    for command in (
        [*SCORE, *DATA, "--output", SCORES],
        [*SCORE, *DATA, "--output", PARTS[0], "--shard", "1/2"],
        [*SCORE, *DATA, "--output", PARTS[1], "--shard", "2/2"],
        ["select", SCORES, "--keep", "0.95", "--output", "in/kept.json"],
    ):
        _whole(command)
    if any(
        "photos" in part
        for name in names
        for line in [*COMMANDS[name][0], COMMANDS[name][1]]
        for part in line
    ):
        _photos(place)


def _photos(place):
    """Make pictures, an encoder, and scores of them."""
    from PIL import Image

    makers.tiny_resnet(place / "encoder")
    for k, picture in enumerate(makers.pictures(24, 32)[0]):
        path = place / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    encode = [part.replace("out/", "in/") for part in ENCODE]
    _whole([*SCORE, *encode, "--output", "in/of-photos"])
    _whole(["select", "in/of-photos", "--keep", "0.95", "--output", "in/photos.json"])


def _tried(name, folder, most, seed):
    """Kill one command at each of its steps."""
    before, command = COMMANDS[name]
    journal, kills, began = "journal" in name, [], time.perf_counter()
    _fresh(None)
    for one in before:
        _whole(one)
    shutil.copytree("out", "before")
    steps = _whole(command, journal)
    new, old = _tree("out"), _tree("before")
    for step in _spread(len(steps), most, seed):
        _fresh("before")
        _Fork(command, folder, step, journal).ended()
        found = _between(old, new)
        code, said = (0, "") if found else _again(command, folder, journal)
        ending, what = (found, "") if found else ("refused", "") if code else _ending(new)
        kills.append({"step": step, "at": steps[step - 1], "ending": ending, "what": what, "said": said})
        if ending != "as one":
            print(f"  {name}, step {step} ({steps[step - 1]}): {ending} {what} {said}", flush=True)
    shutil.rmtree("before")
    counts = {ending: sum(kill["ending"] == ending for kill in kills) for ending in ENDINGS}
    seconds = time.perf_counter() - began
    print(
        f"{name:30}{len(steps):4} steps {len(kills):4} kills {counts['as one']:4} as one {seconds:5.0f} s",
        flush=True,
    )
    return {"command": name, "steps": len(steps), "kills": kills, "counts": counts, "seconds": seconds}


def _fresh(before):
    shutil.rmtree("out", ignore_errors=True)
    if before is None:
        Path("out").mkdir()
    else:
        shutil.copytree(before, "out")


def _spread(count, most, seed):
    """Return the steps at which to kill: all, or so many from everywhere."""
    if not most or most >= count:
        return range(1, count + 1)
    return sorted({1 + (k * count + seed % count) // most % count for k in range(most)})


def _again(command, folder, journal):
    """Start a command again; return 0 if it succeeds or says that its work is done, and what it said."""
    code, said, _ = _Fork(command, folder, 0, journal).ended()
    return (0 if any(words in said for words in DONE_BEFORE) else code), said


def _between(old, new):
    """Return what is wrong with the results after a kill: each is the old or the new one, as a whole."""
    if any(name.startswith("scores/") for name in old):
        try:
            lsi.load("out/scores")  # puts back what was moved away
        except lsi.LsiError:
            return "lost"
    now = _tree("out")
    for place in sorted({path.partition("/")[0] for path in (*old, *new)} - {"cache"}):
        versions = [_below(tree, place) for tree in (old, new)]
        found = _below(now, place)
        if found not in versions:
            return "half there" if found else "lost"
    return ""


def _below(tree, place):
    """Return what of a tree belongs to a place."""
    return {path: digest for path, digest in tree.items() if path.partition("/")[0] == place}


def _ending(new):
    """Return how a tree differs from that of a command that was never killed, and where."""
    now = _tree("out")
    if more := now.keys() - new.keys():
        return "littered", ", ".join(sorted(more))
    other = [path for path in new if now.get(path) != new[path]]
    return ("different" if other else "as one"), ", ".join(other)


def _tree(folder):
    """Return a digest of every file and empty folder below a folder, by path."""
    found = Path(folder).rglob("*")
    return {path.relative_to(folder).as_posix(): _digest(path) for path in found if _is_leaf(path)}


def _is_leaf(path):
    return not path.is_dir() or not any(path.iterdir())


def _digest(path):
    """Return what has to be the same; of a file that holds times and dates, that it is whole."""
    if path.is_dir():
        return "folder"
    content = path.read_bytes()
    if path.suffix == ".html" and content.rstrip().endswith(b"</html>"):
        return "whole"
    if path.name == "manifest.json" and content.rstrip().endswith(b"}"):
        return "whole" if json.loads(content) else ""
    return hashlib.sha256(content).hexdigest()


def _whole(command, journal=False):
    """Run a command to its end, and return its steps."""
    code, said, steps = _Fork(command, Path.cwd(), 0, journal).ended()
    if code:
        raise SystemExit(f"{' '.join(command)} failed: {said}")
    return steps


class _Fork:
    """A command in a fork of this process, which ends at a step of it."""

    def __init__(self, command, folder, last, journal):
        self._said, self._steps = Path("said.txt"), Path("steps.txt")
        self._steps.write_text("")
        sys.stdout.flush()
        self._process = os.fork()
        if not self._process:
            self._run(command, folder, last, journal)

    def _run(self, command, folder, last, journal):
        code = 99
        try:
            with self._said.open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            if journal:
                drafts._exchange = functools.cache(lambda: None)
            steps = Steps(folder / "out", last)
            places = ("in/", "out/")
            code = lsi.cli.main([str(folder / part) if part.startswith(places) else part for part in command])
            self._steps.write_text("\n".join(steps.done))
        finally:
            os._exit(code)

    def ended(self):
        """Return exit code, what was said, and the steps, after the end."""
        until = time.monotonic() + LIMIT
        while (ended := os.waitpid(self._process, os.WNOHANG))[0] == 0:
            if time.monotonic() > until:
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)
                raise SystemExit(f"a command hung for {LIMIT} s: {self._said.read_text()}")
            time.sleep(0.002)
        return (
            os.waitstatus_to_exitcode(ended[1]),
            self._said.read_text(),
            self._steps.read_text().split("\n"),
        )


if __name__ == "__main__":
    main()
