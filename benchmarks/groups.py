"""LSI of whole groups against models trained without them, from the definitions.

`python -m benchmarks.groups --data FOLDER --samples 5000`: groups of 1, 2, 10, 100 and 1,000 rows, and half
of the data; the posteriors diag, kron and full. Each group is a random one, or one of rows that belong
together (the nearest to one row, which is harder). The reference trains the probe again on what is left and
takes the divergence of dense precisions. `--repeats` draws so many groups of each kind and size.
"""

import json
import time

import numpy as np
import scipy.special
import torch
from scipy.linalg import helmert
from tests.oracles.gaussian_kl import dense_kl

import lsi
from benchmarks.common import cifar_features, parser, write

COLUMNS = [
    "posterior",
    "rows",
    "kind",
    "lsi",
    "error",
    "certificate",
    "interaction",
    "seconds",
    "reference s",
]
TAU, DECAY = 1.0, 1e-4


def optimum(X, y):
    """Return the probe's weights in all classes, `(C, D)`, trained on these rows alone."""
    engine = next(lsi.fit(X, y, probe=lsi.LinearProbe(weight_decay=DECAY)).engines())
    return (engine.model.contrasts @ engine.model.theta).numpy()


def precision(X, theta, structure):
    """Return the posterior precision: of the classes for diag, else of their contrasts."""
    x = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    p = scipy.special.softmax(x @ theta.T, axis=1)
    if structure == "diag":
        return (((p * (1 - p)).T @ x**2) + TAU).ravel()
    v = helmert(len(theta)).T
    if structure == "kron":
        classes = (np.diag(p.sum(0)) - p.T @ p) / len(x)
        data = np.kron(v.T @ classes @ v, x.T @ x)
    else:
        k, d = v.shape[1], x.shape[1]
        data = np.empty((k, d, k, d))
        mean = p @ v
        for a in range(k):
            for b in range(a + 1):
                s = p @ (v[:, a] * v[:, b]) - mean[:, a] * mean[:, b]
                data[a, :, b] = (x * s[:, None]).T @ x
                data[b, :, a] = data[a, :, b]
        data = data.reshape(k * d, k * d)
    data[np.diag_indices_from(data)] += TAU
    return data


def reference(X, y, left, theta, before, structure):
    """Return LSI of a group from the definitions, in nats; `left` is what stays, with its optimum."""
    keep, after = left
    second, delta = precision(X[keep], after, structure), after - theta
    if structure == "diag":
        u = (second - before) / before
        return 0.5 * np.sum(delta.ravel() ** 2 * second) + 0.5 * np.sum(u - np.log1p(u))
    return sum(dense_kl(before, second, helmert(len(theta)) @ delta))


def groups_of(X, sizes, repeats, random):
    """Yield size, kind and members of each group."""
    for size in np.repeat(sizes, repeats).tolist():
        yield size, "random", random.choice(len(X), size, replace=False)
        if 1 < size <= 1000:
            row = X[random.integers(len(X))]
            yield size, "neighbours", np.argsort(((X - row) ** 2).sum(1), kind="stable")[:size]


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--samples", type=int, default=5000)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 10, 100, 1000, 2500])
    arguments.add_argument("--posteriors", nargs="+", default=["diag", "kron", "full"])
    arguments.add_argument("--repeats", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    X, y, source = cifar_features(options.data, options.samples)
    groups = list(groups_of(X, options.sizes, options.repeats, np.random.default_rng(0)))
    began, left = time.perf_counter(), []
    for _, _, members in groups:
        keep = np.setdiff1d(np.arange(len(X)), members)
        left.append((keep, optimum(X[keep], y[keep])))
    refits = (time.perf_counter() - began) / len(groups)
    theta, rows = optimum(X, y), []
    for posterior in options.posteriors:
        fitted = lsi.fit(
            X, y, probe=lsi.LinearProbe(weight_decay=DECAY), posterior=posterior, prior_precision=TAU
        )
        before = precision(X, theta, posterior)
        for (size, kind, members), stays in zip(groups, left, strict=True):
            names = np.full(len(X), None, dtype=object)
            names[members] = "group"
            began = time.perf_counter()
            answer = fitted.groups(names, interaction=size <= 100).to_frame().iloc[0]
            seconds = time.perf_counter() - began
            exact = reference(X, y, stays, theta, before, posterior)
            rows.append(
                {
                    "posterior": posterior,
                    "rows": size,
                    "kind": kind,
                    "lsi": float(answer["lsi"]),
                    "error": float(abs(answer["lsi"] / exact - 1)),
                    "certificate": float(answer["relative_error"]),
                    "interaction": float(answer["interaction"]),
                    "seconds": seconds,
                    "reference s": refits,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    facts = {
        "data": f"{source}, {len(X)} x {X.shape[1]}",
        "beyond the certificate": sum(row["error"] > row["certificate"] for row in rows),
        "largest error": max(row["error"] for row in rows),
    }
    write("Groups left out", rows, COLUMNS, facts, options.output)


if __name__ == "__main__":
    main()
