"""Reviews with two classes: flipped labels, and which reviews are typical."""

import numpy as np

from benchmarks.paper.measures import auroc, flipped, linear_scores, precision_at, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {"text": {"full": {"rates": (0.05, 0.1, 0.2), "seeds": 3}, "small": {"rates": (0.2,), "seeds": 2}}}


def word_features(texts, components):
    """Return principal directions of weighted word counts: an encoder without a network."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(min_df=3, max_features=20000, sublinear_tf=True).fit_transform(texts)
    X = TruncatedSVD(min(components, counts.shape[1] - 1), random_state=0).fit_transform(counts)
    return (X / np.sqrt((X**2).mean())).astype(np.float32)


def text(sources, rates, seeds):
    """Find flipped labels of reviews; compare LSI with the stars that the writer gave."""
    texts = sources.texts
    rows = []
    for rate in rates:
        draws = [flipped(texts.y, rate, seed) for seed in range(seeds)]
        found = [_find(texts.X, labels, wrong) for labels, wrong in draws]
        columns = {key: spread([one[key] for one in found]) for key in found[0]}
        rows.append({"flipped": rate, **columns})
    scores = linear_scores(texts.X, texts.y)
    stars = {int(star): float(np.median(scores.lsi[texts.stars == star])) for star in np.unique(texts.stars)}
    figures = {f"AUROC of LSI, {row['flipped']:.0%} flipped": row["AUROC LSI"]["mean"] for row in rows}
    figures["median LSI (nats) by stars, clean labels"] = stars
    order = np.argsort(scores.lsi, kind="stable")
    notes = [
        f"{where} LSI, class {texts.y[at]}, {texts.stars[at]} stars: “{_short(texts.texts[at])}”\n"
        for where, some in (("Lowest", order[:3]), ("Highest", order[-3:]))
        for at in some
    ]
    settings = {"data": texts.name, "samples": len(texts.y), "features": texts.X.shape[1]}
    settings |= {"draws of the flips": seeds}
    claim = "The same holds for text: flipped labels have high LSI, outspoken reviews low LSI."

    def draw(figure):
        _draw(figure, rows, stars)

    return Outcome(claim, settings, figures, rows, draw, (7.0, 3.0), notes)


def _find(X, labels, wrong):
    scores = linear_scores(X, labels)
    doubt = 1 - scores.to_frame()["loo_probability"]
    return {
        "AUROC LSI": auroc(wrong, scores.lsi),
        "AUROC 1−p": auroc(wrong, doubt),
        "precision LSI": precision_at(wrong, scores.lsi),
    }


def _short(text, length=110):
    words = " ".join(text.replace("<br />", " ").split())
    return words if len(words) <= length else words[:length] + " …"


def _draw(figure, rows, stars):
    left, right = figure.subplots(1, 2)
    x = np.arange(len(rows))
    for number, (key, colour) in enumerate((("AUROC LSI", STRONG), ("AUROC 1−p", WEAK))):
        left.bar(x + (number - 0.5) * 0.35, [row[key]["mean"] for row in rows], 0.33, color=colour, label=key)
    left.set_xticks(x, [f"{row['flipped']:.0%}" for row in rows])
    left.set(xlabel="flipped labels", ylabel="AUROC", ylim=(0.5, 1))
    left.legend(frameon=False, fontsize=8)
    right.bar([str(star) for star in stars], list(stars.values()), color=OTHER)
    right.set(xlabel="stars of the review", ylabel="median LSI (nats)")
