"""Predicted against true time and memory of thirty runs, each in a process of its own.

Two kinds of data: classes that overlap (a third of the labels is wrong), and classes that can be separated,
where samples need several sweeps. With one thread, time is that of the processor: other work on the machine
then counts little.
"""

import json
import multiprocessing
import os
import time

import numpy as np

from benchmarks.common import Held, parser, write

COLUMNS = [
    "case", "predicted s", "true s", "time ratio", "predicted MiB", "true MiB", "memory ratio",
]  # fmt: skip


def case(n, d, c, **more):
    """Return the settings of one run."""
    return {"n": n, "d": d, "c": c, "task": "linear", "posterior": "diag", "separable": False, **more}


CASES = [
    case(150, 4, 3),
    case(500, 30, 2, separable=True),
    case(1800, 64, 10),
    case(1800, 64, 10, separable=True),
    case(1800, 64, 10, posterior="kron"),
    case(600, 32, 5, posterior="full"),
    case(300, 512, 10, separable=True),
    case(600, 1280, 10, separable=True),
    case(1500, 384, 2, separable=True),
    case(5000, 384, 2),
    case(10_000, 384, 2),
    case(5000, 768, 3),
    case(3000, 128, 10),
    case(3000, 128, 10, separable=True),
    case(6000, 32, 10),
    case(20_000, 64, 10, tol=None),
    case(10_000, 256, 5, tol=None),
    case(4000, 256, 5),
    case(10_000, 20, 3),
    case(2000, 40, 40),
    case(2000, 40, 40, separable=True),
    case(3000, 64, 100, solver="blocks"),
    case(10_000, 128, 20, solver="blocks", tol=None),
    case(1000, 64, 10, method="retrain"),
    case(1000, 64, 5, method="retrain", epochs_tol=None, subset=50),
    case(20_000, 256, 1, task="ridge"),
    case(2000, 1000, 1, task="ridge"),
    case(3000, 100, 2, task="sigmoid"),
    case(2000, 60, 8, task="multilabel"),
    case(20_000, 128, 10, subset=500),
]
# Shapes that no constant of the model was fitted to.
UNSEEN = [
    case(800, 200, 4, separable=True),
    case(2500, 100, 20),
    case(12_000, 48, 6),
    case(900, 60, 3, posterior="kron"),
    case(4000, 512, 2),
    case(7000, 100, 4, tol=None),
    case(1500, 256, 10, subset=200),
    case(5000, 64, 1, task="ridge"),
    case(1200, 30, 2, task="sigmoid"),
    case(2000, 48, 60, solver="blocks"),
]


def made(given):
    """Return features and target: clusters whose labels are a third wrong, or apart."""
    random = np.random.default_rng(0)
    n, d, c = given["n"], given["d"], given["c"]
    if given["task"] == "ridge":
        X = random.normal(size=(n, d)).astype(np.float32)
        return X, X @ random.normal(size=d) / d**0.5 + random.normal(size=n)
    if given["task"] == "multilabel":
        X = random.normal(size=(n, d)).astype(np.float32)
        return X, (X @ random.normal(size=(d, c)) / d**0.5 + random.normal(size=(n, c)) > 0).astype(int)
    y = np.arange(n) % c
    # Directions of falling variance, as features of networks have them.
    scale = np.arange(1, d + 1) ** -0.5
    centres = random.normal(size=(c, d))
    apart = 3.0 if given["separable"] else 1.0
    X = ((apart * centres[y] + random.normal(size=(n, d))) * scale).astype(np.float32)
    if not given["separable"]:
        wrong = random.random(n) < 1 / 3
        y = np.where(wrong, random.integers(0, c, n), y)
    return X, y


def settings(given):
    """Return the arguments of `lsi.score` apart from the data."""
    import lsi

    probe = {"linear": lsi.LinearProbe, "ridge": lsi.RidgeProbe}.get(given["task"], lsi.SigmoidProbe)()
    if given.get("method") == "retrain":
        method = lsi.Retrain(tol=given.get("epochs_tol", 1e-3))
    else:
        method = lsi.Newton(tol=given.get("tol", 1e-2), solver=given.get("solver", "auto"))
    return {"probe": probe, "posterior": given["posterior"], "method": method}


def run(given, threads):
    """Predict and score; return seconds and bytes of both."""
    import torch

    import lsi
    from lsi.planning.cost import product_rate
    from lsi.tasks import task_of

    torch.set_num_threads(threads)
    X, y = made(given)
    chosen = settings(given)
    subset = np.arange(0, given["n"], given["n"] // given["subset"]) if "subset" in given else None
    warm = np.random.default_rng(0).normal(size=(40, 3))
    lsi.score(warm, np.arange(40) % 2, audit=2)  # imports and first calls are no part of a run
    task = task_of(chosen["probe"])
    problem = task.problem(X, y, subset=subset)
    began = time.perf_counter(), time.process_time()
    predicted = task.cost(chosen["probe"], problem, chosen["posterior"], chosen["method"], None)
    asked = time.process_time() - began[1]
    with Held() as held:
        before = held.most
        began = time.perf_counter(), time.process_time()
        scores = lsi.score(X, y, subset=subset, **chosen)
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    true = cpu if threads == 1 else wall
    return {
        "case": name_of(given),
        "predicted s": predicted.seconds,
        "true s": true,
        "time ratio": predicted.seconds / true,
        "predicted MiB": predicted.bytes / (1 << 20),
        "true MiB": (held.most - before) / (1 << 20),
        "memory ratio": predicted.bytes / (held.most - before),
        "asked s": asked,
        "wall s": wall,
        "rates": [product_rate(torch.float32), product_rate(torch.float64)],
        "timings": scores.manifest["timings"],
        "fit": scores.manifest["fit"],
        "given": given,
    }


def name_of(given):
    """Return the settings of a run in one line."""
    more = [given["task"], given["posterior"]]
    more += ["separable"] if given["separable"] else []
    more += [
        f"{key} {given[key]}" for key in ("solver", "method", "tol", "epochs_tol", "subset") if key in given
    ]
    return f"{given['n']:,} × {given['d']:,} × {given['c']}, {', '.join(more)}"


def main():
    """Run the cases that were asked for."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--case", type=int, action="append", help="which cases, by number; default: all")
    options.add_argument("--unseen", action="store_true", help="shapes that the model was not fitted to")
    given = options.parse_args()
    cases = UNSEEN if given.unseen else CASES
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(given.threads))
    context, rows = multiprocessing.get_context("spawn"), []
    for which in given.case or range(len(cases)):
        with context.Pool(1) as pool:
            rows.append(pool.apply(run, (cases[which], given.threads)))
        print(json.dumps(rows[-1]), flush=True)
    within = [name for name in ("time ratio", "memory ratio")]
    facts = {f"{name} within 2": sum(0.5 <= row[name] <= 2 for row in rows) for name in within}
    write("Estimates", rows, COLUMNS, {**facts, "runs": len(rows), "threads": given.threads}, given.output)


if __name__ == "__main__":
    main()
