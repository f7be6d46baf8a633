"""The training algorithm: SAM against SGD, noise of DP-SGD, and when training stops."""

import numpy as np

import lsi
from benchmarks.paper.measures import WEIGHT_DECAY, auroc, flipped, linear_scores, rank_correlation, spread
from benchmarks.paper.outcome import OTHER, STRONG, WEAK, Outcome

SIZES = {
    "sam": {
        "full": {
            "n": 500,
            "features": 64,
            "hidden": 8,
            "scored": 150,
            "epochs": 200,
            "lengths": (0.05, 0.2, 1.0),
            "seeds": 3,
        },
        "small": {
            "n": 60,
            "features": 8,
            "hidden": 3,
            "scored": 12,
            "epochs": 10,
            "lengths": (0.1,),
            "seeds": 1,
        },
    },
    "dp": {
        "full": {
            "n": 500,
            "features": 64,
            "epochs": 200,
            "levels": (1.0, 5.0, 20.0, 50.0, 100.0),
            "seeds": 3,
        },
        "small": {"n": 60, "features": 8, "epochs": 10, "levels": (1.0,), "seeds": 2},
    },
    "stopping": {
        "full": {"n": 500, "features": 64, "hidden": 8, "scored": 150, "epochs": 1000, "every": 50},
        "small": {"n": 60, "features": 8, "hidden": 3, "scored": 12, "epochs": 10, "every": 5},
    },
}
RATE = 0.05


def _data(sources, n, features):
    images = sources.images
    at = images.part(0, n)
    return images.X[at, :features], *flipped(images.y[at], 0.1, 0)


def _scores(X, y, hidden, method, subset=None, weight_decay=WEIGHT_DECAY):
    """Return scores of a linear probe (no hidden units) or of a perceptron, after training by `method`."""
    if not hidden:
        return linear_scores(X, y, weight_decay, method=method, subset=subset)
    probe = lsi.MLPProbe((hidden,), "tanh", weight_decay=weight_decay)
    return lsi.score(X, y, probe=probe, method=method, subset=subset, audit=False, label_noise=False)


def sam(sources, n, features, hidden, scored, epochs, lengths, seeds):
    """Compare LSI under sharpness-aware training with LSI under SGD, and with SGD from another seed."""
    X, y, wrong = _data(sources, n, features)
    chosen = np.arange(min(scored, len(y)))
    optimizers = {"sgd": "sgd", "sgd, another seed": "sgd"}
    optimizers |= {f"sam, rho {length:g}": lsi.SAM(rho=length) for length in lengths}
    rows, values = [], {}
    for probe, width in (("linear", 0), (f"{features}-{hidden}, tanh", hidden)):
        runs = {}
        for name, optimizer in optimizers.items():
            first = 5 + seeds if "another" in name else 5
            methods = [lsi.Retrain(epochs, RATE, seed=first + k, optimizer=optimizer) for k in range(seeds)]
            runs[name] = [_scores(X, y, width, method, chosen).lsi for method in methods]
            rows.append(
                {"probe": probe, "training": name, **_against(runs["sgd"], runs[name], wrong[chosen])}
            )
            values[probe, name] = runs[name][0]
    figures = {
        f"rank correlation with sgd, {row['probe']}, {row['training']}": row["rank correlation with sgd"]
        for row in rows
        if row["training"] != "sgd"
    }
    settings = _settings(sources, len(y), features, epochs) | {"scored": len(chosen), "seeds": seeds}
    claim = "Does sharpness-aware training rank samples otherwise than SGD?"

    def draw(figure):
        for axes, probe in zip(
            figure.subplots(1, 2), dict.fromkeys(row["probe"] for row in rows), strict=True
        ):
            for (of, name), found in values.items():
                if of == probe and name.startswith("sam"):
                    axes.loglog(values[probe, "sgd"], found, ".", markersize=3, label=name)
            low, high = values[probe, "sgd"].min(), values[probe, "sgd"].max()
            axes.plot([low, high], [low, high], color="grey", linewidth=0.7)
            axes.set(title=probe, xlabel="LSI, sgd (nats)", ylabel="LSI, sam (nats)")
            axes.legend(frameon=False, fontsize=8)

    return Outcome(claim, settings, figures, rows, draw, (7.0, 3.2))


def _against(plain, found, wrong):
    """Return how runs differ from plain ones, seed by seed."""
    pairs = list(zip(plain, found, strict=True))
    return {
        "rank correlation with sgd": spread([rank_correlation(a, b) for a, b in pairs]),
        "median LSI (nats)": spread([np.median(b) for _, b in pairs]),
        "median ratio to sgd": spread([np.median(b / a) for a, b in pairs]),
        "AUROC of flips": spread([auroc(wrong, b) for _, b in pairs]),
    }


