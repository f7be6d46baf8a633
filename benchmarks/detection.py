"""Finding wrong labels, numbers and annotators: this library, baselines and cleanlab, in one run."""

import time

import numpy as np
import torch

from benchmarks.common import parser, write

TOPS = (500, 2000, 5000)
# Printed; `right` (of the listed) and `top n` are in the JSON file as well.
COLUMNS = [
    "labels",
    "method",
    "AUROC",
    "AP",
    "missed",
    "wrong",
    "estimated",
    "low",
    "high",
    "flagged",
    "listed",
]
HUMAN, PLANTED = ("aggre", "worse", "rand1"), ("clean", "symmetric", "pairwise")


def cifar(folder, chosen):
    """Yield name, features, given and right labels of CIFAR-10 with people's and planted errors."""
    from lsi.data.corruption.labels import corrupt_labels

    with np.load(folder / "cifar10" / "features_effnetlite0_pca512.npz", allow_pickle=False) as arrays:
        X, clean = arrays["X"].astype(np.float32), arrays["clean"].astype(np.int64)
        given = {name: arrays[name] for name in HUMAN}
    given["clean"] = clean
    given["symmetric"] = corrupt_labels(clean, 0.2, 0).labels
    given["pairwise"] = corrupt_labels(clean, 0.3, 0, kind="pairwise").labels
    for name in chosen:
        yield f"CIFAR-10 {name}", X, given[name].astype(np.int64), clean


def reviews(folder):
    """Yield film reviews with planted errors."""
    with np.load(folder / "imdb" / "minilm.npz", allow_pickle=False) as arrays:
        yield from planted("reviews", arrays["X"].astype(np.float32), arrays["y"].astype(np.int64))


def planted(name, X, y, rates=(0.0, 0.05, 0.1, 0.2), kind="symmetric"):
    """Yield data with shares of wrong labels."""
    from lsi.data.corruption.labels import corrupt_labels

    for rate in rates:
        given = corrupt_labels(y, rate, 0, kind=kind).labels if rate else y
        yield f"{name} {kind if rate else 'clean'} {rate:.0%}", X, np.asarray(given, dtype=np.int64), y


def small():
    """Yield data of scikit-learn."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine

    for load in (load_digits, load_wine, load_breast_cancer):
        X, y = load(return_X_y=True)
        yield from planted(load.__name__[5:], X, y.astype(np.int64), (0.0, 0.1))


def made():
    """Yield separated clusters with wrong labels, and Gaussian classes that overlap, with right ones."""
    random = np.random.default_rng(8)
    z = random.integers(0, 10, 5000)
    centres = random.normal(size=(10, 64))
    centres *= 8 / np.sqrt(2) / np.linalg.norm(centres, axis=1, keepdims=True)
    X = centres[z] + random.normal(size=(5000, 64))
    yield from planted("clusters", X, z, (0.0, 0.2))
    yield from planted("clusters", X, z, (0.2, 0.4), "pairwise")
    for c, n, apart in ((2, 500, 1.0), (2, 5000, 2.0), (5, 500, 2.0), (5, 5000, 1.5), (10, 20_000, 2.5)):
        z = random.integers(0, c, n)
        X = np.eye(c, max(c, 5))[z] * apart + random.normal(size=(n, max(c, 5)))
        yield f"overlap {c} × {n:,} clean", X, z, z


def out_of_fold(X, y, folds=5):
    """Return probabilities of a small network that did not see each sample."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    net = MLPClassifier((64,), early_stopping=len(y) > 1000, max_iter=60, random_state=0)
    return cross_val_predict(make_pipeline(StandardScaler(), net), X, y, cv=folds, method="predict_proba")


def row(name, method, wrong, truth, seconds, found=None):
    """Measure one ranking; `top n`: estimated less true share of wrong labels among the first n.

    `missed` is the share of the wrong labels that are not among as many of the most doubtful ones.
    """
    from lsi.analysis import detection_quality

    order, n_true = np.argsort(-wrong, kind="stable"), int(truth.sum())
    out = {"labels": name, "method": method, "wrong": n_true, "seconds": seconds}
    if n_true:
        quality = detection_quality(wrong, truth)
        out |= {"AUROC": quality["auroc"], "AP": quality["average_precision"]}
        out["missed"] = 1.0 - float(truth[order[:n_true]].mean())
    if found is not None:
        out |= {"estimated": found.n_wrong, "low": found.interval[0], "high": found.interval[1]}
        out |= {"flagged": float((wrong > 0.5).mean()), "listed": len(found.suspects(fdr=0.1))}
        listed = found.suspects(fdr=0.1)
        out["right"] = float(1 - truth[listed].mean()) if len(listed) else None
        out |= {
            f"top {n}": float(wrong[order[:n]].mean() - truth[order[:n]].mean())
            for n in TOPS
            if n < len(wrong)
        }
    return out


