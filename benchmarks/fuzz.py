"""Broken and hostile input by the hundred thousand, each target in a process of its own.

`python -m benchmarks.fuzz --cases 200000 --cli 20000 --seed 0 --output fuzz.json`: every loader, the
feature cache, decisions, folders of scores and the command line. A case has to end well or in an `LsiError`,
within ten seconds and eight gigabytes; anything else, a crash of the interpreter included, is reported with
its input.
Long runs go in parts: `--part 1/4`, `--part 2/4`, … with one `--output`, which collects them.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzzing.commands import command_targets
from tests.fuzzing.engine import Outcome, fuzz
from tests.fuzzing.loaders import loader_targets
from tests.fuzzing.results import result_targets

MEMORY = 8 << 30
SLOW = ("scores,",)  # every case writes a page
SHARE_OF_SLOW = 0.08


def main():
    """Fuzz every target of this part, print a line each, and exit with 1 where one failed."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="lsi-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    began, rows = time.perf_counter(), []
    try:
        for name, cases in _plan(options, folder):
            rows.append(_alone(name, cases, options.seed, folder))
            row = rows[-1]
            counts = " ".join(f"{row[key]:8,} {key}" for key in ("cases", "accepted", "refused", "kept"))
            print(f"{row['target']:28}{counts}{row['seconds']:7.1f} s {row['failures'] or ''}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total, failed = sum(row["cases"] for row in rows), sum(len(row["failures"]) for row in rows)
    print(f"{total:,} cases, {failed} failures, {time.perf_counter() - began:.0f} s, seed {options.seed}")
    if options.output is not None:
        _collect(options.output, rows, options.seed)
    sys.exit(1 if failed else 0)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=200_000, help="over all loaders and folders of scores")
    parser.add_argument("--cli", type=int, default=20_000, help="over the command line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="as 2/4: the second of four parts")
    parser.add_argument("--only", default="", help="targets whose name holds this text")
    parser.add_argument("--output", type=Path, default=None, help="JSON file that collects the results")
    return parser.parse_args()


def _plan(options, folder):
    """Return names and numbers of cases of this part's targets."""
    names = _in_child(lambda pipe: pipe.send(list(_targets(folder / "names"))))[0]
    weights = {
        name: SHARE_OF_SLOW if name.startswith(SLOW) else 1.0 for name in names if name != "command line"
    }
    part, parts = map(int, options.part.split("/"))
    each = options.cases / sum(weights.values())
    plan = [(name, -(-int(each * 1000 * weight) // 1000)) for name, weight in weights.items()]
    plan += [("command line", options.cli // parts)]
    chosen = [*plan[part - 1 : -1 : parts], plan[-1]]
    return [(name, cases) for name, cases in chosen if options.only in name and cases]


def _targets(folder, name=None):
    """Return targets by name; of one name, only the group that holds it is made."""
    makers = {"loaders": loader_targets, "scores,": result_targets, "command line": command_targets}
    group = next((group for group in makers if name is not None and name.startswith(group)), "loaders")
    found = {}
    for place, make in makers.items():
        if name is None or place == group:
            (folder / place).mkdir(parents=True, exist_ok=True)
            found |= {target.name: target for target in make(folder / place)}
    return found


def _alone(name, cases, seed, folder):
    """Fuzz one target in a child, which may crash."""
    place = folder / "work"
    shutil.rmtree(place, ignore_errors=True)
    last = folder / "last"

    def work(pipe):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C talk about every broken picture
        target = _targets(place, name)[name]
        slow = name.startswith(SLOW) or name == "command line"
        pipe.send(fuzz(target, cases, seed, guided=not slow, before=last.write_bytes))

    began = time.perf_counter()
    found, code = _in_child(work)
    outcome = found or Outcome(
        name, cases=0, failures={f"the interpreter ended with {code}": (last.read_bytes(), "")}
    )
    for where, (content, trace) in outcome.failures.items():
        print(f"--- {name}: {where}\n{content[:600]!r}\n{trace}", file=sys.stderr)
    return {
        "target": name, "cases": outcome.cases, "accepted": outcome.accepted, "refused": outcome.refused,
        "kept": outcome.kept, "seconds": round(time.perf_counter() - began, 1),
        "failures": list(outcome.failures),
    }  # fmt: skip


def _in_child(work):
    """Return what `work` sent from a forked process, or None, and how that process ended."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender,))
    child.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = None
    child.join()
    return found, child.exitcode


def _collect(path, rows, seed):
    earlier = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = earlier + [{**row, "seed": seed} for row in rows]
    totals = {key: sum(row[key] for row in rows) for key in ("cases", "accepted", "refused")}
    totals["failures"] = sum(len(row["failures"]) for row in rows)
    machine = {"python": platform.python_version(), "system": platform.system()}
    path.write_text(json.dumps({"totals": totals, **machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
