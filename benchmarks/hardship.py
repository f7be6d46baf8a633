"""Ten thousand classes with one sample each: finite scores, held against brute force.

`python -m benchmarks.hardship --classes 10000`: draws N = C samples of 16 features, scores some of them with
class blocks, and prints time, memory, how many scores are finite and what the audit measured.
"""

import time

import numpy as np
import torch

import lsi
from benchmarks.common import parser, peak_memory, write


def main():
    """Score and audit."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--classes", type=int, default=10_000)
    options.add_argument("--scored", type=int, default=8)
    options.add_argument("--audit", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    n = given.classes
    X = np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32)
    subset = np.linspace(0, n - 1, given.scored).astype(int)
    began = time.perf_counter()
    scores = lsi.score(X, np.arange(n), method=lsi.Newton(solver="blocks"), subset=subset, audit=given.audit)
    row = {
        "classes": n,
        "seconds": time.perf_counter() - began,
        "peak MB": peak_memory() / 1e6,
        "finite": int(np.isfinite(scores.lsi).sum()),
        "of": len(scores),
        "lowest": float(scores.lsi.min()),
        "highest": float(scores.lsi.max()),
        "largest certificate": float(scores.to_frame()["relative_error"].max()),
        "largest audited error": scores.audit.max_relative_error,
    }
    write("One sample a class", [row], list(row), {}, given.output)


if __name__ == "__main__":
    main()
