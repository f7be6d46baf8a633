"""Broken and hostile input by the hundred thousand, in processes that are watched.

    python -m benchmarks.fuzz --loaders 250000 --commands 25000 --seed 0 --jobs 2 --output fuzz.json

Every loader, the feature cache, decisions, folders of scores, encoders, bombs, pipes and names, and the
command line. A case has to end well or in an `LsiError`, within 20 seconds and 2 GiB, and must leave the
files that it reads as they were. Whatever else happens is reported with its input: losses, hangs, peaks of
memory, and errors without a name, a crash of the interpreter included. The table at the end sums them up;
the exit code is 1 where there are any.

Cases run in forked workers, a few thousand in each; a worker that crashes or hangs is replaced, and the rest
of its cases run on.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzzing.commands import command_targets
from tests.fuzzing.engine import LONGEST, Outcome, forget_peak, fuzz, kind_of
from tests.fuzzing.hostile import hostile_targets
from tests.fuzzing.loaders import loader_targets
from tests.fuzzing.results import result_targets

BUDGET = "1GiB"  # of the door: half of what a case may take
ADDRESSES = (
    16 << 30
)  # bytes of address space that a worker may have: beyond that it fails instead of the machine
PIECE = {"commands": 1000, "loaders": 4000}  # cases of a worker
PATIENCE = LONGEST + 20  # seconds without a new case after which a worker is taken for hanging
KINDS = ("losses", "hangs", "peaks", "tracebacks")
GROUPS = {
    "loaders": loader_targets,
    "hostile": hostile_targets,
    "results": result_targets,
    "commands": command_targets,
}
SHARES = {"scores,": 0.08, "encoder,": 0.15, "no files": 4.0, "names": 2.0, "bombs": 4.0, "own files": 4.0}
UNGUIDED = ("scores,", "encoder,", "no files", "names", "bombs", "own files", "command line")


@dataclass
class Piece:
    """Cases of one target for one worker."""

    group: str
    name: str
    cases: int
    seed: str
    outcome: Outcome | None = None
    seconds: float = 0.0
    process: object = None
    pipe: object = None
    last: Path | None = None
    began: float = field(default_factory=time.monotonic)


def main():
    """Fuzz every target, print a line each and the table, and exit with 1 where one failed."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="lsi-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    os.environ.update(LSI_MEMORY=BUDGET, HF_HUB_OFFLINE="1", LSI_CACHE=str(folder / "cache"))
    began = time.monotonic()
    try:
        done = _run(_plan(options), options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = _rows(done)
    failed = _print(rows, time.monotonic() - began, options)
    if options.output is not None:
        _collect(options.output, rows, options.seed)
    sys.exit(1 if failed else 0)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loaders", type=int, default=200_000, help="cases over all readers of files")
    parser.add_argument("--commands", type=int, default=20_000, help="cases over the command line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="workers at a time")
    parser.add_argument("--only", default="", help="targets whose name holds this text")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the inputs of failures")
    parser.add_argument("--output", type=Path, default=None, help="JSON file that collects the results")
    return parser.parse_args()


def _plan(options):
    """Return the pieces, the longest targets first."""
    found = _in_child(lambda pipe: pipe.send(_names()))
    weights = {
        (group, name): next((share for start, share in SHARES.items() if name.startswith(start)), 1.0)
        for group, name in found
        if options.only in name
    }
    total = sum(weight for (group, _), weight in weights.items() if group != "commands") or 1.0
    pieces = []
    for (group, name), weight in weights.items():
        cases = options.commands if group == "commands" else -(-options.loaders * weight // total)
        size = PIECE["commands" if group == "commands" else "loaders"]
        for place in range(0, int(cases), size):
            pieces.append(Piece(group, name, min(size, int(cases) - place), f"{options.seed}/{place}"))
    return sorted(pieces, key=lambda piece: piece.group != "commands")


def _names():
    with tempfile.TemporaryDirectory() as place:
        return [(group, target.name) for group in GROUPS for target in _targets(group, Path(place))]


def _targets(group, folder):
    (folder / group).mkdir(parents=True, exist_ok=True)
    return GROUPS[group](folder / group)


def _in_child(work):
    """Return what `work` sends from a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender,))
    child.start()
    sender.close()
    found = receiver.recv()
    child.join()
    return found


def _run(waiting, options, folder):
    """Run the pieces in so many workers at a time; return them with their outcomes."""
    running, done, number = [], [], 0
    while waiting or running:
        while waiting and len(running) < options.jobs:
            piece = waiting.pop(0)
            number += 1
            _start(piece, folder / f"work{number}")
            running.append(piece)
        time.sleep(0.05)
        for piece in list(running):
            rest = _look(piece)
            if rest is None:
                continue
            running.remove(piece)
            done.append(piece)
            shutil.rmtree(piece.last.parent, ignore_errors=True)
            waiting[:0] = rest
            _tell(piece, options.keep)
    return done


def _start(piece, place):
    place.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    piece.last = place / "last"
    piece.pipe, sender = context.Pipe(duplex=False)
    piece.process = context.Process(target=_work, args=(piece, place, sender))
    piece.began = time.monotonic()
    piece.process.start()
    sender.close()


def _work(piece, place, pipe):
    """Use the cases of a piece, in a process that may crash."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C talk about every broken picture
    os.environ["LSI_CACHE"] = str(place / "cache")
    target = next(found for found in _targets(piece.group, place) if found.name == piece.name)
    forget_peak()
    count = 0

    def before(content):
        nonlocal count
        count += 1
        piece.last.write_bytes(count.to_bytes(8, "little") + content)

    guided = not piece.name.startswith(UNGUIDED)
    pipe.send(fuzz(target, piece.cases, piece.seed, guided=guided, before=before))


def _look(piece):
    """Return None while a worker is busy; at its end, the pieces that are left of a crash or hang."""
    if piece.pipe.poll():
        try:
            piece.outcome = piece.pipe.recv()
        except EOFError:
            return _broken(piece, f"crash: the interpreter ended with {_ended(piece)}")
        piece.process.join()
        piece.seconds = time.monotonic() - piece.began
        return []
    heard = piece.last.stat().st_mtime if piece.last.is_file() else None
    quiet = time.monotonic() - piece.began if heard is None else time.time() - heard
    if quiet > (PATIENCE if heard is not None else 5 * PATIENCE):
        os.killpg(piece.process.pid, signal.SIGKILL)
        _ended(piece)
        return _broken(piece, f"Overtime: nothing for {quiet:.0f} s, and no signal was heard")
    return None


def _ended(piece):
    piece.process.join()
    return piece.process.exitcode


def _broken(piece, what):
    """Note how a worker ended; return what is left of its cases, with another seed."""
    content = piece.last.read_bytes() if piece.last.is_file() else bytes(8)
    count = int.from_bytes(content[:8], "little")
    piece.outcome = Outcome(piece.name, cases=max(count, 1), failures={what: (content[8:], "")})
    piece.seconds = time.monotonic() - piece.began
    left = piece.cases - max(count, 1)
    return [Piece(piece.group, piece.name, left, f"{piece.seed}+")] if left > 0 else []


def _tell(piece, keep):
    outcome = piece.outcome
    rate = outcome.cases / max(piece.seconds, 0.01)
    failed = " ".join(outcome.failures)
    print(
        f"{piece.name:34}{outcome.cases:8,} cases {piece.seconds:7.1f} s {rate:7.0f}/s {failed}", flush=True
    )
    for where, (content, trace) in outcome.failures.items():
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{len(list(keep.iterdir()))}-{piece.name.replace(' ', '-')}").write_bytes(content)
        print(f"--- {piece.name}: {where}\n{content[:600]!r}\n{trace}", file=sys.stderr, flush=True)


def _rows(done):
    """Return one row for each target."""
    rows = {}
    for piece in done:
        row = rows.setdefault(
            piece.name,
            {
                "target": piece.name,
                "group": piece.group,
                "cases": 0,
                "accepted": 0,
                "refused": 0,
                "seconds": 0.0,
                "peak": 0,
                **dict.fromkeys(KINDS, 0),
                "failures": [],
            },
        )
        for name in ("cases", "accepted", "refused"):
            row[name] += getattr(piece.outcome, name)
        row["seconds"] = round(row["seconds"] + piece.seconds, 1)
        row["peak"] = max(row["peak"], piece.outcome.peak)
        for where in piece.outcome.failures:
            row[kind_of(where.replace(":", " "))] += 1
            row["failures"].append(where)
    return list(rows.values())


def _print(rows, seconds, options):
    """Print the table; return the number of failures."""
    print(
        f"\n{'':34}{'cases':>9}{'used':>9}{'refused':>9}"
        + "".join(f"{kind:>12}" for kind in KINDS)
        + "   peak MiB"
    )
    groups = {
        "readers": [row for row in rows if row["group"] != "commands"],
        "commands": [row for row in rows if row["group"] == "commands"],
    }
    failed = 0
    for name, chosen in (*((row["target"], [row]) for row in rows), *groups.items()):
        total = {key: sum(row[key] for row in chosen) for key in ("cases", "accepted", "refused", *KINDS)}
        peak = max((row["peak"] for row in chosen), default=0) >> 20
        line = f"{name:34}{total['cases']:9,}{total['accepted']:9,}{total['refused']:9,}"
        print(line + "".join(f"{total[kind]:12,}" for kind in KINDS) + f"{peak:11,}")
        failed += sum(total[kind] for kind in KINDS) if name in groups else 0
    print(f"{failed} failures, {seconds:.0f} s, {options.jobs} workers, seed {options.seed}")
    return failed


def _collect(path, rows, seed):
    earlier = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = earlier + [{**row, "seed": seed} for row in rows]
    totals = {key: sum(row[key] for row in rows) for key in ("cases", "accepted", "refused", *KINDS)}
    machine = {"python": platform.python_version(), "system": platform.system()}
    path.write_text(json.dumps({"totals": totals, **machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
