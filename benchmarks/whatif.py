"""A review loop: relabel some rows and score those that it affects most, against a fresh run."""

import time

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, write

COLUMNS = ["what", "wall_s", "cpu_s"]


class Timed:
    """Calls functions, and keeps how long each took."""

    def __init__(self):
        self.rows = []

    def __call__(self, what, call):
        wall, cpu = time.perf_counter(), time.process_time()
        found = call()
        seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        self.rows.append({"what": what, **seconds})
        return found


def main():
    import lsi

    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=5000)
    options.add_argument("--relabelled", type=int, default=20)
    options.add_argument("--affected", type=int, default=1000)
    options.add_argument("--weight-decay", type=float, default=1e-3)
    options.add_argument("--posterior", default="diag")
    options.add_argument("--checked", type=int, default=100, help="rows compared with a fresh run")
    options.add_argument("--model", default=None, help="folder: fitted there once, then loaded")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    X, y, source = cifar_features(options.data, options.samples)
    y, settings = y.astype(int), {"probe": lsi.LinearProbe(options.weight_decay)}
    timed = Timed()

    def fit(y):
        return lsi.fit(X, y, **settings, posterior=options.posterior)

    try:
        fitted = timed("load", lambda: lsi.load_fitted(options.model or ""))
    except lsi.InputError:
        fitted = timed("fit", lambda: fit(y))
        if options.model is not None:
            fitted.save(options.model)
    rows = np.random.default_rng(0).choice(len(y), options.relabelled, replace=False)
    other = y.copy()
    other[rows] = (y[rows] + 1) % (y.max() + 1)
    decided = dict(zip(rows.tolist(), other[rows].tolist(), strict=True))
    after = timed("relabel", lambda: fitted.relabel(decided))
    touched = timed("affected", lambda: after.affected(fitted, k=options.affected))
    found = timed("scores", lambda: after.scores(touched, audit=False, label_noise=False).to_frame())
    facts = {"data": source, "samples": len(y), "relabelled": len(rows), "affected": len(touched)}
    facts["largest certificate"] = float(found["relative_error"].max())
    if options.checked:
        which = np.sort(np.random.default_rng(1).permutation(len(touched))[: options.checked])
        fresh = timed("fresh fit", lambda: fit(other))
        exact = timed(
            "fresh scores", lambda: fresh.scores(touched[which], audit=False, label_noise=False).to_frame()
        )
        mine = found.iloc[which]
        error = np.abs(mine["lsi"].to_numpy() / exact["lsi"].to_numpy() - 1.0)
        allowed = mine["relative_error"].to_numpy() + exact["relative_error"].to_numpy()
        facts |= {"largest difference": float(error.max()), "median difference": float(np.median(error))}
        facts["beyond both certificates"] = int((error > allowed).sum())
    write("what-if", timed.rows, COLUMNS, facts, options.output)


if __name__ == "__main__":
    main()
