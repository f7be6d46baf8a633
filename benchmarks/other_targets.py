"""Wrong numbers and several labels, a part of `benchmarks.detection`: this library and cleanlab."""

import numpy as np

from benchmarks.detection import row


def numbers():
    """Yield diabetes with wrong targets, and clean residuals with tails: name, features, target, truth."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    X, y = X / X.std(0), (y - y.mean()) / y.std()
    yield "diabetes clean", X, y, np.zeros(len(y), dtype=bool)
    for kind in ("moved by 3 sd", "moved by 6 sd", "normal noise of 3 sd", "another's target"):
        random, truth = np.random.default_rng(20), np.zeros(len(y), dtype=bool)
        truth[random.choice(len(y), round(0.1 * len(y)), replace=False)] = True
        n, given = int(truth.sum()), y.copy()
        if kind.startswith("moved"):
            given[truth] += float(kind.split()[2]) * random.choice([-1.0, 1.0], n)
        elif kind.startswith("normal"):
            given[truth] += 3.0 * random.normal(size=n)
        else:
            given[truth] = random.permutation(y)[truth]
        yield f"diabetes 10% {kind}", X, given, truth
    random = np.random.default_rng(21)
    X = random.normal(size=(4000, 10))
    for name, noise in (
        ("t3", random.standard_t(3, 4000)),
        ("Laplace", random.laplace(size=4000)),
        ("uneven spread", random.normal(size=4000) * np.exp(X[:, 0])),
        ("skewed", random.lognormal(size=4000) - np.exp(0.5)),
    ):
        yield f"clean, {name}", X, X.sum(1) + noise, np.zeros(4000, dtype=bool)
    noise, truth = random.normal(size=4000), random.random(4000) < 0.05
    yield "normal, 5% moved by 6 sd", X, X.sum(1) + noise + 6 * truth * random.choice([-1, 1], 4000), truth


def indicators():
    """Yield several labels a sample with flips: name, features, given and right labels."""
    from sklearn.datasets import make_multilabel_classification

    X, clean = make_multilabel_classification(3000, n_features=30, n_classes=6, random_state=3)
    yield "6 labels that no plane separates, clean", X.astype(np.float64), clean, clean
    random = np.random.default_rng(22)
    X = random.normal(size=(2000, 20))
    logits = 3.0 * (X @ random.normal(size=(20, 5)) / 20**0.5 + [-1.5, -1.0, 0.0, 0.0, 0.5])
    for name, sharp in (("overlapping", 1.0), ("sharp", 3.0)):
        clean = (random.random(logits.shape) < 1 / (1 + np.exp(-sharp * logits))).astype(int)
        for rate in (0.0, 0.05, 0.1):
            flips = random.random(clean.shape) < rate
            yield f"5 labels, {name}, {rate:.0%} flipped", X, np.where(flips, 1 - clean, clean), clean


def number_rows():
    """Return our rows and cleanlab's for regressions."""
    import lsi

    rows = []
    for name, X, y, truth in numbers():
        scores = lsi.score(X, y, probe=lsi.RidgeProbe(weight_decay=1e-3), audit=False)
        found = scores.label_noise
        rows.append(row(name, "lsi wrong_probability", found.wrong_probability, truth, None, found))
        rows.append(row(name, "LOO residual", scores.to_frame()["loo_z"].abs().to_numpy(), truth, None))
        try:
            from cleanlab.regression.learn import CleanLearning
            from sklearn.linear_model import LinearRegression
        except ImportError:
            continue
        peer = CleanLearning(LinearRegression(), seed=0).find_label_issues(X, y)
        rows.append(row(name, "cleanlab", 1.0 - peer["label_quality"].to_numpy(), truth, None))
        rows[-1]["estimated"] = int(peer["is_label_issue"].sum())
    return rows


def indicator_rows():
    """Return our rows and cleanlab's for several labels a sample."""
    import lsi

    rows, method = [], lsi.Newton(tol=None)
    for name, X, given, clean in indicators():
        scores = lsi.score(X, given, probe=lsi.SigmoidProbe(weight_decay=1e-3), method=method, audit=False)
        found, frame, truth = scores.label_noise, scores.to_frame(), (given != clean).any(1)
        rows.append(row(name, "lsi wrong_probability", found.wrong_probability, truth, None, found))
        rows.append(row(name, "1 − LOO p", 1.0 - frame["loo_probability"].to_numpy(), truth, None))
        right = np.stack([frame[f"loo_probability_{k}"] for k in range(given.shape[1])], 1)
        try:
            from cleanlab.multilabel_classification import get_label_quality_scores
            from cleanlab.multilabel_classification.filter import find_label_issues
        except ImportError:
            continue
        lists, yes = [list(np.flatnonzero(each)) for each in given], np.where(given == 1, right, 1 - right)
        rows.append(row(name, "cleanlab", 1.0 - get_label_quality_scores(lists, yes), truth, None))
        rows[-1]["estimated"] = int(find_label_issues(lists, yes).sum())
    return rows
