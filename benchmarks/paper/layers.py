"""A linear probe, the last layer of a network, and the whole network."""

import numpy as np

import lsi
from benchmarks.paper.measures import WEIGHT_DECAY, auroc, flipped, linear_scores, rank_correlation
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {
    "layers": {
        "full": {"n": 600, "features": 128, "hidden": 16, "scored": 120, "epochs": 200},
        "small": {"n": 60, "features": 8, "hidden": 4, "scored": 10, "epochs": 10},
    }
}
NETWORKS = {"tanh, lr 0.05": ("tanh", 0.05), "relu, lr 0.05": ("relu", 0.05)}
COLUMNS = ("last layer, Newton", "last layer's posterior", "linear probe", "linear probe, Newton")


def layers(sources, n, features, hidden, scored, epochs):
    """Compare with the LSI of the whole network: of its last layer, and of a linear probe on its input."""
    images = sources.images
    at = images.part(0, n)
    X, chosen = images.X[at, :features], np.arange(min(scored, len(at)))
    rows = []
    for labels, rate in (("clean", 0.0), ("10 % flipped", 0.1)):
        y, wrong = flipped(images.y[at], rate, 0)
        for name, (activation, lr) in NETWORKS.items():
            rows.append({"labels": labels, "network": name})
            rows[-1] |= _compare(X, y, wrong, chosen, activation, hidden, lsi.Retrain(epochs=epochs, lr=lr))
    figures = {f"rank correlation, {column}": [row[column] for row in rows] for column in COLUMNS}
    figures["rank correlation of the whole network between two seeds"] = [row["two seeds"] for row in rows]
    settings = {"data": images.name, "samples": len(at), "scored": len(chosen)}
    settings |= {
        "network": f"{features}-{hidden}-{len(images.classes)}",
        "training": f"Retrain, {epochs} epochs",
    }
    claim = "A probe on frozen features, or the last layer, ranks samples as the whole network does."
    return Outcome(claim, settings, figures, rows, lambda figure: _draw(figure, rows), (7.0, 3.2))


def _compare(X, y, wrong, chosen, activation, hidden, method):
    def network(method, **settings):
        probe = lsi.MLPProbe((hidden,), activation, weight_decay=WEIGHT_DECAY, **settings)
        given = {"method": method, "subset": chosen, "audit": False, "label_noise": False}
        return lsi.score(X, y, probe=probe, **given).lsi

    again = lsi.Retrain(epochs=method.epochs, lr=method.lr, seed=method.seed + 1)
    whole, others = network(method), {}
    others["two seeds"] = network(again)
    others[COLUMNS[0]] = network("newton", training=method)
    others[COLUMNS[1]] = network(method, posterior_layers="last")
    others[COLUMNS[2]] = linear_scores(X, y, method=method, subset=chosen).lsi
    others[COLUMNS[3]] = linear_scores(X, y, subset=chosen).lsi
    row = {name: rank_correlation(whole, values) for name, values in others.items()}
    if wrong.any():
        row["AUROC whole"] = auroc(wrong[chosen], whole)
        row["AUROC linear probe, Newton"] = auroc(wrong[chosen], others[COLUMNS[3]])
    return row


def _draw(figure, rows):
    axes = figure.subplots()
    names = ("two seeds", *COLUMNS)
    colours = ("#999999", STRONG, WEAK, OTHER, "#e6a58f")
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x = np.arange(len(rows)) + (number - 2) * 0.16
        axes.bar(x, [row[name] for row in rows], 0.15, color=colour, label=name)
    axes.set_xticks(range(len(rows)), [f"{row['network']}\n{row['labels']}" for row in rows], fontsize=8)
    axes.set_ylabel("rank correlation with\nthe whole network")
    axes.legend(frameon=False, fontsize=7, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
