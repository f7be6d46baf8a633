"""Does any certificate lie? Values from sampled rows against values from every row, on data made to be hard.

`python -m benchmarks.certificates --samples 20000 --checked 600`: seven generators (rare categories, twins in
sparse columns, near-duplicates, heavy tails, classes with few rows, a wide problem with small groups, twins
without doubt), 2 to 10 classes, the posteriors diag, kron and full. Values and certificates at the default
tolerance, from sampled rows however small the data, are held against values at `tol=1e-4`, for which every
row is read, and for a few rows against models refitted without them. Up to half of the checked rows are those
that the generator made to be hard; the others are random. `--blocks` checks the solver for many classes in
the same way (5, 12 and 30 classes, diag and kron), without solving the highest scores first.
"""

import time

import numpy as np
import torch

from benchmarks.common import parser, write

COLUMNS = [
    "data", "classes", "posterior", "checked", "violations", "worst ratio", "max error", "median certificate",
    "above tol", "loo_probability", "loo_prediction", "refitted", "refit ratio", "reference ratio",
]  # fmt: skip
CLASSES = {"diag": (2, 5, 10), "kron": (2, 5, 10), "full": (2,)}
BLOCKS = {"diag": (5, 12, 30), "kron": (5, 12, 30)}
TIGHT = 1e-4
# Below this relative error the reference itself may be off: its own certificates go no further.
REFERENCE = 1e-5


def _labels(random, X, classes, spread=1.0, noise=0.05):
    """Return labels drawn from a linear model of all columns, some of them at random."""
    weights = random.normal(size=(X.shape[1], classes)) * spread / np.sqrt(X.shape[1])
    logits = X @ weights
    y = (logits + random.gumbel(size=logits.shape)).argmax(1)
    wrong = random.random(len(y)) < noise
    return np.where(wrong, random.integers(0, classes, len(y)), y)


def rare_categories(random, n, classes):
    """Gaussian columns and standardised one-hot columns of categories of 2 to 50 rows."""
    sizes = (2, 2, 2, 3, 4, 6, 9, 14, 20, 30, 40, 50)
    X = random.normal(size=(n, 24 + len(sizes)))
    rows = random.permutation(n)[: sum(sizes)]
    for column, members in enumerate(np.split(rows, np.cumsum(sizes)[:-1]), 24):
        one = np.zeros(n)
        one[members] = 1.0
        X[:, column] = (one - one.mean()) / one.std()
    y = _labels(random, np.delete(X, np.s_[24:], axis=1), classes, spread=6.0)
    return X, y, rows


def sparse_twins(random, n, classes):
    """Unscaled sparse columns, half of them counts and half held by two or three rows alone."""
    X = np.concatenate([random.poisson(0.15, size=(n, 20)), random.normal(size=(n, 10))], axis=1).astype(
        float
    )
    twins, columns = [], []
    for width in (2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3):
        members = random.choice(n, width, replace=False)
        column = np.zeros(n)
        column[members] = random.choice([1.0, 3.0, 10.0, 30.0]) * random.uniform(0.8, 1.2, width)
        columns.append(column)
        twins.extend(members)
    y = _labels(random, X, classes, spread=5.0)
    return np.concatenate([X, np.array(columns).T], axis=1), y, np.array(twins)


def near_duplicates(random, n, classes):
    """Gaussian columns; 300 rows have one to three near copies, and far rows have them too."""
    X = random.normal(size=(n, 40))
    originals = random.permutation(n)[:300]
    X[originals[:100]] *= 6.0
    y = _labels(random, X, classes, spread=4.0)
    rows, free = list(originals), np.setdiff1d(np.arange(n), originals)
    for original in originals:
        copies = random.choice(free, random.integers(1, 4), replace=False)
        X[copies] = X[original] + 0.02 * random.normal(size=(len(copies), 40))
        y[copies] = y[original]
        rows.extend(copies)
    return X, y, np.array(rows)


def heavy_tails(random, n, classes):
    """Rows of Student's t with 2.2 degrees of freedom, and a length of its own for each row."""
    X = random.standard_t(2.2, size=(n, 30)) * random.lognormal(0.0, 0.7, size=(n, 1))
    y = _labels(random, np.tanh(X), classes, spread=6.0)
    return X, y, np.argsort(-np.abs(X).max(1))[:400]


