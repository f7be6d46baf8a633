"""Noise on the data of given classes."""

import numpy as np

from benchmarks.contrastive import gradients
from benchmarks.paper.data import components_of
from benchmarks.paper.measures import auroc, linear_scores, spread
from benchmarks.paper.outcome import OTHER, STRONG, Outcome

SIZES = {
    "noise": {
        "full": {
            "n": 3000,
            "features": 128,
            "strengths": (0.5, 1.0, 2.0),
            "classes": (0, 3, 6),
            "seeds": 3,
        },
        "small": {"n": 200, "features": 16, "strengths": (1.0,), "classes": (3,), "seeds": 2},
    }
}


def noise(sources, n, features, strengths, classes, seeds):
    """Add noise to all samples of some classes, or to half of them; compare LSI with that without noise."""
    images = sources.images
    at = images.part(0, n)
    y, pictures = images.y[at], images.pictures("train", n)
    hit = np.isin(y, classes)
    makers = {
        "features": lambda mask, strength, random: _noisy(images.X[at, :features], mask, strength, random),
        "pixels": lambda mask, strength, random: _encoded(
            _noisy_pictures(pictures, mask, strength, random), features
        ),
    }
    rows = []
    for kind, make in makers.items():
        before = linear_scores(make(np.zeros(len(at), bool), 0.0, None), y).lsi
        for strength in strengths:
            found = [_measure(make, y, hit, strength, seed, before) for seed in range(seeds)]
            columns = {key: spread([one[key] for one in found]) for key in found[0]}
            rows.append({"noise on": kind, "strength (sd)": strength, **columns})
    figures = {
        f"{key}, {kind}, strongest noise": row[key]["mean"] for kind, row in _last(rows) for key in MEASURES
    }
    words = [images.classes[code] for code in classes]
    settings = {"data": f"{images.name}, clean labels", "samples": len(at), "features": features}
    settings |= {"classes with noise": words, "encoder of noisy pixels": "oriented gradients and colours"}
    settings |= {"draws of the noise": seeds}
    claim = "Noise on the data of a class raises the LSI of its samples."
    return Outcome(claim, settings, figures, rows, lambda figure: _draw(figure, rows), (7.5, 3.2))


MEASURES = (
    "ratio, noisy classes",
    "ratio, other classes",
    "AUROC, half of each class noisy",
    "AUROC, a fifth of all classes noisy",
)


def _measure(make, y, hit, strength, seed, before):
    """Return how many times the median LSI is that without noise; whether noisy samples stand out.

    Noise that only some classes have tells the class; noise on a fifth of all samples does not.
    """
    random = np.random.default_rng(seed)
    after = linear_scores(make(hit, strength, random), y).lsi
    half = hit & (random.random(len(y)) < 0.5)
    mixed = linear_scores(make(half, strength, random), y).lsi
    inside = [auroc(half[y == code], mixed[y == code]) for code in np.unique(y[hit])]
    anywhere = random.random(len(y)) < 0.2
    spread_out = auroc(anywhere, linear_scores(make(anywhere, strength, random), y).lsi)
    ratios = [np.median(after[part]) / np.median(before[part]) for part in (hit, ~hit)]
    return dict(zip(MEASURES, [*map(float, ratios), float(np.mean(inside)), spread_out], strict=True))


def _noisy(X, mask, strength, random):
    """Return features with normal noise of `strength` standard deviations of each column."""
    out = X.copy()
    if mask.any():
        out[mask] += strength * X.std(0) * random.standard_normal((int(mask.sum()), X.shape[1]))
    return out


def _noisy_pictures(pictures, mask, strength, random):
    """Return pictures with normal noise of `strength` standard deviations of all pixels, cut to 0–255."""
    out = pictures.copy()
    if mask.any():
        noise = strength * pictures.std() * random.standard_normal(pictures[mask].shape)
        out[mask] = np.clip(pictures[mask] + noise, 0, 255).astype(np.uint8)
    return out


def _encoded(pictures, n_components):
    rows = gradients(pictures)
    return components_of(rows, rows[:1], n_components)[0]


def _last(rows):
    return {row["noise on"]: row for row in rows}.items()


def _draw(figure, rows):
    left, right = figure.subplots(1, 2)
    for (kind, _), colour in zip(_last(rows), (STRONG, OTHER), strict=True):
        own = [row for row in rows if row["noise on"] == kind]
        x = [row["strength (sd)"] for row in own]
        left.plot(
            x, [row[MEASURES[0]]["mean"] for row in own], "o-", color=colour, label=f"{kind}, noisy classes"
        )
        left.plot(
            x, [row[MEASURES[1]]["mean"] for row in own], "o--", color=colour, label=f"{kind}, other classes"
        )
        for measure, style, words in (
            (MEASURES[2], "o-", "half of each class"),
            (MEASURES[3], "o--", "a fifth of all"),
        ):
            right.plot(
                x, [row[measure]["mean"] for row in own], style, color=colour, label=f"{kind}, {words}"
            )
    left.axhline(1, color="grey", linewidth=0.7)
    left.set(xlabel="noise (sd)", ylabel="median LSI, times that without noise", yscale="log")
    right.axhline(0.5, color="grey", linewidth=0.7)
    right.set(xlabel="noise (sd)", ylabel="AUROC of LSI, noisy samples")
    left.legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    right.legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
