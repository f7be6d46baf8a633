"""Thousands of small runs and commands in one process: does anything grow?

`python -m benchmarks.soak --runs 5000 --commands 1440 --output soak.json`: runs of every kind, each saved,
loaded and now and then made into a page; then commands, one for each minute of a day. Memory, open files,
threads, child processes and files in the folders for temporary files are counted along the way. Between
the end of the first fifth, after every kind has run often and caches are warm, and the end, files, threads
and processes must not grow at all, and memory by at most `GROWTH`.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import torch

import lsi
import lsi.cli
import lsi.report

# A leak of 3 kB for each of 5,000 runs. Less cannot be told from the allocator's ups and downs in a short
# trial: a first page alone moves it by 7 MiB.
GROWTH = 16 << 20
WARM = 10  # more than there are kinds of runs, or of commands
COUNTS = ("files open", "threads", "processes", "files left")


def main():
    """Make the runs, then the commands, print the counts, and exit with 1 where something grew."""
    options = _options()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="lsi-soak-")).resolve()
    here = Path.cwd()
    for name in ("TMPDIR", "LSI_CACHE"):
        os.environ[name] = str(folder / name.lower())
        (folder / name.lower()).mkdir()
    tempfile.tempdir = None
    trials = {}
    try:
        os.chdir(folder)
        data = _data(folder)
        trials["runs"] = _counted(options.runs, lambda k: _run(k, data, folder), folder)
        trials["commands"] = _counted(options.commands, lambda k: _command(k, folder), folder)
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)
    grown = [f"{name}: {what}" for name, counts in trials.items() for what in _grown(counts)]
    print("nothing grew" if not grown else "\n".join(grown))
    if options.output is not None:
        options.output.write_text(json.dumps({"trials": trials, "grown": grown}, indent=1) + "\n")
    sys.exit(bool(grown))


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--commands", type=int, default=1440)
    parser.add_argument("--output", type=Path, default=None, help="JSON file for the result")
    options = parser.parse_args()
    options.output = options.output and options.output.absolute()
    return options


def _data(folder):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 40)
    X = (rng.normal(size=(40, 4)) + 2 * rng.normal(size=(3, 4))[codes]).astype(np.float32)
    np.savez(folder / "data.npz", X=X, y=codes)
    return X, codes


KINDS = (
    dict(),
    dict(posterior="kron", label_noise=True),
    dict(posterior="full", method=lsi.Newton(tol=1e-3)),
    dict(method=lsi.Newton(solver="blocks")),
    dict(method=lsi.Retrain(epochs=3)),
    dict(probe=lsi.MLPProbe(hidden=(3,)), method=lsi.Retrain(epochs=3), subset=range(6)),
    dict(probe=lsi.RidgeProbe()),
    dict(checkpoint="blocks"),
)


def _run(k, data, folder):
    """Score, save, load; now and then make a page, and now and then hand in what is refused."""
    scores = lsi.score(*data, audit=2, **{"label_noise": False, **KINDS[k % len(KINDS)]})
    scores.save(folder / "scores", overwrite=True)
    loaded = lsi.load(folder / "scores")
    shutil.rmtree(folder / "blocks", ignore_errors=True)
    if k % 10 == 0:
        lsi.report.write_report(folder / "page.html", loaded)
    if k % 3 == 0:
        with contextlib.suppress(lsi.LsiError):
            lsi.score(data[0], data[1][:-1])


SCORE = ["compute", "-q", "-d", "data.npz", "--audit", "2", "--no-label-noise", "--overwrite"]
COMMANDS = (
    [*SCORE, "-o", "scores", "--report", "page.html"],
    ["select", "scores", "--keep", "0.95", "-o", "kept.json"],
    ["apply", "kept.json", "data.npz", "-o", "clean.npz"],
    ["mislabeled", "scores", "-o", "list.csv"],
    ["report", "scores", "-o", "page.html"],
    ["show", "scores"],
    ["show", "nothing"],
    ["cache", "ls"],
    ["plan", "data.npz"],
)
WRITTEN = ("kept.json", "clean.npz", "list.csv")


def _command(k, folder):
    """Call one command, and take away what the next of its kind would refuse to replace."""
    command = COMMANDS[k % len(COMMANDS)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = lsi.cli.main(command)
    if code != (2 if command[-1] == "nothing" else 0):
        raise SystemExit(f"{' '.join(command)} failed: {said.getvalue()}")
    if k % len(COMMANDS) == len(COMMANDS) - 1:
        for name in WRITTEN:
            (folder / name).unlink(missing_ok=True)


def _counted(times, do, folder):
    """Call a function so often, and count at the end of every twentieth part."""
    process, counts, began = psutil.Process(), [], time.perf_counter()
    every = max(1, times // 20)
    for k in range(-WARM, times):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            do(k + WARM)
        if k >= 0 and (k + 1) % every == 0:
            counts.append(_count(process, folder) | {"after": k + 1})
            seconds = time.perf_counter() - began
            print(f"{k + 1:6} in {seconds:6.0f} s: {counts[-1]}", flush=True)
    return counts


def _count(process, folder):
    left = [name for place in ("tmpdir", "lsi_cache") for name in (folder / place).rglob("*")]
    return {
        "memory": process.memory_info().rss,
        "files open": process.num_fds(),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
        "files left": len(left) + len([name for name in folder.glob(".*")]),
    }


def _grown(counts):
    """Return what is more at the end than after the first fifth."""
    first, last = counts[len(counts) // 5], counts[-1]
    grown = [f"{name} grew from {first[name]} to {last[name]}" for name in COUNTS if last[name] > first[name]]
    if last["memory"] > first["memory"] + GROWTH:
        grown.append(f"memory grew by {(last['memory'] - first['memory']) / 2**20:.1f} MiB")
    return grown


if __name__ == "__main__":
    main()