def few_of_a_class(random, n, classes):
    """Classes of 12 rows and more beside a large one, and rare categories that go with them."""
    counts = np.unique(np.geomspace(12, n // 4, classes - 1).astype(int))
    y = np.zeros(n, dtype=int)
    rows = random.permutation(n)
    start = 0
    for c, count in enumerate(counts, 1):
        y[rows[start : start + count]] = c
        start += count
    X = random.normal(size=(n, 30)) + 0.4 * random.normal(size=(classes, 30))[y]
    small = rows[: max(60, counts[0] + min(200, start))]
    for size in (2, 3, 5, 8, 25):
        column = np.zeros((n, 1))
        column[random.choice(small[:60], size, replace=False)] = 8.0
        X = np.concatenate([X, column], axis=1)
    return X, y, small


def small_groups(random, n, classes):
    """A wide problem: overlapping clusters of 60 columns with tight groups of 2 to 60 rows far out."""
    y = random.integers(0, classes, n)
    X = random.normal(size=(n, 60)) + 2.2 * random.normal(size=(classes, 60))[y] / np.sqrt(6)
    rows, start = random.permutation(n), 0
    for size in (2, 2, 3, 4, 6, 10, 20, 40, 60):
        members = rows[start : start + size]
        X[members] = 3.0 * random.normal(size=60) + 0.3 * random.normal(size=(size, 60))
        start += size
    return X, y, rows[:start]


def saturated_twins(random, n, classes):
    """Columns that two to four rows of one class hold with large values: they are sure of what they say."""
    X = random.normal(size=(n, 24))
    X[:, :4] *= random.lognormal(0.0, 1.0, size=(n, 1))
    y = _labels(random, X, classes, spread=random.choice([2.0, 6.0, 20.0]))
    columns, rows = [], []
    for width in (2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4):
        label = random.integers(0, classes)
        members = random.choice((y == label).nonzero()[0], width, replace=False)
        column = np.zeros(n)
        column[members] = random.choice([5.0, 10.0, 20.0, 50.0]) * random.uniform(0.3, 1.5, width)
        columns.append(column)
        rows.extend(members)
    return np.concatenate([X, np.array(columns).T], axis=1), y, np.array(rows)


GENERATORS = {
    function.__name__.replace("_", " "): function
    for function in (
        rare_categories,
        sparse_twins,
        near_duplicates,
        heavy_tails,
        few_of_a_class,
        small_groups,
        saturated_twins,
    )
}


def _score(X, y, subset, posterior, tol, sampled, settings):
    """Return the table of scores, from sampled rows whatever their number (or blocks) or from every row."""
    import lsi
    from lsi.loo.newton import block_engine, engine

    before, solved = engine.SAMPLED_WORK, block_engine.SOLVE_WORK
    engine.SAMPLED_WORK, block_engine.SOLVE_WORK = 0.0 if sampled else float("inf"), 0.0
    try:
        method = lsi.Newton(tol=tol, solver="blocks" if sampled and settings["blocks"] else "dense")
        scores = lsi.score(
            X,
            y,
            probe=lsi.LinearProbe(weight_decay=settings["weight_decay"]),
            posterior=posterior,
            prior_precision=settings["prior_precision"],
            method=method,
            subset=subset,
            audit=False,
            label_noise=False,
        )
    finally:
        engine.SAMPLED_WORK, block_engine.SOLVE_WORK = before, solved
    return scores.to_frame(), scores.manifest


def _refitted(X, y, posterior, rows, settings):
    """Return LSI of a few rows by models refitted without them, in numpy alone."""
    from tests.oracles.brute_force import LeaveOneOut

    codes = np.unique(y, return_inverse=True)[1]
    ones = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    oracle = LeaveOneOut(ones, codes, int(codes.max()) + 1, settings["weight_decay"], np.ones(len(X)))
    return oracle.lsi(posterior, settings["prior_precision"], rows)


def check(name, classes, posterior, n, checked, refits, seed, settings):
    """Return one line of the table."""
    random = np.random.default_rng([seed, classes, len(name)])
    X, y, hard = GENERATORS[name](random, n, classes)
    hard = random.permutation(np.unique(hard))[: checked // 2]
    subset = np.concatenate([hard, np.setdiff1d(random.permutation(n), hard)[: checked - len(hard)]])
    subset = subset[random.permutation(len(subset))]
    began = time.process_time()
    table, manifest = _score(X, y, subset, posterior, 1e-2, True, settings)
    spent = time.process_time() - began
    exact, _ = _score(X, y, subset, posterior, TIGHT, False, settings)
    value, truth = table["lsi"].to_numpy(), exact["lsi"].to_numpy()
    certificate = table["relative_error"].to_numpy()
    error = np.abs(value / truth - 1.0)
    # What the reference's own certificate allows it to be off is not counted against the certificate.
    ratio = (error - REFERENCE).clip(0.0) / certificate
    row = {
        "data": name,
        "classes": classes,
        "posterior": posterior,
        "checked": len(subset),
        "violations": int((ratio > 1.0).sum()),
        "worst ratio": float(ratio.max()),
        "max error": float(error.max()),
        "median certificate": float(np.median(certificate)),
        "above tol": int((~(certificate <= 1e-2)).sum()),
        "loo_probability": float(np.abs(table["loo_probability"] - exact["loo_probability"]).max()),
        "loo_prediction": int((table["loo_prediction"] != exact["loo_prediction"]).sum()),
        "cpu seconds": spent,
        "seconds": manifest["timings"],
    }
    if refits:
        # The hardest by what the engine says of itself, the highest, and some by chance.
        worst = np.argsort(-value)[: refits // 2]
        picks = np.unique(np.concatenate([worst, random.integers(0, len(value), refits - len(worst))]))
        refit = _refitted(X, y, posterior, subset[picks], settings)
        off = np.abs(value[picks] / refit - 1.0) - 1e-8
        reference = np.abs(truth[picks] / refit - 1.0) - 1e-8
        row["refitted"] = len(picks)
        row["refit ratio"] = float((off / certificate[picks]).max().clip(0.0))
        row["reference ratio"] = float(
            (reference / exact["relative_error"].to_numpy()[picks]).max().clip(0.0)
        )
    return row


def main():
    """Check every generator, print a line each and the sum."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--samples", type=int, default=20_000)
    options.add_argument("--checked", type=int, default=600, help="rows a case")
    options.add_argument(
        "--refits", type=int, default=2, help="rows a case that are refitted, up to 5 classes"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="generators whose name holds this text")
    options.add_argument("--posterior", default="", help="one of diag, kron, full; default: all")
    options.add_argument(
        "--classes",
        type=int,
        default=0,
        help="one number of classes",
    )
    options.add_argument("--weight-decay", type=float, default=1e-4)
    options.add_argument("--prior-precision", type=float, default=1.0)
    options.add_argument("--blocks", action="store_true", help="check the solver for many classes")
    given = options.parse_args()
    settings = {name: getattr(given, name) for name in ("weight_decay", "prior_precision", "blocks")}
    torch.set_num_threads(given.threads)
    rows = []
    for name in GENERATORS:
        for posterior, counts in (BLOCKS if given.blocks else CLASSES).items():
            for classes in counts:
                if given.only not in name or given.posterior not in posterior:
                    continue
                if given.classes and classes != given.classes:
                    continue
                refits = given.refits if classes <= 5 else 0
                rows.append(
                    check(
                        name, classes, posterior, given.samples, given.checked, refits, given.seed, settings
                    )
                )
                print({key: value for key, value in rows[-1].items() if key != "seconds"}, flush=True)
    checked, broken = sum(row["checked"] for row in rows), sum(row["violations"] for row in rows)
    facts = {
        "samples": given.samples,
        **settings,
        "violations": f"{broken} of {checked:,} ({100 * broken / max(checked, 1):.3f} %)",
        "worst ratio": max((row["worst ratio"] for row in rows), default=0.0),
    }
    write(
        "Certificates",
        rows,
        [column for column in COLUMNS if any(column in row for row in rows)],
        facts,
        given.output,
    )


if __name__ == "__main__":
    main()
