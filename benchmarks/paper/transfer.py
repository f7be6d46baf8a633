"""From one architecture to another: do they agree about which samples are informative?"""

from itertools import combinations

import numpy as np

from benchmarks.paper.measures import accuracy, auroc, flipped, linear_scores, rank_correlation, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome
from benchmarks.paper.text import word_features

SIZES = {
    "transfer": {
        "full": {"n": 5000, "n_test": 3000, "components": 128, "seeds": 3},
        "small": {"n": 200, "n_test": 90, "components": 16, "seeds": 2},
    }
}
HALVES = ((0, "even"), (1, "odd"))


def transfer(sources, n, n_test, components, seeds):
    """Score the same samples on features of encoders that share nothing; train one on the other's choice."""
    images = sources.images
    n, n_test = min(n, len(images.y)), min(n_test, len(images.y_test))
    views = sources.views(n, n_test, components)
    clean, test = images.y[:n], images.y_test[:n_test]
    halves = {f"{which} components": (images.X[:n, start : 2 * components : 2],) for start, which in HALVES}
    noisy, wrong = flipped(clean, 0.1, 0)
    second = sources.second_view(n, components)
    others = {} if second is None else {"second network": second}
    everything = views | halves | others
    scores = {name: linear_scores(X, clean) for name, (X, *_) in everything.items()}
    found = {name: linear_scores(X, noisy).lsi for name, (X, *_) in everything.items()}
    pairs = [tuple(halves), *(("network", name) for name in others), *combinations(views, 2)]
    rows = [_pair(images.name.split(",")[0], *pair, scores, found, clean, wrong) for pair in pairs]
    rows.append(_texts(sources, components))
    tests = {name: test for name in ("gradients", "pixels")}
    tests |= {name: images.y[n : n + len(held)] for name, (_, held) in others.items()}
    accuracies = _accuracies(views | others, clean, tests, seeds)
    figures = {f"rank correlation, {row['data']}, {row['encoders']}": row["rank correlation"] for row in rows}
    for row in accuracies:
        figures[f"accuracy on {row['probe on']}"] = {key: row[key] for key in list(row)[1:]}
    settings = {"data": f"{images.name}; {sources.texts.name}", "samples": n, "features": components}
    settings |= {"flipped": "10 % of the labels, for the columns on them"}
    settings |= {"accuracies": "linear probe on thirds by LSI on the network's features, 10 % flipped"}
    settings |= {
        "draws of the flips": seeds,
        "even, odd": "halves of twice as many components of the network",
    }
    claim = "LSI transfers: what one architecture finds informative is informative for others."

    def draw(figure):
        _draw(figure, scores, accuracies)

    return Outcome(claim, settings, figures, rows, draw, (8.0, 3.2))


def _pair(data, left, right, scores, found, clean, wrong):
    inside = [
        rank_correlation(scores[left].lsi[clean == code], scores[right].lsi[clean == code])
        for code in np.unique(clean)
    ]
    return {
        "data": data,
        "encoders": f"{left} and {right}",
        "rank correlation": rank_correlation(scores[left].lsi, scores[right].lsi),
        "within classes": float(np.mean(inside)),
        "highest tenth in common": _overlap(scores[left].lsi, scores[right].lsi),
        "AUROC of flips": [auroc(wrong, found[name]) for name in (left, right)],
    }


def _overlap(left, right):
    """Return which share of the one's highest tenth is in the other's; a tenth by chance."""
    k = max(1, len(left) // 10)
    return len(set(np.argsort(-left)[:k]) & set(np.argsort(-right)[:k])) / k


def _texts(sources, components):
    texts = sources.texts
    noisy, wrong = flipped(texts.y, 0.1, 0)
    views = {"sentence model": texts.X[:, :], "word counts": word_features(texts.texts, components)}
    scores = {name: linear_scores(X, texts.y) for name, X in views.items()}
    found = {name: linear_scores(X, noisy).lsi for name, X in views.items()}
    return _pair(texts.name.split(",")[0], *views, scores, found, texts.y, wrong)


def _accuracies(views, clean, tests, seeds):
    """Return test accuracies of probes on other features, trained on thirds by LSI on the network's."""
    found = {name: [] for name in tests}
    for seed in range(seeds):
        y, _ = flipped(clean, 0.1, seed)
        order = np.argsort(linear_scores(views["network"][0], y).lsi, kind="stable")
        choices = dict(zip(("low", "middle", "high"), np.array_split(order, 3), strict=True))
        choices["random"] = np.random.default_rng(seed).permutation(len(y))[: len(y) // 3]
        for other, of in found.items():
            X, X_test = views[other]
            of.append({key: accuracy(X[at], y[at], X_test, tests[other])[0] for key, at in choices.items()})
    return [
        {"probe on": other, **{key: spread([one[key] for one in of]) for key in of[0]}}
        for other, of in found.items()
    ]


def _draw(figure, scores, accuracies):
    left, middle, right = figure.subplots(1, 3)
    for axes, other in ((left, "gradients"), (middle, "pixels")):
        axes.loglog(scores["network"].lsi, scores[other].lsi, ".", color=STRONG, markersize=1)
        axes.set(xlabel="LSI, network's features", ylabel=f"LSI, {other}")
    for number, (name, colour) in enumerate(
        zip(("low", "middle", "high", "random"), (WEAK, STRONG, OTHER, "#999999"), strict=True)
    ):
        x = np.arange(len(accuracies)) + (number - 1.5) * 0.2
        right.bar(x, [row[name]["mean"] for row in accuracies], 0.19, color=colour, label=name)
    right.set_xticks(range(len(accuracies)), [row["probe on"] for row in accuracies])
    right.set(ylabel="test accuracy, third by the network's LSI")
    right.legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
