"""Time of the Newton engine by stage, against the matrix-product peak measured in the same run.

With `--separable`: small data whose classes can be separated, with all defaults. Most samples need several
sweeps there. The last are rectified random projections of the others.
"""

import multiprocessing
import time

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, peak_memory, product_peak, write

CASES = [
    {"posterior": "diag", "tol": None},
    {"posterior": "diag", "tol": 1e-2},
    {"posterior": "kron", "tol": None},
    {"posterior": "full", "tol": None},
]
SEPARABLE = [(500, None), (1000, None), (3000, None), (1500, 1280)]  # samples, and features to project to
SEPARABLE_COLUMNS = [
    "case", "seconds", "fit", "factor", "leave-one-out", "audit", "label noise", "memory GB", "max error",
    "over certificate", "above tol",
]  # fmt: skip
COLUMNS = [
    "case", "seconds", "fit", "posterior", "factor", "leave-one-out", "audit", "share of peak", "memory GB",
    "spearman", "median error", "max error", "certified", "over certificate",
]  # fmt: skip


def operations(n, d, c, posterior):
    """Return the operations of an unrefined run, counted by hand: what the mathematics needs, no more.

    Class contrasts leave K' = (C − 1) D parameters. The curvature is symmetric in classes and features:
    N K'² / 2 multiply-adds. Factor K'³ / 3 and inverse 2 K'³ / 3 multiply-adds; leave-one-out N K'².
    Full adds the lower half of E_iᵀ P⁻¹ E_i, N K'² / 2, and its own curvature and factor.
    """
    k = (c - 1) * d
    curvature, factor, leave = n * k**2 / 2, k**3, n * k**2
    total = curvature + factor + leave
    if posterior == "full":
        total += curvature + k**3 + n * k**2 / 2
    return 2.0 * total


def run(case, data, label, n_samples, audit, threads):
    """Score in a process of its own, so that its peak memory is its own."""
    import lsi

    torch.set_num_threads(threads)
    X, y, _ = cifar_features(data, n_samples, label)
    base, rates = peak_memory(), [product_peak()]
    method = lsi.Newton(tol=case["tol"])
    scores = lsi.score(X, y, posterior=case["posterior"], method=method, audit=audit, label_noise=False)
    rates.append(product_peak())
    # The faster of the rates before and after: the share is then never flattered.
    rate, timings, result = max(rates), scores.manifest["timings"], scores.audit
    seconds = sum(value for stage, value in timings.items() if stage != "audit")
    work = operations(len(X), X.shape[1] + 1, len(scores.manifest["classes"]), case["posterior"])
    error = scores.to_frame()["relative_error"].to_numpy()
    return {
        "case": f"{case['posterior']}, tol {case['tol']}",
        "seconds": seconds,
        **{stage: timings.get(stage) for stage in ("fit", "posterior", "factor", "leave-one-out", "audit")},
        "share of peak": work / seconds / rate,
        "peak GFLOP/s": rate / 1e9,
        "TFLOP": work / 1e12,
        "memory GB": peak_memory() / 1e9,
        "memory before GB": base / 1e9,
        "spearman": result and result.spearman,
        "median error": result and result.median_relative_error,
        "max error": result and result.max_relative_error,
        "over certificate": result and 1.0 - result.certificate_coverage,
        "certified": float(np.mean(error <= (case["tol"] or 0.0))) if case["tol"] else None,
    }


def run_separable(case, data, label, threads):
    """Score with all defaults, in a process of its own."""
    import lsi

    torch.set_num_threads(threads)
    samples, features = case
    X, y, _ = cifar_features(data, samples, label)
    if features:
        random = np.random.default_rng(0).standard_normal((X.shape[1], features))
        X = np.maximum(X @ (random / X.shape[1] ** 0.5).astype(np.float32), 0)
    start = time.perf_counter()
    scores = lsi.score(X, y)
    seconds, timings, audit = time.perf_counter() - start, scores.manifest["timings"], scores.audit
    return {
        "case": f"{samples:,} × {X.shape[1]}",
        "seconds": seconds,
        **{stage: timings.get(stage) for stage in ("fit", "factor", "leave-one-out", "audit", "label noise")},
        "memory GB": peak_memory() / 1e9,
        "max error": audit.max_relative_error,
        "over certificate": 1.0 - audit.certificate_coverage,
        "above tol": int(np.sum(~(scores.to_frame()["relative_error"].to_numpy() <= 1e-2))),
    }


def main():
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=50_000)
    options.add_argument("--label", default="aggre")
    options.add_argument("--audit", type=int, default=16)
    options.add_argument("--case", type=int, action="append", help="which cases, by number; default: all")
    options.add_argument("--separable", action="store_true", help="small separable data, all defaults")
    given = options.parse_args()
    if given.separable:
        context, rows = multiprocessing.get_context("spawn"), []
        for case in SEPARABLE:
            with context.Pool(1) as pool:
                rows.append(pool.apply(run_separable, (case, given.data, given.label, given.threads)))
        facts = {"data": cifar_features(given.data, 8, given.label)[2], "threads": given.threads}
        write("Separable data", rows, SEPARABLE_COLUMNS, facts, given.output)
        return
    cases = [CASES[i] for i in given.case] if given.case else CASES
    context = multiprocessing.get_context("spawn")
    rows = []
    for case in cases:
        audit = given.audit if case["posterior"] != "full" else 0
        with context.Pool(1) as pool:
            arguments = (case, given.data, given.label, given.samples, audit, given.threads)
            rows.append(pool.apply(run, arguments))
    facts = {"data": cifar_features(given.data, 8, given.label)[2], "samples": given.samples}
    facts["threads"] = given.threads
    for row in rows[1:]:
        facts[f"{row['case']}: times the first case"] = row["seconds"] / rows[0]["seconds"]
    write("Newton engine", rows, COLUMNS, facts, given.output)


if __name__ == "__main__":
    main()
