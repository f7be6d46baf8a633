"""Test accuracy after labelling a budget of rows: `Fitted.choose` against random, entropy and margin."""

import time

import numpy as np
import torch

from benchmarks.common import parser, write
from benchmarks.curation import load_data

COLUMNS = ["order", "mean", "low", "high", "gain", "gain_low", "gain_high", "cpu_s"]


def probabilities(fitted, X):
    """Return the probe's probabilities of rows, `(M, C)`."""
    (engine,) = fitted.engines()
    rows = torch.from_numpy(np.hstack([X, np.ones((len(X), 1), X.dtype)]))
    return engine.model.probabilities(engine.posterior.project(rows).to(torch.float64)).numpy()


def orders(fitted, pool, budget, random):
    """Yield the name of each order and what it takes."""
    yield "random", lambda: random.choice(len(pool), budget, replace=False)
    p = probabilities(fitted, pool)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    two = np.sort(p, 1)[:, -2:]
    yield "entropy", lambda: np.argsort(-entropy, kind="stable")[:budget]
    yield "margin", lambda: np.argsort(two[:, 1] - two[:, 0], kind="stable")[:budget]
    yield "choose", lambda: fitted.choose(pool, budget)["position"].to_numpy()


def trial(X, y, X_test, y_test, options, seed):
    """Return the accuracy that each order reaches from one start, and the seconds that it takes."""
    import lsi

    random = np.random.default_rng(seed)
    rows = random.permutation(len(X))
    start, pool = rows[: options.start], rows[options.start :][: options.pool]
    fitted = lsi.fit(X[start], y[start], probe=lsi.LinearProbe(options.weight_decay), sample_id=start)
    found = {"start": (np.mean(probabilities(fitted, X_test).argmax(1) == y_test), 0.0)}
    for name, take in orders(fitted, X[pool], options.budget, random):
        began = time.process_time()
        picked = pool[take()]
        seconds = time.process_time() - began
        after = fitted.with_rows(X[picked], y[picked], ids=picked)
        found[name] = np.mean(probabilities(after, X_test).argmax(1) == y_test), seconds
    return found


def main():
    options = parser(__doc__)
    options.add_argument("--start", type=int, default=1000, help="rows that have labels")
    options.add_argument("--pool", type=int, default=10000, help="rows to choose from")
    options.add_argument("--budget", type=int, default=500)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--weight-decay", type=float, default=1e-3)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    X, y, X_test, y_test, clean, source = load_data(options.data, "clean" if options.data else None)
    trials = [trial(X, clean, X_test, y_test, options, seed) for seed in range(options.seeds)]
    rows = []
    for name in trials[0]:
        reached = np.array([found[name][0] for found in trials])
        gain = reached - np.array([found["random"][0] for found in trials])
        spread = {"low": float(reached.min()), "high": float(reached.max())}
        seconds = float(np.mean([found[name][1] for found in trials]))
        gains = {"gain": float(gain.mean()), "gain_low": float(gain.min()), "gain_high": float(gain.max())}
        rows.append({"order": name, "mean": float(reached.mean()), **spread, **gains, "cpu_s": seconds})
    facts = {"data": source, "start": options.start, "pool": options.pool, "budget": options.budget}
    write("candidates", rows, COLUMNS, {**facts, "seeds": options.seeds}, options.output)


if __name__ == "__main__":
    main()
