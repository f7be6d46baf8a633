"""Cost of the unrefined Newton engine against N, D and C: seconds, memory, fitted exponents, a plot."""

import multiprocessing
import time

import numpy as np
import torch

from benchmarks.common import parser, peak_memory, product_peak, write

SWEEPS = {
    "N": [(n, 512, 10) for n in (1000, 3000, 10_000, 25_000, 50_000)],
    "D": [(10_000, d, 10) for d in (64, 128, 256, 512, 1024, 2048)],
    "C": [(10_000, 64, c) for c in (2, 5, 10, 30, 100, 300, 1000)],
}
AXES = {"N": 0, "D": 1, "C": 2}
COLUMNS = [
    "sweep",
    "N",
    "D",
    "C",
    "solver",
    "seconds",
    "fit",
    "factor",
    "leave-one-out",
    "memory GB",
    "peak GFLOP/s",
]


def clusters(n, d, c):
    """Return overlapping classes: their centres are a few standard deviations apart in a few directions."""
    random = np.random.default_rng(0)
    y = np.concatenate([np.arange(c), random.integers(0, c, n - c)])
    centres = random.normal(size=(c, d)) * (2.0 / np.sqrt(1.0 + np.arange(d)))
    return (centres[y] + random.normal(size=(n, d))).astype(np.float32), y


def run(sweep, shape, threads):
    """Score in a process of its own, so that its peak memory is its own."""
    import lsi

    torch.set_num_threads(threads)
    X, y = clusters(*shape)
    rate, before, began = product_peak(), peak_memory(), time.perf_counter()
    scores = lsi.score(X, y, method=lsi.Newton(tol=None), audit=False, label_noise=False)
    seconds, timings = time.perf_counter() - began, scores.manifest["timings"]
    return {
        "sweep": sweep,
        **dict(zip("NDC", shape, strict=True)),
        "solver": scores.manifest["fit"]["solver"],
        "seconds": seconds,
        **{stage: timings[stage] for stage in ("fit", "factor", "leave-one-out")},
        "memory GB": (peak_memory() - before) / 1e9,
        "peak GFLOP/s": rate / 1e9,
    }


def exponent(rows, axis):
    """Return the slope of log time over log size, over the larger half of a sweep with one solver."""
    rows = [row for row in rows if row["solver"] == "dense"]
    rows = rows[len(rows) // 2 :] if len(rows) > 3 else rows
    sizes, seconds = np.log([row[axis] for row in rows]), np.log([row["seconds"] for row in rows])
    return float(np.polyfit(sizes, seconds, 1)[0])


def draw(rows, path):
    """Draw seconds over size, a panel a sweep."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(SWEEPS), figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, sweep in zip(panels, SWEEPS, strict=True):
        for solver, marker in (("dense", "o"), ("blocks", "s")):
            part = [row for row in rows if row["sweep"] == sweep and row["solver"] == solver]
            panel.loglog(
                [row[sweep] for row in part], [row["seconds"] for row in part], marker=marker, label=solver
            )
        fixed = ", ".join(f"{name} = {rows_of(rows, sweep)[0][name]:,}" for name in SWEEPS if name != sweep)
        panel.set(xlabel=sweep, title=fixed)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds, all stages")
    panels[-1].legend(title="solver")
    figure.savefig(path, dpi=110)


def rows_of(rows, sweep):
    return [row for row in rows if row["sweep"] == sweep]


def main():
    options = parser(__doc__)
    options.add_argument("--sweep", choices=list(SWEEPS), action="append", help="default: all")
    options.add_argument("--plot", default=None, help="PNG file to draw")
    given = options.parse_args()
    context, rows = multiprocessing.get_context("spawn"), []
    for sweep in given.sweep or SWEEPS:
        for shape in SWEEPS[sweep]:
            with context.Pool(1) as pool:
                rows.append(pool.apply(run, (sweep, shape, given.threads)))
            print(f"{sweep} {shape}: {rows[-1]['seconds']:.1f} s", flush=True)
    facts = {
        f"exponent in {sweep}, larger half, dense": exponent(rows_of(rows, sweep), sweep)
        for sweep in given.sweep or SWEEPS
    }
    write("Scaling of the Newton engine", rows, COLUMNS, {**facts, "threads": given.threads}, given.output)
    if given.plot and not given.sweep:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
