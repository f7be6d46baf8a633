"""Difficulty of datasets; training on thirds by LSI."""

import numpy as np

from benchmarks.paper.data import HUMAN
from benchmarks.paper.measures import accuracy, flipped, linear_scores, rank_correlation, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {
    "difficulty": {
        "full": {"n": 1100, "n_test": 3000, "features": 64, "seeds": 3},
        "small": {"n": 200, "n_test": 90, "features": 16, "seeds": 2},
    },
    "thirds": {
        "full": {"n": 6000, "features": 128, "parts": 3},
        "small": {"n": 300, "features": 16, "parts": 2},
    },
}


def difficulty(sources, n, n_test, features, seeds):
    """Score datasets of equal size, features and classes; compare their LSI with the test error."""
    rows = []
    for name, (X, y, X_test, y_test) in _datasets(sources, n, n_test, features).items():
        found = [_difficulty(X, y, X_test, y_test, n, seed) for seed in range(seeds)]
        rows.append({"dataset": name, **{key: spread([one[key] for one in found]) for key in found[0]}})
    rows.sort(key=lambda row: row["test error"]["mean"])
    same = [row for row in rows if "network" in row["dataset"]]
    figures = {}
    for key in ("mean LSI (nats)", "median LSI (nats)", "difficulty"):
        figures[f"rank correlation of {key} with test error"] = _agreement(rows, key)
        figures[f"{key}, same features, {len(same)} kinds of labels"] = _agreement(same, key)
    settings = {"samples": n, "features": features, "classes": 10, "draws of the samples": seeds}
    settings |= {"test samples": n_test}
    claim = "Harder datasets have higher LSI."
    return Outcome(claim, settings, figures, rows, lambda figure: _draw_difficulty(figure, rows), (8.5, 3.2))


def _datasets(sources, n, n_test, features):
    """Return `{name: (X, y, X_test, y_test)}`, all with ten classes and equally many features."""
    images, room = sources.images, min(3 * n, len(sources.images.y))
    held = min(n_test, len(images.y_test))
    views, truth = sources.views(room, held, features), images.y_test[:held]
    name = images.name.split(",")[0]
    found = {f"{name}, {view}": (X, images.y[:room], T, truth) for view, (X, T) in views.items()}
    X, T = views["network"]
    for kind, words in HUMAN.items():
        found[f"{name}, network, labels: {words}"] = (X, images.human[kind][:room], T, truth)
    found[f"{name}, network, 20 % random labels"] = (X, flipped(images.y[:room], 0.2, 0)[0], T, truth)
    return found | _digits(features)


def _digits(features):
    from benchmarks.paper.data import Sources

    digits = Sources(None).images
    return {
        "scikit-learn digits, pixels": (
            digits.X[:, :features],
            digits.y,
            digits.X_test[:, :features],
            digits.y_test,
        )
    }


def _difficulty(X, y, X_test, y_test, n, seed):
    at = np.random.default_rng(seed).permutation(len(y))[:n]
    scores = linear_scores(X[at], y[at])
    return {
        "mean LSI (nats)": float(scores.lsi.mean()),
        "median LSI (nats)": float(np.median(scores.lsi)),
        "difficulty": scores.difficulty(n_bootstrap=20).difficulty,
        "test error": 1 - accuracy(X[at], y[at], X_test, y_test)[0],
    }


def _agreement(rows, key):
    return rank_correlation([row[key]["mean"] for row in rows], [row["test error"]["mean"] for row in rows])


def _draw_difficulty(figure, rows):
    *panels, words = figure.subplots(1, 3, width_ratios=(1, 1, 0.75))
    for axes, key in zip(panels, ("median LSI (nats)", "difficulty"), strict=True):
        for number, row in enumerate(rows, 1):
            place = (row[key]["mean"], row["test error"]["mean"])
            axes.plot(*place, "o", color=STRONG)
            axes.annotate(str(number), place, (4, 3), textcoords="offset points", fontsize=8)
        axes.set(xlabel=key, ylabel="test error")
    names = "\n".join(f"{number} {row['dataset']}" for number, row in enumerate(rows, 1))
    words.text(0, 1, names.replace(", labels", "\n   labels"), va="top", fontsize=7)
    words.axis("off")


def thirds(sources, n, features, parts):
    """Train on the low, middle and high third by LSI in each class; test on clean labels."""
    images = sources.images
    n = min(n, len(images.y) // parts)
    X_test = images.X_test[:, :features]
    cases = {"clean": images.y, **{f"human, {words}": images.human[name] for name, words in HUMAN.items()}}
    cases["random 20%"] = flipped(images.y, 0.2, 0)[0]
    rows = []
    for name, labels in cases.items():
        found = []
        for part in range(parts):
            at = images.part(part * n, (part + 1) * n)
            found.append(_thirds(images.X[at, :features], labels[at], X_test, images.y_test, part))
        rows.append({"labels": name, **{key: spread([one[key] for one in found]) for key in found[0]}})
    figures = {
        f"{name}: {key} minus random third": row[key]["mean"] - row["random third"]["mean"]
        for name, row in ((row["labels"], row) for row in (rows[0], rows[3]))
        for key in ("low", "middle", "high", "select(1/3)")
    }
    settings = {"data": images.name, "samples": n, "features": features, "disjoint parts": parts}
    settings |= {"test": f"accuracy on {len(images.y_test)} clean samples"}
    claim = "Samples of which LSI are worth training on, with clean labels and with wrong ones?"
    return Outcome(claim, settings, figures, rows, lambda figure: _draw_thirds(figure, rows), (7.5, 3.4))


def _thirds(X, y, X_test, y_test, seed):
    scores = linear_scores(X, y)
    kept = {"low": [], "middle": [], "high": []}
    for code in np.unique(y):
        own = np.flatnonzero(y == code)
        split = np.array_split(own[np.argsort(scores.lsi[own], kind="stable")], 3)
        for name, rows in zip(kept, split, strict=True):
            kept[name].append(rows)
    kept = {name: np.concatenate(parts) for name, parts in kept.items()}
    kept["random third"] = np.random.default_rng(seed).permutation(len(y))[: len(y) // 3]
    kept["select(1/3)"] = scores.select(1 / 3)
    kept["everything"] = np.arange(len(y))
    return {name: accuracy(X[rows], y[rows], X_test, y_test)[0] for name, rows in kept.items()}


def _draw_thirds(figure, rows):
    axes = figure.subplots()
    names = [key for key in rows[0] if key != "labels"]
    colours = dict(zip(names, (WEAK, STRONG, OTHER, "#999999", "#5b9a68", "#333333"), strict=True))
    for number, name in enumerate(names):
        x = np.arange(len(rows)) + (number - 2.5) * 0.14
        values = [row[name] for row in rows]
        middle = np.array([value["mean"] for value in values])
        reach = np.array(
            [[value["mean"] - value["low"], value["high"] - value["mean"]] for value in values]
        ).T
        axes.bar(
            x, middle, 0.13, yerr=np.abs(reach), color=colours[name], label=name, error_kw={"linewidth": 0.7}
        )
    axes.set_xticks(range(len(rows)), [row["labels"].replace(", ", ",\n") for row in rows], fontsize=8)
    axes.set_ylabel("accuracy on clean test")
    axes.legend(frameon=False, fontsize=7, ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))