def neighbours(X, y, k=10, block=1000):
    """Return the share of the k nearest neighbours (cosine) with another label."""
    x = torch.from_numpy(X)
    x, labels, out = x / x.norm(dim=1, keepdim=True), torch.from_numpy(y), []
    for start in range(0, len(x), block):
        similar = x[start : start + block] @ x.T
        similar[torch.arange(len(similar)), torch.arange(start, start + len(similar))] = -2.0
        near = labels[similar.topk(k, 1).indices]
        out.append((near != labels[start : start + block, None]).double().mean(1))
    return torch.cat(out).numpy()


def baselines(X, y):
    """Yield method and score: in-sample probability and margin of a linear probe, and neighbours."""
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    logits = LogisticRegression(C=100.0 / len(X), max_iter=200).fit(X, y).decision_function(X)
    if logits.ndim == 1:  # of the second of two classes
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    own = logits[np.arange(len(y)), y]
    spent = time.perf_counter() - began
    others = logits.copy()
    others[np.arange(len(y)), y] = -np.inf
    yield "in-sample 1 − p", np.log(np.exp(logits - own[:, None]).sum(1)), spent
    yield "in-sample margin", others.max(1) - own, spent
    began = time.perf_counter()
    yield "10 nearest neighbours", neighbours(X, y), time.perf_counter() - began


def cleanlab_scores(p, y):
    """Yield cleanlab's scores of given probabilities; nothing where it is missing."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed: pip install cleanlab")
        return
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        for adjust in (False, True):
            if adjust and method == "confidence_weighted_entropy":
                continue
            quality = get_label_quality_scores(y, p, method=method, adjust_pred_probs=adjust)
            yield f"cleanlab {method}{', adjusted' if adjust else ''}", 1.0 - quality, None


def from_features(name, X, y, truth, tol):
    """Return our rows for features, and what share of the scoring the estimate took."""
    import lsi

    scores = lsi.score(X, y, method=lsi.Newton(tol=tol or None), audit=False, label_noise=True)
    frame, timings = scores.to_frame(), scores.manifest["timings"]
    noise, scoring = timings["label noise"], sum(timings.values()) - timings["label noise"]
    found = scores.label_noise
    rows = [
        row(name, "lsi wrong_probability", found.wrong_probability, truth, noise, found),
        row(name, "LSI", frame["lsi"].to_numpy(), truth, scoring),
        row(name, "LOO 1 − p", 1 - frame["loo_probability"].to_numpy(), truth, scoring),
    ]
    return rows, noise / scoring


def from_probabilities(name, p, y, truth):
    """Return rows for given probabilities: ours and cleanlab's."""
    import lsi

    began = time.perf_counter()
    found = lsi.label_noise(p, y)
    rows = [row(name, "lsi.label_noise", found.wrong_probability, truth, time.perf_counter() - began, found)]
    others = np.where(np.eye(p.shape[1], dtype=bool)[y], -1.0, p).max(1)
    own = p[np.arange(len(y)), y]
    scores = (("1 − p", 1.0 - own, None), ("margin", others - own, None), *cleanlab_scores(p, y))
    return rows + [row(name, method, score, truth, spent) for method, score, spent in scores]


def main():
    options = parser(__doc__)
    options.add_argument(
        "--labels", nargs="*", choices=(*HUMAN, *PLANTED), default=["aggre", "worse", *PLANTED]
    )
    options.add_argument("--tol", type=float, default=0.0, help="of Newton; 0: no refinement")
    options.add_argument(
        "--cases", nargs="*", default=[], help="only cases whose name holds one of these words"
    )
    options.add_argument("--only", action="store_true", help="leave out baselines, networks and cleanlab")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    from benchmarks.clean_labels import shape_cases

    cases = [*made(), *shape_cases(), *small()]
    if given.data is not None:
        cases += [*reviews(given.data), *cifar(given.data, given.labels)]
    if given.cases:
        cases = [case for case in cases if any(word in case[0] for word in given.cases)]
    rows, shown, facts = [], 0, {"threads": given.threads}
    for name, X, y, clean in cases:
        for done in rows[shown:]:
            print({key: value for key, value in done.items() if value is not None}, flush=True)
        shown, truth = len(rows), y != clean
        ours, share = from_features(name, X, y, truth, given.tol)
        rows += ours
        facts[f"{name}: label noise, share of scoring time"] = share
        if given.only:
            continue
        if truth.any():
            rows += [row(name, method, score, truth, spent) for method, score, spent in baselines(X, y)]
        rows += from_probabilities(f"{name}, network", out_of_fold(X, y), y, truth)
    from benchmarks.annotators import ANNOTATOR_COLUMNS, annotator_rows
    from benchmarks.other_targets import indicator_rows, number_rows

    people = [] if given.cases else annotator_rows(given.data)
    if not given.cases:
        rows += [*number_rows(), *indicator_rows()]
        write("Several annotators", people, ANNOTATOR_COLUMNS, {}, None)
    write("Wrong labels", [*rows, *people], COLUMNS, facts, given.output)


if __name__ == "__main__":
    main()
