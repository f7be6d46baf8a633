"""Finding wrong labels: this library, simple baselines and cleanlab on the same features, in one run."""

import time

import numpy as np
import torch

from benchmarks.common import parser, write

TOPS = (500, 2000, 5000)
COLUMNS = ["labels", "method", "AUROC", "AP", "wrong", "estimated", *(f"top {n}" for n in TOPS), "seconds"]


def cases(folder, chosen):
    """Yield name, features, given and right labels."""
    with np.load(folder / "cifar10" / "features_effnetlite0_pca512.npz", allow_pickle=False) as arrays:
        X, clean = arrays["X"].astype(np.float32), arrays["clean"]
        given = {name: arrays[name] for name in ("aggre", "worse", "rand1")}
    from lsi.data.corruption.labels import corrupt_labels

    given["symmetric"] = corrupt_labels(clean, 0.2, 0).labels
    given["pairwise"] = corrupt_labels(clean, 0.2, 0, kind="pairwise").labels
    for name in chosen:
        yield name, X, given[name].astype(np.int64), clean


def row(name, method, wrong, truth, seconds, calibrated=False):
    """Measure one ranking; `top n`: estimated less true share of wrong labels among the first n."""
    from lsi.analysis import detection_quality

    quality, order = detection_quality(wrong, truth), np.argsort(-wrong, kind="stable")
    out = {"labels": name, "method": method, "AUROC": quality["auroc"], "AP": quality["average_precision"]}
    out |= {"wrong": int(truth.sum()), "seconds": seconds}
    if calibrated:
        out["estimated"] = float(wrong.sum())
        out |= {f"top {n}": float(wrong[order[:n]].mean() - truth[order[:n]].mean()) for n in TOPS}
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
    own = logits[np.arange(len(y)), y]
    spent = time.perf_counter() - began
    others = logits.copy()
    others[np.arange(len(y)), y] = -np.inf
    yield "in-sample 1 − p", np.log(np.exp(logits - own[:, None]).sum(1)), spent
    yield "in-sample margin", others.max(1) - own, spent
    began = time.perf_counter()
    yield "10 nearest neighbours", neighbours(X, y), time.perf_counter() - began


def cleanlab_scores(X, y):
    """Yield cleanlab's scores from five-fold out-of-sample probabilities; nothing where it is missing."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed: pip install cleanlab")
        return
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    began = time.perf_counter()
    model = LogisticRegression(C=100.0 / len(X), max_iter=200)
    p = cross_val_predict(model, X, y, cv=5, method="predict_proba")
    spent = time.perf_counter() - began
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        for adjust in (False, True):
            if adjust and method == "confidence_weighted_entropy":
                continue
            quality = get_label_quality_scores(y, p, method=method, adjust_pred_probs=adjust)
            yield f"cleanlab {method}{', adjusted' if adjust else ''}", 1.0 - quality, spent


def main():
    import lsi

    options = parser(__doc__)
    options.add_argument("--labels", nargs="+", default=["aggre", "worse", "symmetric", "pairwise"])
    options.add_argument("--tol", type=float, default=0.0, help="of Newton; 0: no refinement")
    options.add_argument("--only", action="store_true", help="leave out baselines and cleanlab")
    given = options.parse_args()
    if given.data is None:
        options.error("--data FOLDER is needed: known wrong labels cannot be drawn at random.")
    torch.set_num_threads(given.threads)
    rows, facts = [], {"threads": given.threads}
    for name, X, y, clean in cases(given.data, given.labels):
        truth = y != clean
        scores = lsi.score(X, y, method=lsi.Newton(tol=given.tol or None), audit=False)
        frame, timings = scores.to_frame(), scores.manifest["timings"]
        noise, scoring = timings["label noise"], sum(timings.values()) - timings["label noise"]
        wrong = frame["wrong_probability"].to_numpy()
        rows.append(row(name, "lsi wrong_probability", wrong, truth, noise, calibrated=True))
        rows.append(row(name, "LSI", frame["lsi"].to_numpy(), truth, scoring))
        rows.append(row(name, "LOO 1 − p", 1 - frame["loo_probability"].to_numpy(), truth, scoring))
        facts[f"{name}: label noise, share of scoring time"] = noise / scoring
        for method, score, spent in () if given.only else (*baselines(X, y), *cleanlab_scores(X, y)):
            rows.append(row(name, method, score, truth, spent))
    write("Wrong labels", rows, COLUMNS, facts, given.output)


if __name__ == "__main__":
    main()
