"""Small problems with rows to ask about, and what training again says."""

import functools
from dataclasses import dataclass

import numpy as np
from tests.oracles.refits import SoftmaxRefits

import lsi


@dataclass(eq=False)
class Asked:
    """A training set, rows to ask about with their labels, and a weight decay."""

    x: np.ndarray
    y: np.ndarray
    new_x: np.ndarray
    new_y: np.ndarray
    weight_decay: float
    class_weight: object = None

    @functools.cached_property
    def refits(self):
        return SoftmaxRefits(one(self.x), self.y, self.weight_decay, self.weight)

    @property
    def weight(self):
        if self.class_weight is None:
            return np.ones(len(self.y))
        counts = np.bincount(self.y)
        return (len(self.y) / (len(counts) * counts))[self.y]

    @property
    def probe(self):
        return lsi.LinearProbe(self.weight_decay, class_weight=self.class_weight)

    @functools.cached_property
    def fitted(self):
        return lsi.fit(self.x, self.y, probe=self.probe)

    @functools.cached_property
    def exact(self):
        """Change of every query's loss without each row, `(N, M)`."""
        return np.stack(
            [self.refits.loss_change([i], one(self.new_x), self.new_y) for i in range(len(self.x))]
        )


def one(x):
    """Return rows with an intercept column."""
    return np.column_stack([x, np.ones(len(x))])


def blobs(n, m, d=4, classes=3, spread=1.5, seed=0, flipped=0.1):
    """Overlapping Gaussian classes with some wrong labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, d)) * spread
    y = np.arange(n + m) % classes
    x = centres[y] + rng.normal(size=(n + m, d))
    wrong = rng.random(n + m) < flipped
    y = np.where(wrong & (np.arange(n + m) < n), (y + 1) % classes, y)
    return x[:n], y[:n], x[n:], y[n:]


def twins():
    """Every row twice, the second half of them with another label now and then."""
    x, y, new_x, new_y = blobs(24, 12, seed=3)
    return np.concatenate([x, x + 1e-3]), np.concatenate([y, y]), new_x, new_y


CASES = {
    "three classes": Asked(*blobs(48, 20), 1e-2),
    "two classes": Asked(*blobs(40, 20, classes=2, seed=1), 1e-2),
    "separable": Asked(*blobs(30, 12, spread=6.0, seed=2, flipped=0.0), 1e-4),
    "weights": Asked(*blobs(48, 12, seed=4), 1e-2, "balanced"),
    "twins": Asked(*twins(), 1e-2),
    "more features than samples": Asked(*blobs(16, 10, d=30, seed=5), 1e-2),
}
