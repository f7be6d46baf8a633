"""Labels of several annotators, a part of `benchmarks.detection`: consensus, majority and CROWDLAB."""

import time

import numpy as np
import pandas as pd

PEOPLE = ("random_label1", "random_label2", "random_label3")
ANNOTATOR_COLUMNS = ["labels", "method", "right", "expected", "quality off by", "seconds"]


def cifar_people(folder):
    """Return labels of three people for CIFAR-10's pictures, their features, and the right labels."""
    table = pd.read_parquet(folder / "cifar10" / "train.parquet", columns=["label", *PEOPLE])
    with np.load(folder / "cifar10" / "features_effnetlite0_pca512.npz", allow_pickle=False) as arrays:
        X = arrays["X"].astype(np.float32)
    return table[list(PEOPLE)].to_numpy(dtype=np.float64), X, table["label"].to_numpy(), None


def made_people(n_annotators, per, together, seed):
    """Return labels of annotators of different quality; on a share `together` most make the same error."""
    random = np.random.default_rng(seed)
    n, c = 3000, 5
    z, quality = random.integers(0, c, n), random.uniform(0.4, 0.95, n_annotators)
    X = 2.0 * np.eye(c, 16)[z] + random.normal(size=(n, 16))
    shared, hard = (z + random.integers(1, c, n)) % c, random.random(n) < together
    labels = np.empty((n, n_annotators))
    for k, right in enumerate(quality):
        own = np.where(random.random(n) < right, z, (z + random.integers(1, c, n)) % c)
        labels[:, k] = np.where(hard & (random.random(n) < 0.7), shared, own)
    labels[random.random(labels.shape).argsort(1) >= per] = np.nan
    return labels, X, z, quality


def annotator_cases(folder):
    """Yield name, labels, features, right labels and the annotators' true quality."""
    for a, per, together in ((5, 5, 0.0), (30, 3, 0.0), (200, 3, 0.0), (5, 5, 0.15)):
        name = f"{a} annotators, {per} a sample{', errors in common' if together else ''}"
        yield name, *made_people(a, per, together, seed=20)
    if folder is not None:
        yield "CIFAR-10N, three people", *cifar_people(folder)


def head_probabilities(labels, X, classes):
    """Return leave-one-out probabilities of a linear head trained on the labels of most annotators."""
    import torch

    from lsi.noisy_labels.estimate import FIT_STEPS, ridge, scaled, with_intercept
    from lsi.noisy_labels.soft_probe import SoftProbe

    votes = np.stack([(labels == k).sum(1) for k in range(classes)], 1)
    y = torch.nn.functional.one_hot(torch.from_numpy(votes.argmax(1)), classes).float()
    rows = with_intercept(scaled(X))
    probe = SoftProbe(rows, classes, ridge(rows))
    return torch.softmax(probe.left_out(probe.fit(y, FIT_STEPS), y), 1).numpy()


def annotator_rows(folder):
    """Return one row for each case and method."""
    import lsi

    rows = []
    for name, labels, X, z, quality in annotator_cases(folder):
        p = head_probabilities(labels, X, int(z.max()) + 1)
        ways = {
            "lsi, features": lambda labels=labels, X=X: lsi.consensus(labels, features=X),
            "lsi, probabilities": lambda labels=labels, p=p: lsi.consensus(labels, p),
            "lsi, no model": lambda labels=labels: lsi.consensus(labels),
        }
        for method, way in ways.items():
            began = time.process_time()
            found = way()
            spent = time.process_time() - began
            off = None if quality is None else float(np.abs(found.annotators["quality"] - quality).mean())
            rows.append(_row(name, method, found.label, z, found.probability.mean(), off, spent))
        rows.append(_row(name, "majority", found.majority.astype(np.float64), z))
        rows += _crowdlab(name, labels, p, z, quality)
    return rows


def _crowdlab(name, labels, p, z, quality):
    try:
        from cleanlab.multiannotator import get_label_quality_multiannotator, get_majority_vote_label
    except ImportError:
        return []
    table = pd.DataFrame(labels)
    began = time.process_time()
    found = get_label_quality_multiannotator(table, p, verbose=False)
    spent = time.process_time() - began
    best, people = found["label_quality"], found["annotator_stats"]["annotator_quality"].sort_index()
    off = None if quality is None else float(np.abs(people - quality).mean())
    sure = best["consensus_quality_score"].mean()
    ties = get_majority_vote_label(table, p, verbose=False)
    return [
        _row(name, "CROWDLAB", best["consensus_label"].to_numpy(), z, sure, off, spent),
        _row(name, "majority, ties by the model", ties, z),
    ]


def _row(name, method, label, z, expected=None, off=None, seconds=None):
    right = float((label == z).mean())
    found = {"labels": name, "method": method, "right": right, "expected": expected}
    return found | {"quality off by": off, "seconds": seconds}
