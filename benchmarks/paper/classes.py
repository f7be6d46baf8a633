"""LSI of a class against the test accuracy of the class."""

import numpy as np

from benchmarks.paper.measures import accuracy, linear_scores, spread
from benchmarks.paper.outcome import STRONG, Outcome

SIZES = {
    "classes": {
        "full": {"n": 5000, "features": 256, "parts": 3},
        "small": {"n": 300, "features": 16, "parts": 2},
    }
}


def classes(sources, n, features, parts):
    """Score disjoint parts of the training data; compare each class's median LSI with its test accuracy."""
    images = sources.images
    n = min(n, len(images.y) // parts)
    X_test = images.X_test[:, :features]
    views = {"clean labels": images.y, "labels of one person": images.human["rand1"]}
    correlations, tables = {}, {}
    for name, labels in views.items():
        for part in range(parts):
            at = images.part(part * n, (part + 1) * n)
            X, y = images.X[at, :features], labels[at]
            _, predicted = accuracy(X, y, X_test, images.y_test)
            table = linear_scores(X, y).by_class(test=(images.y_test, predicted))
            correlations.setdefault(name, []).append(table.attrs["correlation"]["median"])
            tables.setdefault(name, []).append(table.sort_values("label"))
    rows = [_row(images, tables["clean labels"], place) for place in range(len(images.classes))]
    rows.sort(key=lambda row: -row["median LSI (nats)"]["mean"])
    figures = {
        f"rank correlation with test accuracy, {name}": spread(of) for name, of in correlations.items()
    }
    settings = {"data": images.name, "samples": n, "features": features, "disjoint parts": parts}
    settings |= {"test samples": len(images.y_test), "table": "clean labels"}
    claim = "Classes of high LSI are those with low test accuracy."
    return Outcome(claim, settings, figures, rows, lambda figure: _draw(figure, rows), (5.5, 4.0))


def _row(images, tables, place):
    return {
        "class": images.classes[place],
        "median LSI (nats)": spread([table["median"].iloc[place] for table in tables]),
        "test accuracy": spread([table["test_accuracy"].iloc[place] for table in tables]),
    }


def _draw(figure, rows):
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = figure.subplots()
    x, y = ([row[key] for row in rows] for key in ("median LSI (nats)", "test accuracy"))
    middle = [np.array([one["mean"] for one in side]) for side in (x, y)]
    reach = [
        np.abs(np.array([[one["mean"] - one["low"], one["high"] - one["mean"]] for one in side]).T)
        for side in (x, y)
    ]
    axes.errorbar(*middle, xerr=reach[0], yerr=reach[1], fmt="o", color=STRONG, elinewidth=0.7)
    for row, left, height in zip(rows, *middle, strict=True):
        axes.annotate(row["class"], (left, height), (5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="median LSI of the class (nats)", ylabel="test accuracy of the class", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
