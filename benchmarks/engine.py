"""Time of the Newton engine by stage, against the matrix-product peak measured in the same run."""

import multiprocessing

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, peak_memory, product_peak, write

CASES = [
    {"posterior": "diag", "tol": None},
    {"posterior": "diag", "tol": 1e-2},
    {"posterior": "kron", "tol": None},
    {"posterior": "full", "tol": None},
]
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


def main():
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=50_000)
    options.add_argument("--label", default="aggre")
    options.add_argument("--audit", type=int, default=16)
    options.add_argument("--case", type=int, action="append", help="which cases, by number; default: all")
    given = options.parse_args()
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
