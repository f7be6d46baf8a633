"""Typical and atypical samples; mislabeled samples."""

import numpy as np

from benchmarks.paper.data import HUMAN
from benchmarks.paper.measures import auroc, flipped, linear_scores, precision_at, rank_correlation, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {
    "typical": {
        "full": {"n": 5000, "features": 256, "shown": 5, "audit": 16},
        "small": {"n": 150, "features": 16, "shown": 2, "audit": 2},
    },
    "mislabeled": {
        "full": {"n": 5000, "features": 256, "rates": (0.05, 0.1, 0.2, 0.4), "seeds": 3},
        "small": {"n": 150, "features": 16, "rates": (0.2,), "seeds": 2},
    },
}
FOUND = ("AUROC LSI", "AUROC 1−p", "precision LSI")


def typical(sources, n, features, shown, audit):
    """Score clean labels; hold the ranking against people who looked at the images."""
    images = sources.images
    at = images.part(0, n)
    y = images.y[at]
    scores = linear_scores(images.X[at, :features], y, audit=audit)
    doubt = (images.votes[at] != y[:, None]).sum(1)  # of three people, how many gave another label
    order = np.argsort(scores.lsi, kind="stable")
    tenths = np.array_split(order, 10)
    rows = [
        {
            "tenth of LSI": number + 1,
            "median LSI (nats)": float(np.median(scores.lsi[tenth])),
            "people who disagree with the label": float(doubt[tenth].mean() / 3),
            "leave-one-out error": float((scores.to_frame()["loo_prediction"].to_numpy() != y)[tenth].mean()),
        }
        for number, tenth in enumerate(tenths)
    ]
    figures = {
        "people disagree, lowest tenth": rows[0]["people who disagree with the label"],
        "people disagree, highest tenth": rows[-1]["people who disagree with the label"],
        "rank correlation of LSI with people who disagree": rank_correlation(scores.lsi, doubt),
        "audit": scores.audit.summary(),
    }
    pictures = images.pictures("train", n)

    def draw(figure):
        ranked = [order[y[order] == code] for code in range(len(images.classes))]
        shown_rows = [np.concatenate([of[:shown], of[-shown:]]) for of in ranked]
        gallery(figure, pictures, shown_rows, images.classes, shown)

    settings = {"data": f"{images.name}, clean labels", "samples": len(at), "features": features}
    claim = "Low LSI: typical samples. High LSI: atypical, ambiguous or hard ones."
    return Outcome(claim, settings, figures, rows, draw, (5.0, 0.4 * len(images.classes) + 0.3))


def gallery(figure, pictures, rows, names, shown):
    """Draw one row of pictures a class: lowest LSI on the left, highest on the right."""
    side = pictures.shape[1]
    gap = side // 2
    canvas = np.full((len(rows) * side, 2 * shown * side + gap, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        for column, position in enumerate(row):
            left = column * side + (gap if column >= shown else 0)
            canvas[line * side : (line + 1) * side, left : left + side] = pictures[position]
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest", aspect="equal")
    axes.set_yticks([(line + 0.5) * side for line in range(len(rows))], names)
    axes.set_xticks([shown * side / 2, canvas.shape[1] - shown * side / 2], ["lowest LSI", "highest LSI"])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def mislabeled(sources, n, features, rates, seeds):
    """Find labels that were flipped at random, and labels that people got wrong."""
    images = sources.images
    at = images.part(0, n)
    X, clean = images.X[at, :features], images.y[at]
    cases = [(f"random {rate:.0%}", [flipped(clean, rate, seed) for seed in range(seeds)]) for rate in rates]
    for name, words in HUMAN.items():
        given = images.human[name][at]
        cases.append((f"human, {words}", [(given, given != clean)]))
    rows, shown = [], {}
    for name, draws in cases:
        found = [_find(X, labels, wrong) for labels, wrong in draws]
        shown[name] = found[0]
        rows.append({
            "labels": name,
            "wrong": float(np.mean([wrong.mean() for _, wrong in draws])),
            **{key: spread([one[key] for one in found]) for key in FOUND},
        })  # fmt: skip
    random, human = rows[: len(rates)], rows[len(rates) :]
    figures = {
        "AUROC of LSI, random flips": [row["AUROC LSI"]["mean"] for row in random],
        "AUROC of LSI, human errors": [row["AUROC LSI"]["mean"] for row in human],
        "AUROC of leave-one-out 1−p, random flips": [row["AUROC 1−p"]["mean"] for row in random],
        "AUROC of leave-one-out 1−p, human errors": [row["AUROC 1−p"]["mean"] for row in human],
    }
    settings = {"data": images.name, "samples": len(at), "features": features, "draws of random flips": seeds}
    claim = "Mislabeled samples have high LSI and are found by it."
    return Outcome(claim, settings, figures, rows, lambda figure: _histograms(figure, shown), (8.0, 4.2))


def _find(X, labels, wrong):
    scores = linear_scores(X, labels)
    doubt = 1 - scores.to_frame()["loo_probability"]
    return {
        "AUROC LSI": auroc(wrong, scores.lsi),
        "AUROC 1−p": auroc(wrong, doubt),
        "precision LSI": precision_at(wrong, scores.lsi),
        "lsi": scores.lsi,
        "wrong": wrong,
    }


def _histograms(figure, shown):
    grid = figure.subplots(2, (len(shown) + 1) // 2, squeeze=False, sharex=True)
    for axes, (name, found) in zip(grid.flat, shown.items(), strict=False):
        values = np.log10(np.maximum(found["lsi"], 1e-12))
        bins = np.linspace(*np.quantile(values, [0.001, 0.999]), 40)
        axes.hist(values[~found["wrong"]], bins, color=WEAK, label="right")
        axes.hist(values[found["wrong"]], bins, color=OTHER, alpha=0.8, label="wrong")
        axes.set_title(f"{name}\nAUROC {found['AUROC LSI']:.2f}", fontsize=7, color=STRONG)
        axes.set_yticks([])
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.supxlabel("log₁₀ LSI (nats)", fontsize=9)
