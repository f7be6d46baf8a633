"""Peak memory of a run against the budget it was given."""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, peak_memory, write

BUDGETS = ("1GiB", "2GiB", "4GiB", None)
COLUMNS = [
    "case",
    "budget",
    "solver",
    "interpreter GB",
    "peak GB",
    "beyond interpreter GB",
    "seconds",
    "largest difference",
]


def run(budget, data, label, n_samples, threads, mapped):
    """Score in a process of its own; return the row and the scores."""
    import lsi

    torch.set_num_threads(threads)
    X, y, _ = cifar_features(data, n_samples, label)
    if mapped:
        X = np.load(mapped, mmap_mode="r")
    warm_up(lsi)
    base = peak_memory() - (0 if mapped else X.nbytes)
    scores = lsi.score(X, y, method=lsi.Newton(tol=None), audit=False, label_noise=False, memory=budget)
    row = {
        "case": "memory map" if mapped else "in memory",
        "budget": budget or "none",
        "solver": scores.manifest["fit"]["solver"],
        "interpreter GB": base / 1e9,
        "peak GB": peak_memory() / 1e9,
        "beyond interpreter GB": (peak_memory() - base) / 1e9,
        "seconds": sum(scores.manifest["timings"].values()),
    }
    return row, scores.lsi


def warm_up(lsi):
    """Load every library that a run needs: they belong to the interpreter, not to the run."""
    random = np.random.default_rng(0)
    lsi.score(random.normal(size=(60, 3)), np.arange(60) % 3, audit=False, label_noise=False)


def main():
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=50_000)
    options.add_argument("--label", default="aggre")
    given = options.parse_args()
    context, rows, values = multiprocessing.get_context("spawn"), [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        np.save(file, cifar_features(given.data, given.samples, given.label)[0])
        for budget, mapped in [*((budget, None) for budget in BUDGETS), ("1GiB", str(file))]:
            with context.Pool(1) as pool:
                arguments = (budget, given.data, given.label, given.samples, given.threads, mapped)
                row, scores = pool.apply(run, arguments)
            rows.append(row)
            values.append(scores)
    for row, scores in zip(rows, values, strict=True):
        row["largest difference"] = float(np.max(np.abs(scores / values[3] - 1.0)))
    facts = {"data": cifar_features(given.data, 8, given.label)[2], "samples": given.samples}
    write("Memory", rows, COLUMNS, {**facts, "threads": given.threads}, given.output)


if __name__ == "__main__":
    main()
