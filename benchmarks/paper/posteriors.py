"""Diagonal, Kronecker-factored and full posteriors, over one layer and over two."""

import numpy as np

import lsi
from benchmarks.paper.measures import WEIGHT_DECAY, auroc, flipped, linear_scores, rank_correlation
from benchmarks.paper.outcome import OTHER, STRONG, Outcome

STRUCTURES = ("diag", "kron", "full")
NETWORKS = (("tanh", WEIGHT_DECAY), ("relu", 1e-4))
SIZES = {
    "posteriors": {
        "full": {"sizes": (500, 3000), "features": 64, "network": (400, 32, 8, 120), "epochs": 300},
        "small": {"sizes": (80,), "features": 8, "network": (60, 6, 3, 10), "epochs": 10},
    }
}


def posteriors(sources, sizes, features, network, epochs):
    """Score the same samples, a tenth of the labels flipped, with all three posteriors."""
    rows, scatter = [], {}
    for n in sizes:
        X, y, wrong = _data(sources, n, features)
        found = {name: linear_scores(X, y, posterior=name).lsi for name in STRUCTURES}
        rows.append(_row(f"linear, {features} features", n, found, wrong))
        scatter[f"linear, {n:,} samples"] = found
    n, width, hidden, scored = network
    X, y, wrong = _data(sources, n, width)
    chosen = np.arange(min(scored, n))
    for activation, weight_decay in NETWORKS:
        probe = lsi.MLPProbe(hidden=(hidden,), activation=activation, weight_decay=weight_decay)
        method = lsi.Retrain(epochs=epochs, lr=0.05)
        settings = {"probe": probe, "method": method, "subset": chosen, "audit": False, "label_noise": False}
        found = {name: lsi.score(X, y, posterior=name, **settings).lsi for name in STRUCTURES}
        rows.append(_row(f"two layers, {activation}, decay {weight_decay:g}", n, found, wrong[chosen]))
        scatter[f"two layers, {activation}"] = found
    figures = {f"rank correlation {pair}": [row[pair] for row in rows] for pair in _PAIRS}
    words = {"data": f"{sources.images.name}, 10 % of the labels flipped", "features": features}
    words |= {
        "linear": "Newton, all samples scored",
        "two layers": f"{width}-{hidden}, Retrain({epochs} epochs, lr 0.05), {len(chosen)} scored",
    }
    claim = (
        "Does the cheap diagonal posterior rank samples as the Kronecker-factored and the full posterior do?"
    )
    return Outcome(claim, words, figures, rows, lambda figure: _draw(figure, scatter), (8.5, 2.6))


_PAIRS = ("diag and kron", "diag and full", "kron and full")


def _data(sources, n, features):
    images = sources.images
    at = images.part(0, n)
    return images.X[at, :features], *flipped(images.y[at], 0.1, 0)


def _row(name, n, found, wrong):
    row = {"probe": name, "samples": n, "scored": len(wrong)}
    row |= {pair: rank_correlation(*(found[end] for end in pair.split(" and "))) for pair in _PAIRS}
    return row | {f"AUROC {name}": auroc(wrong, values) for name, values in found.items()}


def _draw(figure, scatter):
    for axes, (name, found) in zip(
        figure.subplots(1, len(scatter), squeeze=False)[0], scatter.items(), strict=True
    ):
        for structure, colour in (("kron", OTHER), ("full", STRONG)):
            axes.loglog(found["diag"], found[structure], ".", color=colour, markersize=2, label=structure)
        axes.set(title=name, xlabel="LSI, diag (nats)", ylabel="LSI (nats)")
        axes.legend(frameon=False, markerscale=4, fontsize=8)
