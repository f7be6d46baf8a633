"""One registry of small seeded datasets, crossed with every posterior and method by the tests."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.preprocessing import StandardScaler
from tests.oracles.brute_force import LeaveOneOut

import lsi

POSTERIORS = ("diag", "kron", "full")


@dataclass(eq=False)
class Case:
    """A dataset with the settings it is scored with.

    Attributes:
        name: What the case is about.
        features: `(N, D₀)`.
        target: Class codes `0 … C − 1`, every class present.
        weight_decay: On the scale of the mean loss.
        fit_intercept: Whether the probe has an intercept.
        class_weight: As in `lsi.LinearProbe`.
        prior_precision: τ.
    """

    name: str
    features: np.ndarray
    target: np.ndarray
    weight_decay: float = 1e-3
    fit_intercept: bool = True
    class_weight: object = None
    prior_precision: float = 1.0

    @property
    def n_classes(self):
        return int(self.target.max()) + 1

    @property
    def design(self):
        """Features with their intercept column, float64."""
        x = np.asarray(self.features, dtype=np.float64)
        return np.column_stack([x, np.ones(len(x))]) if self.fit_intercept else x

    @property
    def weight(self):
        """Sample weights from the definition of `class_weight`."""
        counts = np.bincount(self.target)
        by_class = np.ones(self.n_classes)
        if self.class_weight == "balanced":
            by_class = len(self.target) / (self.n_classes * counts)
        elif self.class_weight is not None:
            by_class = np.array([self.class_weight[c] for c in range(self.n_classes)])
        return by_class[self.target]

    @property
    def probe(self):
        return lsi.LinearProbe(self.weight_decay, self.fit_intercept, self.class_weight)

    @cached_property
    def oracle(self):
        """Leave-one-out by brute force; refits are kept."""
        return LeaveOneOut(self.design, self.target, self.n_classes, self.weight_decay, self.weight)

    def score(self, posterior="diag", method=None, **settings):
        """Return the scores of the library; the audit is off unless asked for."""
        settings = {"audit": False, "prior_precision": self.prior_precision} | settings
        method = lsi.Newton(tol=1e-3) if method is None else method
        return lsi.score(
            self.features, self.target, probe=self.probe, posterior=posterior, method=method, **settings
        )


def clusters(seed, counts, n_features, spread=1.0, distance=1.5):
    """Return Gaussian clusters, one a class with `counts[c]` samples, in random order."""
    random = np.random.default_rng(seed)
    centres = distance * random.standard_normal((len(counts), n_features))
    target = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return centres[target] + spread * random.standard_normal((len(target), n_features)), target


def _duplicates():
    features, target = clusters(4, (8, 7, 7), 4)
    features, target = np.concatenate([features, features[:10]]), np.concatenate([target, target[:10]])
    # Two more copies carry another label: the hardest samples of all.
    return np.concatenate([features, features[:2]]), np.concatenate([target, (target[:2] + 1) % 3])


def _outliers():
    features, target = clusters(9, (14, 13), 4)
    features[:2] *= 30.0
    return features, np.where(np.arange(len(target)) < 2, 1 - target, target)


def _scaled(seed, scale, distance=1.5):
    features, target = clusters(seed, (12, 10, 8), 4, distance=distance)
    return features * scale, target


def _constant_column():
    features, target = clusters(7, (12, 10, 8), 4)
    features[:, 1] = 3.0
    return features, target


CASES = {
    case.name: case
    for case in (
        Case("binary", *clusters(1, (17, 13), 4)),
        Case("multiclass", *clusters(2, (10, 9, 8, 8), 5)),
        Case("imbalanced", *clusters(3, (32, 4, 2), 4)),
        Case("duplicates", *_duplicates()),
        Case("separable", *clusters(5, (10, 10, 10), 4, spread=0.2, distance=3.0)),
        Case("separable, weak decay", *clusters(5, (10, 10, 10), 4, 0.2, 3.0), weight_decay=1e-7),
        Case("strong decay", *clusters(2, (10, 9, 8, 8), 5), weight_decay=1.0),
        Case("ill-conditioned", *_scaled(6, 10.0 ** np.array([-3.0, 0.0, 1.0, 3.0]))),
        Case("huge scale", *_scaled(6, 1e6, distance=0.5)),
        Case("tiny scale", *_scaled(6, 1e-6)),
        Case("N < D", *clusters(8, (5, 4, 4), 30)),
        Case("constant column", *_constant_column()),
        Case("outliers", *_outliers()),
        Case("class weights", *clusters(10, (18, 8, 6), 4), class_weight={0: 0.5, 1: 2.0, 2: 5.0}),
        Case("balanced", *clusters(10, (18, 8, 6), 4), class_weight="balanced"),
        Case("single-sample class", *clusters(11, (15, 12, 1), 4)),
        Case("no intercept", *clusters(12, (12, 10, 8), 4), fit_intercept=False),
        Case("three samples", *clusters(13, (2, 1), 2)),
        Case("strong prior", *clusters(14, (12, 10, 8), 4), prior_precision=50.0),
        Case("weak prior", *clusters(14, (12, 10, 8), 4), prior_precision=1e-3),
    )
}


def _standardised(name, load):
    features, target = load(return_X_y=True)
    return Case(name, StandardScaler().fit_transform(features), target, weight_decay=1e-4)


def cifar(folder):
    """Return the first 400 CIFAR-10 features with their human labels."""
    with np.load(folder / "data/cifar10/features_effnetlite0_pca512.npz") as stored:
        return Case("CIFAR-400", stored["X"][:400], stored["aggre"][:400], weight_decay=1e-4)


def _digits():
    features, target = load_digits(return_X_y=True)
    return Case("digits", features[:300] / 16.0, target[:300], weight_decay=1e-4)


REAL = {
    case.name: case
    for case in (_digits(), _standardised("wine", load_wine), _standardised("breast", load_breast_cancer))
}