def dp(sources, n, features, epochs, levels, seeds):
    """Compare LSI of a linear probe under clipped and noisy training with LSI under SGD."""
    X, y, wrong = _data(sources, n, features)
    plain = [
        _scores(X, y, 0, lsi.Retrain(epochs=epochs, lr=RATE, seed=5 + seed)).lsi for seed in range(seeds)
    ]
    rows = [_dp_row("sgd", None, plain, plain, wrong)]
    clipped = None
    for level in (0.0, *levels):
        optimizer = lsi.DPSGD(noise_multiplier=level)
        method = [
            lsi.Retrain(epochs=epochs, lr=RATE, seed=5 + seed, optimizer=optimizer) for seed in range(seeds)
        ]
        found = [_scores(X, y, 0, one).lsi for one in method]
        clipped = found if clipped is None else clipped
        name = "clipping alone" if level == 0 else f"noise {level:g}"
        row = _dp_row(name, optimizer.epsilon(epochs, 1e-5) if level else None, found, plain, wrong)
        row["rank correlation with clipping alone"] = _mean_correlation(clipped, found)
        rows.append(row)
    figures = {
        "noise multipliers": list(levels),
        "rank correlation with sgd": [row["rank correlation with sgd"] for row in rows[2:]],
        "AUROC of flips": [row["AUROC of flips"] for row in rows[2:]],
    }
    settings = _settings(sources, len(y), features, epochs) | {"scored": len(y), "seeds": seeds}
    settings |= {"probe": "linear", "epsilon": "of one trained model, at delta 1e-5"}
    claim = "Does noise in private training blur the ranking, the more the stronger it is?"
    return Outcome(claim, settings, figures, rows, lambda figure: _draw_dp(figure, rows[2:]), (7.0, 3.0))


def _dp_row(name, epsilon, found, plain, wrong):
    pairs = [(i, j) for i in range(len(found)) for j in range(i)]
    return {
        "training": name,
        "epsilon": epsilon,
        "rank correlation with sgd": _mean_correlation(plain, found),
        "between seeds": float(np.mean([rank_correlation(found[i], found[j]) for i, j in pairs])),
        "median LSI (nats)": float(np.mean([np.median(values) for values in found])),
        "AUROC of flips": float(np.mean([auroc(wrong, values) for values in found])),
    }


def _mean_correlation(left, right):
    """Return the mean over seeds of the rank correlation of runs with the same seed."""
    return float(np.mean([rank_correlation(a, b) for a, b in zip(left, right, strict=True)]))


def _draw_dp(figure, rows):
    left, right = figure.subplots(1, 2)
    levels = [float(row["training"].split()[-1]) for row in rows]
    for key, colour in (
        ("rank correlation with sgd", STRONG),
        ("between seeds", WEAK),
        ("AUROC of flips", OTHER),
    ):
        left.semilogx(levels, [row[key] for row in rows], "o-", color=colour, label=key)
    left.set(xlabel="noise multiplier", ylim=(min(0, left.get_ylim()[0]), 1.02))
    left.legend(frameon=False, fontsize=8)
    right.semilogx(levels, [row["median LSI (nats)"] for row in rows], "o-", color=STRONG)
    right.set(xlabel="noise multiplier", ylabel="median LSI (nats)", ylim=(0, None))


def stopping(sources, n, features, hidden, scored, epochs, every):
    """Record LSI along the training; compare it with the end, and with the optimum of the linear probe."""
    X, y, wrong = _data(sources, n, features)
    chosen = np.arange(min(scored, len(y)))
    optimum = linear_scores(X, y, 1e-4, subset=chosen, method=lsi.Newton(tol=1e-2)).lsi
    rows, curves = [], {}
    for probe, width, rate in (
        ("linear, lr 0.004", 0, 0.004),
        ("linear, lr 0.05", 0, RATE),
        (f"{features}-{hidden}, tanh, lr 0.05", hidden, RATE),
    ):
        method = lsi.Retrain(epochs=epochs, lr=rate, record_every=every)
        table = _scores(X, y, width, method, chosen, 1e-4).to_frame()
        curves[probe] = []
        for epoch in range(every, epochs + 1, every):
            values = table[f"lsi_epoch_{epoch}"].to_numpy()
            row = {"probe": probe, "epoch": epoch}
            row["rank correlation with the end"] = rank_correlation(values, table["lsi"])
            row["rank correlation with the linear optimum"] = rank_correlation(values, optimum)
            row["AUROC of flips"] = auroc(wrong[chosen], values)
            curves[probe].append(row)
        shown = {1, 2, 4, 10, len(curves[probe])}
        rows += [row for number, row in enumerate(curves[probe], 1) if number in shown]
    figures = {
        f"{probe}: rank correlation with the end after {row['epoch']} epochs": row[
            "rank correlation with the end"
        ]
        for probe, own in curves.items()
        for row in (own[0], own[(len(own) - 1) // 2])
    }
    settings = _settings(sources, len(y), features, epochs) | {"scored": len(chosen), "weight_decay": 1e-4}
    settings["learning rate"] = "in the table; 0.004 is the paper's"
    claim = "Does the ranking settle long before training ends?"

    def draw(figure):
        for axes, key in zip(
            figure.subplots(1, 2), ("rank correlation with the end", "AUROC of flips"), strict=True
        ):
            for (probe, own), colour in zip(curves.items(), (STRONG, WEAK, OTHER), strict=True):
                axes.plot([row["epoch"] for row in own], [row[key] for row in own], color=colour, label=probe)
            axes.set(xlabel="epochs", ylabel=key)
        figure.axes[0].legend(frameon=False, fontsize=8)

    return Outcome(claim, settings, figures, rows, draw, (7.5, 3.0))


def _settings(sources, n, features, epochs):
    settings = {
        "data": f"{sources.images.name}, 10 % of the labels flipped",
        "samples": n,
        "features": features,
    }
    return settings | {
        "training": f"Retrain, {epochs} epochs",
        "learning rate": RATE,
        "weight_decay": WEIGHT_DECAY,
    }
