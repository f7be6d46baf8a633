"""Pairs without labels: mismatched partners."""

import numpy as np

import lsi
from benchmarks.contrastive import mismatched
from benchmarks.paper.measures import auroc, linear_scores, precision_at, rank_correlation, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {
    "contrastive": {
        "full": {"n": 1000, "components": 32, "dim": 16, "seeds": 3},
        "small": {"n": 60, "components": 8, "dim": 4, "seeds": 2},
    }
}


def contrastive(sources, n, components, dim, seeds):
    """Pair two encoders' features of the same pictures, some pairs mismatched; score without any label."""
    images = sources.images
    views = sources.views(n, 64, components)
    left, partners = views["network"][0], {"gradients": views["gradients"][0]}
    if sources.second is not None:
        partners["second network"] = sources.second_view(n, components)[0]
    labelled = linear_scores(left, images.y[:n]).lsi
    rows, figures, shown = [], {}, {}
    for name, right in partners.items():
        found = [_score(left, right, labelled, dim, seed) for seed in range(seeds)]
        shown[name] = found[0][1:]
        rows.append(
            {"partner": name, **{key: spread([one[key] for one, *_ in found]) for key in found[0][0]}}
        )
        figures |= {f"{key}, {name}": rows[-1][key] for key in list(rows[-1])[1:]}
    settings = {"left": images.name, "right": ", ".join(partners), "pairs": n}
    settings |= {"mismatched": "10 %", "features a side": components, "dimension": dim, "seeds": seeds}
    claim = "Without labels, mismatched pairs have high LSI."
    return Outcome(
        claim, settings, figures, rows, lambda figure: _draw(figure, shown), (4.5 * len(shown), 3.0)
    )


def _score(left, right, labelled, dim, seed):
    """Return figures, LSI and which pairs are mismatched."""
    origin = mismatched(len(left), 0.1, seed)
    wrong = origin != np.arange(len(left))
    probe = lsi.ContrastiveProbe(dim=dim, seed=seed)
    scores = lsi.score_pairs(left, right[origin], probe=probe, audit=4)
    table = scores.to_frame()
    figures = {
        "AUROC joint LSI": auroc(wrong, scores.lsi),
        "AUROC left head": auroc(wrong, table["lsi_left"]),
        "AUROC right head": auroc(wrong, table["lsi_right"]),
        "AUROC 1−p": auroc(wrong, 1 - table["loo_probability"]),
        "precision LSI": precision_at(wrong, scores.lsi),
        "rank correlation with supervised LSI, matched": rank_correlation(
            scores.lsi[~wrong], labelled[~wrong]
        ),
        "audit rank correlation": scores.audit.spearman,
    }
    return figures, scores.lsi, wrong


def _draw(figure, shown):
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, (values, wrong)) in zip(panels, shown.items(), strict=True):
        logs = np.log10(values)
        bins = np.linspace(logs.min(), logs.max(), 50)
        axes.hist(logs[~wrong], bins, color=WEAK, label="matched")
        axes.hist(logs[wrong], bins, color=OTHER, alpha=0.85, label="mismatched")
        axes.set(xlabel="log₁₀ joint LSI (nats)", ylabel="pairs")
        axes.set_title(f"{name}: AUROC {auroc(wrong, values):.2f}", fontsize=9, color=STRONG)
        axes.legend(frameon=False)
