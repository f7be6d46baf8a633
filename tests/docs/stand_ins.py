"""Small data for what pages speak of as the reader's own: files by their names, and names in Python."""

import json
import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tests.makers import tiny_resnet

import lsi
from lsi.cli import main


def features(n=60, d=5, n_classes=3, seed=0):
    """Return overlapping classes: `(n, d)` features and `(n,)` labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, d)) + np.eye(n_classes, d)[y], y


OWN_ENCODER = """
import numpy as np


def build():
    return lambda items: np.stack([np.asarray(item).ravel()[:5] / 255 for item in items])
"""


def make_files(folder):
    """Write every file and folder that a page's commands read."""
    X, y = features()
    ids = np.arange(len(y))
    for name in ("features.npz", "mine.npz", "data.npz", "train.npz", "test.npz"):
        np.savez(folder / name, X=X, y=y, ids=ids)
    np.savez(folder / "pairs.npz", left=X, right=X[:, ::-1] + 0.1 * X)
    frame = pd.DataFrame(X[:, :3], columns=["f1", "f2", "f3"])
    frame.assign(label=y, id=ids).to_parquet(folder / "data.parquet")
    frame.assign(label=y, id=ids).to_csv(folder / "data.csv", index=False)
    frame[:30].to_parquet(folder / "new.parquet")
    frame.assign(**{"class": y}).to_csv(folder / "measurements.csv", index=False)
    made_customers().to_csv(folder / "customers.csv", index=False)
    answers = {name: np.where(ids % 7 == k, (y + 1) % 3, y) for k, name in enumerate(("ann", "bob", "cat"))}
    frame.assign(**answers).to_csv(folder / "crowd.csv", index=False)
    tags = [[name for name, hit in zip(("red", "big"), row, strict=True) if hit] for row in X[:, :2] > 0]
    hits = {"red": (X[:, 0] > 0).astype(int), "big": (X[:, 1] > 0).astype(int)}
    frame.assign(tags=tags, **hits).to_parquet(folder / "photos.parquet")
    for label in range(2):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for k in range(10):
            pixels = np.random.default_rng(label * 10 + k).integers(0, 256, (4, 4, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / str(label) / f"{k}.png")
    tiny_resnet(folder / "path" / "to" / "model")
    (folder / "mymodule.py").write_text(OWN_ENCODER)
    _make_scores(folder)
    _make_decisions(folder, y)


def _make_scores(folder):
    """Write the folders of scores that pages load: of features.npz, and of the folder of images."""
    X, y = features()
    scores = lsi.score(X, y, audit=4)
    for name in ("scores", "scores-a", "scores-b", "scores-old", "scores-new", "scores-other", "old", "new"):
        scores.save(folder / name)
    X, y = features(200)  # enough for three blocks
    for part in (1, 2, 3):
        lsi.score(X, y, audit=4, shard=(part, 3)).save(folder / f"part{part}")


def _make_decisions(folder, y):
    """Write decisions as the report exports them, and a selection."""
    entries = [{"sample_id": 7, "decision": "accept", "label": int(y[7]), "suggested_label": int(y[8])}]
    scored = lsi.load(folder / "scores").manifest["data"]["fingerprint"]
    about = {"format": "lsi-decisions", "version": 1, "fingerprint": scored, "decisions": entries}
    (folder / "decisions.json").write_text(json.dumps(about))
    (folder / "decisions.csv").write_text(
        f"sample_id,decision,label,suggested_label\n7,accept,{y[7]},{y[8]}\n"
    )
    assert main(["select", str(folder / "scores"), "--keep", "0.5", "-o", str(folder / "kept.parquet")]) == 0


def names():
    """Return what pages use without making it: trained models, and data that anybody would have."""
    X, y = features()
    X_test, y_test = features(seed=1)
    scores = lsi.score(X, y, audit=4)
    torch.manual_seed(0)
    inputs, labels = torch.from_numpy(X).float(), torch.from_numpy(y)
    backbone = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh())
    return {
        "lsi": lsi, "np": np, "torch": torch, "X": X, "y": y, "X_test": X_test, "y_test": y_test,
        "predictions": y_test, "scores": scores, "features": X, "labels": y,
        "names": [f"row {k}" for k in range(len(y))], "left": X, "right": X[:, ::-1] + 0.1 * X,
        "loader": [(inputs[:30], labels[:30]), (inputs[30:], labels[30:])],
        "backbone": backbone, "model": torch.nn.Sequential(backbone, torch.nn.Linear(4, 3)),
    }  # fmt: skip


def wine():
    """Return 36 of scikit-learn's wines, standardised: for networks of thirteen features."""
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    return {"X": ((X - X.mean(0)) / X.std(0))[::5], "y": y[::5]}


def digits_test():
    """Return a test set of digits, with predictions that are all right."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return {"X_test": X[-100:] / 16, "y_test": y[-100:], "predictions": y[-100:]}


def made_customers():
    """Return a few rows of the table that the example of customers makes."""
    path = Path(__file__).parents[2] / "examples" / "customers.py"
    with patch.object(sys, "path", [str(path.parent), *sys.path]):  # as for a script
        return runpy.run_path(str(path))["make_customers"](60)[0]


def customers():
    """Return a table without its label, the label, and other rows of it."""
    frame = made_customers()
    churn = frame.pop("churn")
    return {"frame": frame, "churn": churn, "other_rows": frame.head(5)}


# What a page means by a name, where it is not the same on all pages.
OWN_NAMES = {"data.md": customers, "networks.md": wine, "decisions.md": digits_test}
# How many digits there are on a page; decisions.md keeps 500 of them, what-if.md draws 500.
N_DIGITS = {"decisions.md": 600, "what-if.md": 500, "explain.md": 450}


def fewer_digits(monkeypatch, count):
    """Make scikit-learn's digits fewer samples."""
    import sklearn.datasets

    whole = sklearn.datasets.load_digits

    def load_digits(*, return_X_y=False):
        bunch = whole()
        for name in ("data", "target", "images"):
            bunch[name] = bunch[name][:count]
        return (bunch.data, bunch.target) if return_X_y else bunch

    monkeypatch.setattr(sklearn.datasets, "load_digits", load_digits)
