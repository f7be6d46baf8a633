"""ImageNet's size on a laptop: 1,281,167 samples, 512 features, 1,000 classes, streamed from a memory map."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import parser, peak_memory, product_peak, write

GROUPS, SPREAD, NOISE = 40, 0.9, 0.02
COLUMNS = [
    "posterior", "seconds", "fit", "posterior s", "factor", "leave-one-out", "audit s", "memory GB",
    "spearman", "median error", "max error", "train accuracy",
]  # fmt: skip


def features(path, n, d, c, seed=0):
    """Write features with the structure of a frozen encoder's, and return their labels.

    Variances fall off as in a principal-component basis; classes are close to the others of their group, so
    that each sample is plausible in a few classes; class sizes vary; a few labels are wrong.
    """
    random = np.random.default_rng(seed)
    scale = (1.0 + np.arange(d)) ** -0.4
    groups = random.integers(0, GROUPS, c)
    centres = 1.2 * random.normal(size=(GROUPS, d))[groups] + 0.7 * random.normal(size=(c, d))
    share = random.dirichlet(np.full(c, 30.0))
    y = np.concatenate([np.arange(c), random.choice(c, n - c, p=share)])
    random.shuffle(y)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    for low in range(0, n, 65_536):
        part = y[low : low + 65_536]
        noise = random.standard_normal((len(part), d), dtype=np.float32) / SPREAD
        out[low : low + 65_536] = (centres[part] * 0.5 + noise) * scale
    out.flush()
    wrong = random.random(n) < NOISE
    y[wrong] = random.integers(0, c, int(wrong.sum()))
    return y


def main():
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=1_281_167)
    options.add_argument("--features", type=int, default=512)
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--posterior", default="kron")
    options.add_argument("--tol", type=float, default=None, help="default: no refinement")
    options.add_argument("--audit", type=int, default=8)
    options.add_argument(
        "--folder", type=Path, default=None, help="keeps features and finished blocks: resumes"
    )
    given = options.parse_args()
    import lsi

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        file, labels = folder / "features.npy", folder / "labels.npy"
        began = time.perf_counter()
        if not labels.is_file():
            np.save(labels, features(file, given.samples, given.features, given.classes))
        y, made = np.load(labels), time.perf_counter() - began
        X, method = np.load(file, mmap_mode="r"), lsi.Newton(tol=given.tol, solver="blocks")
        print(lsi.make_plan(*X.shape, given.classes, posterior=given.posterior, method=method), flush=True)
        rate, shown = product_peak(), [""]

        def progress(stage, done, total):
            line = f"{time.perf_counter() - began:8.1f} s  {stage} {done}/{total}"
            if stage != "leave-one-out" or done == total:
                print(line, flush=True)
            shown[0] = stage

        scores = lsi.score(
            X, y, posterior=given.posterior, method=method, audit=given.audit, label_noise=False,
            progress=progress, checkpoint=given.folder and folder / "blocks",
        )  # fmt: skip
    timings, audit = scores.manifest["timings"], scores.audit
    row = {
        "posterior": given.posterior,
        "seconds": sum(value for stage, value in timings.items() if stage != "audit"),
        "fit": timings["fit"],
        "posterior s": timings["posterior"],
        "factor": timings["factor"],
        "leave-one-out": timings["leave-one-out"],
        "audit s": timings["audit"],
        "memory GB": peak_memory() / 1e9,
        "spearman": audit and audit.spearman,
        "median error": audit and audit.median_relative_error,
        "max error": audit and audit.max_relative_error,
        "train accuracy": scores.manifest["fit"]["train_accuracy"],
    }
    facts = {
        "samples": given.samples, "features": given.features, "classes": given.classes, "tol": given.tol,
        "threads": given.threads, "seconds to make the data": made, "peak GFLOP/s": rate / 1e9,
        "fit": scores.manifest["fit"], "audit": audit and audit.to_dict(),
    }  # fmt: skip
    write("Many classes from a memory map", [row], COLUMNS, facts, given.output)


if __name__ == "__main__":
    main()
