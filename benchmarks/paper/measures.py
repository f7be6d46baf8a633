"""Scores and measures that several experiments share."""

import numpy as np

import lsi

WEIGHT_DECAY = 1e-2


def linear_scores(X, y, weight_decay=WEIGHT_DECAY, **settings):
    """Return LSI of a linear probe at its leave-one-out optima, one Newton step each."""
    method = settings.pop("method", lsi.Newton(tol=None))
    probe = lsi.LinearProbe(weight_decay=weight_decay)
    return lsi.score(X, y, probe=probe, method=method, **{"audit": False, "label_noise": False, **settings})


def rank_correlation(left, right):
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)


def auroc(wrong, score):
    """Return the area under the ROC curve of finding what is wrong by a high score."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, score))


def precision_at(wrong, score):
    """Return the share of wrong ones among as many of the highest as there are wrong ones."""
    highest = np.argsort(-np.asarray(score), kind="stable")[: int(np.sum(wrong))]
    return float(np.mean(np.asarray(wrong)[highest]))


def accuracy(X, y, X_test, y_test, weight_decay=WEIGHT_DECAY):
    """Return the test accuracy of a linear probe, and its predictions."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0 / (len(y) * weight_decay), max_iter=300, tol=1e-3)
    predicted = model.fit(X, y).predict(X_test)
    return float(np.mean(predicted == y_test)), predicted


def flipped(y, rate, seed):
    """Return labels of which a share is changed to another class, and which."""
    from lsi.data.corruption.labels import corrupt_labels

    # Own seeds: a subset drawn by the same generator state would hold more, or fewer, of the flips.
    changed = corrupt_labels(np.asarray(y), rate, 1000 + seed)
    return changed.labels, changed.mask


def spread(values):
    """Return mean, lowest and highest of a figure over repetitions."""
    values = np.asarray(values, dtype=float)
    return {"mean": float(values.mean()), "low": float(values.min()), "high": float(values.max())}
