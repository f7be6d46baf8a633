"""Peak memory of a run against the budget it was given, for every kind of features.

`python -m benchmarks.memory --data DIR --budgets 1GiB 2GiB 4GiB none --kinds array map frame npz`: each run
is in a process of its own. "interpreter" is that process after importing numpy, pandas, torch and lsi;
everything beyond it, the features included, counts against the budget. What is held leaves out pages of a
mapped file, which the system may drop. The largest difference is that to the first run.
"""

import json
import multiprocessing
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Held, cifar_features, parser, peak_memory, write

COLUMNS = [
    "features",
    "budget",
    "solver",
    "interpreter MiB",
    "beyond it MiB",
    "held beyond it MiB",
    "of budget",
    "seconds",
    "largest difference",
]


def run(kind, budget, folder, given):
    """Score in a process of its own; return the row and the scores."""
    import torch

    import lsi
    from lsi.system.text import parse_size

    torch.set_num_threads(given.threads)
    lsi.score  # noqa: B018  (the pipeline is imported with its first use)
    base = peak_memory()
    with Held() as held:
        before = held.most
        scores = scored(kind, budget, folder, given)
    beyond = peak_memory() - base
    row = {
        "features": kind,
        "budget": budget or "none",
        "solver": scores.manifest["fit"]["solver"],
        "interpreter MiB": base / (1 << 20),
        "beyond it MiB": beyond / (1 << 20),
        "held beyond it MiB": (held.most - before) / (1 << 20),
        "of budget": beyond / parse_size(budget) if budget else None,
        "seconds": sum(scores.manifest["timings"].values()),
    }
    return row, scores.lsi


def scored(kind, budget, folder, given):
    """Return the scores of one kind of features."""
    import pandas as pd

    import lsi

    if kind == "npz":
        return from_command_line(budget, folder, given)
    X = np.load(folder / "X.npy", mmap_mode="r" if kind == "map" else None)
    return lsi.score(
        pd.DataFrame(X, copy=False) if kind == "frame" else X,
        np.load(folder / "y.npy"),
        posterior=given.posterior,
        method=lsi.Newton(tol=given.tol),
        subset=subset(given),
        audit=given.audit,
        label_noise=given.label_noise,
        memory=budget,
    )


def subset(given):
    """Return the positions to score, None for all."""
    return None if given.scored is None else np.linspace(0, given.samples - 1, given.scored).astype(int)


def from_command_line(budget, folder, given):
    """Run `lsi compute` on an .npz file in this process; return the scores."""
    import lsi
    from lsi.cli.app import main

    out = folder / f"scores-{budget}"
    words = [
        "compute",
        "--dataset",
        str(folder / "data.npz"),
        "--output",
        str(out),
        "--posterior",
        given.posterior,
    ]
    words += [
        "--tol",
        "none" if given.tol is None else str(given.tol),
        "--audit",
        str(given.audit),
        "--quiet",
    ]
    words += ["--memory", budget] if budget else []
    words += ["--subset", ",".join(map(str, subset(given)))] if given.scored else []
    words += ["--label-noise"] if given.label_noise else ["--no-label-noise"]
    if main(words):
        sys.exit(f"lsi {' '.join(words)} failed")
    return lsi.load(out)


def arguments():
    """Return the options."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--samples", type=int, default=50_000)
    options.add_argument("--label", default="aggre")
    options.add_argument("--budgets", nargs="+", default=["1GiB", "2GiB", "4GiB", "none"])
    options.add_argument("--kinds", nargs="+", default=["array"], choices=["array", "map", "frame", "npz"])
    options.add_argument("--posterior", default="diag")
    options.add_argument("--tol", type=lambda text: None if text == "none" else float(text), default=None)
    options.add_argument("--scored", type=int, default=None, help="samples to score; default: all")
    options.add_argument("--audit", type=int, default=4)
    options.add_argument("--label-noise", action="store_true")
    return options.parse_args()


def main():
    """Run every case, and compare the scores with those of the first."""
    given, rows, values = arguments(), [], []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        X, y, source = cifar_features(given.data, given.samples, given.label)
        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)
        np.savez(folder / "data.npz", X=X, y=y)
        del X
        for kind in given.kinds:
            for budget in given.budgets:
                with context.Pool(1) as pool:
                    row, scores = pool.apply(run, (kind, None if budget == "none" else budget, folder, given))
                rows.append(row)
                values.append(scores)
                print(json.dumps(row), flush=True)
    for row, scores in zip(rows, values, strict=True):
        row["largest difference"] = float(np.max(np.abs(scores / values[0] - 1.0)))
    settings = {
        name: getattr(given, name)
        for name in ("posterior", "tol", "scored", "audit", "label_noise", "threads")
    }
    write("Memory", rows, COLUMNS, {"data": source, "samples": given.samples, **settings}, given.output)


if __name__ == "__main__":
    main()
