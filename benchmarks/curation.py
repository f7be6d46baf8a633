"""Accuracy of a probe trained on what is kept: this library's orders against random, margin and EL2N."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import parser, write

ORDERS = {
    "lsi": {},
    "lsi, unbalanced": {"balanced": False},
    "lsi, right": {"order": "right"},
    "lsi, largest after doubtful": {"order": "largest", "drop_mislabeled": True},
    "lsi, largest": {"order": "largest"},
    "lsi, smallest": {"order": "smallest"},
}
BASELINES = ("random", "margin", "el2n", "margin-balanced", "el2n-balanced", "margin-hard", "el2n-hard")
COLUMNS = ["order", "share", "n_kept", "mean", "low", "high", "gain", "gain_low", "gain_high"]


def load_data(folder, label):
    """Return training and test data, and where they came from; digits with noise without a folder."""
    path = None if folder is None else folder / "cifar10" / "features_effnetlite0_pca512.npz"
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            X, X_test = arrays["X"].astype(np.float32), arrays["Xt"].astype(np.float32)
            return X, arrays[label], X_test, arrays["ty"], arrays["clean"], f"CIFAR-10, {label}"
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    given = np.where(random.random(len(y)) < 0.3, random.integers(0, 10, len(y)), y)
    train = np.arange(len(y)) % 3 != 0
    X = (X / 16.0).astype(np.float32)
    return X[train], given[train], X[~train], y[~train], y[train], "digits, 30 % random labels"


def scored(X, y, options):
    """Return scores, from the folder of an earlier run where there is one."""
    import lsi

    if options.scores is not None and options.scores.is_dir():
        return lsi.load(options.scores), None
    began = time.perf_counter()
    probe = lsi.LinearProbe(weight_decay=options.weight_decay)
    scores = lsi.score(X, y, probe=probe, method=lsi.Newton(tol=None), audit=False)
    if options.scores is not None:
        scores.save(options.scores)
    return scores, time.perf_counter() - began


def plot(curves, title, path):
    """Draw accuracy against the kept share, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in curves.table.groupby("order", sort=False):
        style = "-" if name.startswith("lsi") else "--"
        (line,) = axes.plot(rows["share"], rows["mean"], style, marker="o", markersize=3, label=name)
        axes.fill_between(rows["share"], rows["low"], rows["high"], color=line.get_color(), alpha=0.12)
    axes.axhline(curves.full[0], color="0.5", linewidth=1)
    axes.annotate("everything", (0.02, curves.full[0]), xycoords=("axes fraction", "data"), va="bottom")
    axes.set(xlabel="share of the samples kept", ylabel="accuracy on the clean test set", title=title)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=150)


def main():
    import lsi

    options = parser(__doc__)
    options.add_argument("--label", default="worse", help="labels in the file: clean, aggre, worse")
    options.add_argument("--weight-decay", type=float, default=1e-2)
    options.add_argument(
        "--probe-decay", type=float, default=None, help="of the judged probe; default: the same"
    )
    options.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--orders", nargs="+", default=list(ORDERS), choices=list(ORDERS))
    options.add_argument("--baselines", nargs="+", default=list(BASELINES), choices=list(BASELINES))
    options.add_argument("--scores", type=Path, default=None, help="folder to keep the scores in, or to read")
    options.add_argument("--plot", type=Path, default=None, help="picture to write")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    X, y, X_test, y_test, clean, source = load_data(given.data, given.label)
    scores, seconds = scored(X, y, given)
    began = time.perf_counter()
    curves = lsi.curation_curves(
        X, y, X_test, y_test, scores,
        shares=given.shares, n_seeds=given.seeds, orders={name: ORDERS[name] for name in given.orders},
        baselines=given.baselines,
        probe=lsi.LinearProbe(weight_decay=given.probe_decay or given.weight_decay),
    )  # fmt: skip
    wrong = np.asarray(y) != np.asarray(clean)
    facts = {
        "data": source,
        "samples": len(X),
        "wrong labels": float(wrong.mean()),
        "wrong among the kept half": float(wrong[scores.select(0.5)].mean()),
        "calibrated wrong_probability": "wrong_probability" in scores.to_frame(),
        "weight decay of scores": given.weight_decay,
        "weight decay of the judged probe": given.probe_decay or given.weight_decay,
        "accuracy of training on everything": curves.full[0],
        "seeds": given.seeds,
        "scoring seconds": seconds,
        "training seconds": time.perf_counter() - began,
    }
    if given.plot is not None:
        plot(curves, source, given.plot)
    write("Curation", curves.table.to_dict("records"), COLUMNS, facts, given.output)
    if given.output is not None:
        stored = json.loads(given.output.read_text())
        given.output.write_text(json.dumps({**stored, "curation": curves.to_manifest()}, indent=1))


if __name__ == "__main__":
    main()
