"""Contrastive pairs: mismatches found, batched retraining against one by one, and the time of 5,000 pairs."""

import io
import resource
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from benchmarks.common import cifar_features, parser, peak_memory, write

CASES = {"mismatches": 1000, "retrain": 200, "large": 5000}
COLUMNS = [
    "case", "pairs", "seconds", "CPU seconds", "audit seconds", "AUROC lsi", "AUROC left", "AUROC right",
    "AUROC 1-p", "median rank", "spearman", "median error", "max error", "memory GB",
]  # fmt: skip


def gradients(pixels, cells=8, bins=9):
    """Return histograms of oriented gradients, and coarse colours: an encoder without weights."""
    x = torch.from_numpy(pixels).float() / 255
    grey = x.mean(3)
    across, down = torch.zeros_like(grey), torch.zeros_like(grey)
    across[:, :, 1:-1], down[:, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2], grey[:, 2:] - grey[:, :-2]
    size, angle = (across**2 + down**2).sqrt(), torch.atan2(down, across) % torch.pi / torch.pi * bins
    low = angle.floor()
    planes = [
        ((low % bins) == b) * (1 - angle + low) + (((low + 1) % bins) == b) * (angle - low)
        for b in range(bins)
    ]
    width = pixels.shape[1] // cells
    pooled = torch.nn.functional.avg_pool2d(torch.stack([size * plane for plane in planes], 1), width)
    blocks = torch.nn.functional.unfold(pooled, 2).view(len(x), 4 * bins, -1)
    blocks = (blocks / (blocks.norm(dim=1, keepdim=True) + 1e-2)).flatten(1)
    colours = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), width).flatten(1)
    return torch.cat([blocks / blocks.std(), 0.5 * colours / colours.std()], 1).numpy()


def second_view(folder, saved, n_samples):
    """Return features of a second encoder: from a file, else gradients of the images themselves."""
    if saved is not None:
        return np.load(saved)[:n_samples], saved.name
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(folder / "cifar10" / "train.parquet", columns=["image"]).slice(0, n_samples)
    rows = [row["bytes"] for row in table["image"].to_pylist()]
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(row)).convert("RGB")) for row in rows])
    return gradients(pictures), "oriented gradients and colours"


def mismatched(n, share=0.1, seed=0):
    """Return where each right item comes from: a share of them exchanged in a ring."""
    chosen = np.random.default_rng(seed).choice(n, round(share * n), replace=False)
    origin = np.arange(n)
    origin[chosen] = np.roll(chosen, 1)
    return origin


def run(case, left, right, n, dims, method, audit, subset=None):
    import lsi

    x, y = (PCA(dims, random_state=0).fit_transform(side[:n].astype(np.float64)) for side in (left, right))
    origin = mismatched(n)
    began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    scores = lsi.score_pairs(x, y[origin], method=method, audit=audit, subset=subset)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    table, result = scores.to_frame(), scores.audit
    wrong = origin[table["position"]] != table["position"]
    spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    checked = scores.manifest["timings"].get("audit", 0.0)
    both = 0 < wrong.sum() < len(wrong)
    return {
        "case": case,
        "pairs": n,
        "scored": len(table),
        "seconds": seconds - checked,
        "CPU seconds": spent * (1 - checked / seconds),
        "audit seconds": checked,
        "AUROC lsi": both and roc_auc_score(wrong, table["lsi"]),
        "AUROC left": both and roc_auc_score(wrong, table["lsi_left"]),
        "AUROC right": both and roc_auc_score(wrong, table["lsi_right"]),
        "AUROC 1-p": both and roc_auc_score(wrong, 1 - table["loo_probability"]),
        "median rank": float(table.loc[~wrong, "loo_rank"].median()),
        "spearman": result and result.spearman,
        "median error": result and result.median_relative_error,
        "max error": result and result.max_relative_error,
        "memory GB": peak_memory() / 1e9,
    }


def main():
    import lsi

    options = parser(__doc__)
    options.add_argument("--second", type=Path, help=".npy of a second encoder's features of the same images")
    options.add_argument("--dims", type=int, default=64, help="principal components of each side")
    options.add_argument("--case", action="append", choices=CASES, help="default: all")
    given = options.parse_args()
    if given.data is None:
        options.error("--data FOLDER is needed: it holds cifar10/train.parquet and cifar10/features_….npz")
    torch.set_num_threads(given.threads)
    largest = max(CASES[name] for name in given.case or CASES)
    left, _, name = cifar_features(given.data, largest)
    right, second = second_view(given.data, given.second, largest)
    rows = []
    for case in given.case or CASES:
        n, retrain = CASES[case], case == "retrain"
        method = lsi.Retrain(epochs=100, lr=0.5) if retrain else lsi.Newton()
        subset = np.arange(0, n, n // 24) if retrain else None
        rows.append(run(case, left, right, n, given.dims, method, 4 if retrain else 12, subset))
    facts = {"left": name, "right": second, "components": given.dims, "threads": given.threads}
    facts["retrain"] = "errors are those of many copies at a time against one by one"
    write("Contrastive pairs", rows, COLUMNS, facts, given.output)


if __name__ == "__main__":
    main()
