r"""How many labels are wrong, from out-of-sample probabilities alone, and how well the data can tell.

Labels that are wrong at random leave a mark that overlap does not (`lsi.analysis.noise_layer`); they are the
count :math:`N_1`. Noise that follows ambiguity, such as people's errors on ambiguous pictures, leaves none:
it looks exactly like classes that overlap more. Of the disagreements with the prediction that remain,
:math:`D - N_1`, as large a share is taken for noise as of all, as far as the noise that is seen goes where
classes are confused:

.. math:: N = N_1 + \varphi\, \frac{N_1}{D}\, (D - N_1)

:math:`\varphi` is the share of the noise that goes from class to class in proportion to their overlap. The
predictions are sharpened until they yield N. Both extremes, noise that never follows ambiguity
and features that determine the class, bound the interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from lsi.analysis.noise_layer import (
    MATRIX_CLASSES,
    TINY,
    TRUST,
    NoiseLayer,
    fit_layer,
    joint_counts,
    log_features,
    posterior,
    settle,
    sharpened,
    start_matrix,
    wrong_share,
)

ROWS = 20_000  # the layer has a few hundred parameters; more rows change little but the time
FIT_CELLS = 4_000_000  # probabilities that a fit may read: fewer rows where there are more than 200 classes
LEAST_WEIGHT = 0.975  # of the layer with noise, below which the interval begins at zero
# Share of the overlap that may look like noise because real classes have heavier tails than the layer's:
# digits, CIFAR-10 and film reviews without wrong labels show 3 to 16 %.
TAIL = 0.15
Z = 1.96  # of a normal 95 % interval
PROFILE = 2.0 ** -(np.arange(10) ** 2 / 32)  # powers of the predictions that the likelihood may not rule out
DROP = Z**2 / 2  # of the log likelihood, where a 95 % interval ends
MOST_POWER = 4.0  # sharpened further, predictions only say yes or no
HALVINGS = 7  # of the interval of powers
BLOCK_CELLS = 4_000_000  # probabilities looked at together


@dataclass(frozen=True, eq=False)
class RowNoise:
    """What a model says about rows.

    Attributes:
        q: `(n, C)` posterior of the true label.
        wrong: `(n,)` probability that the label is wrong.
        at_least: The same for noise that never follows ambiguity; zero where the data show no noise.
        at_most: The same for features that determine the class.
    """

    q: np.ndarray
    wrong: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """A fitted noise layer, how far to sharpen it, and how much to believe it.

    Attributes:
        layer: The noise layer of greatest likelihood.
        weight: Akaike weight of the layer against the one without noise, in [0, 1].
        power: By which its predictions are sharpened.
        noise: T for the sharpened predictions, `(C, C)`.
        evident: Whether the data show noise; otherwise the interval contains zero.
        least_share: The smallest count that the likelihood allows, as a share of the layer's.
    """

    layer: NoiseLayer
    weight: float
    power: float
    noise: np.ndarray
    evident: bool
    least_share: float

    def plain(self, p: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the true labels' posterior without sharpening. Shapes: p, result `(n, C)`, y `(n,)`."""
        return posterior(self.layer.predict(log_features(p)), self.layer.noise, y)

    def rows(self, p: np.ndarray, y: np.ndarray) -> RowNoise:
        """Return what the model says about rows. Shapes: p `(n, C)`, y `(n,)`."""
        predicted = self.layer.predict(log_features(p))
        surely = posterior(predicted, self.layer.noise, y)
        q = surely if self.power == 1.0 else posterior(sharpened(predicted, self.power), self.noise, y)
        wrong = self.weight * wrong_share(q, y)
        at_least = wrong_share(surely, y) if self.evident else np.zeros(len(y))
        q = self.weight * q
        q[np.arange(len(y)), y] += 1.0 - self.weight
        return RowNoise(q, wrong, at_least, np.maximum(wrong, predicted.argmax(1) != y))


def fit_model(p: np.ndarray, y: np.ndarray, near: NoiseModel | None = None) -> NoiseModel:
    """Return the noise model of out-of-sample probabilities `(N, C)` and class codes `(N,)`.

    A model of nearly the same probabilities is a start that saves half of the time.
    """
    n, most = len(y), min(ROWS, max(1, FIT_CELLS // p.shape[1]))
    if n > most:
        pick = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
        p, y = p[pick], y[pick]
    p = np.asarray(p, dtype=np.float64)
    layer, silent = fit_layer(p, y, None if near is None else near.layer.noise)
    predicted = layer.predict(log_features(p))
    surely = wrong_share(posterior(predicted, layer.noise, y), y)
    n_sure, disagree = float(surely.sum()), float(np.count_nonzero(predicted.argmax(1) != y))
    weight = _akaike_weight(layer, silent, predicted)
    follows = follows_overlap(predicted, layer.noise)
    overlap = max(0.0, disagree - n_sure)
    goal = n_sure + follows * min(1.0, n_sure / max(disagree, 1.0)) * overlap
    power, noise = _power_for(goal, n_sure, predicted, layer, y)
    least = min(n_sure, _least_count(predicted, layer, y))
    low = count_low(surely, predicted.argmax(1) != y, least / max(n_sure, TINY), len(y) / n)
    evident = weight > LEAST_WEIGHT and low > 0
    return NoiseModel(layer, weight, power, noise, evident, least / max(n_sure, TINY))


def count_low(surely: np.ndarray, disagrees: np.ndarray, share: float, sampled: float = 1.0) -> float:
    """Return the lower end for the number of wrong labels among rows, which are a share `sampled` of all.

    `surely` are probabilities of noise that never follows ambiguity, `disagrees` is whether, or how surely,
    the prediction prefers another label, and `share` the smallest count that the likelihood allows, as a
    share of the sum of `surely`.

    Shapes: surely `(n,)`, disagrees `(n,)`.
    """
    total = float(surely.sum())
    spread = Z * np.sqrt(float((surely * (1.0 - surely)).sum()) * sampled)
    return max(0.0, share * total - spread - TAIL * max(0.0, float(disagrees.sum()) - total))


def count_high(at_most: np.ndarray) -> float:
    """Return the upper end of the interval for the number of wrong labels among rows, `(n,)`."""
    most = float(at_most.sum())
    return min(float(len(at_most)), most + Z * np.sqrt(max(most, 1.0)))


def _akaike_weight(layer: NoiseLayer, silent: NoiseLayer, predicted: np.ndarray) -> float:
    """Return how much likelier the layer with noise is to predict new labels, against the one without.

    By Akaike's criterion, corrected for few samples. An entry of T is a parameter as far as the labels that
    it explains outweigh what the prior believes.
    """
    n, c = predicted.shape
    errors, believed = predicted.sum(0)[:, None] * layer.noise, TRUST * start_matrix(c)
    off, tied = ~np.eye(c, dtype=bool), c > MATRIX_CLASSES
    errors, believed = (each[off].sum() if tied else each[off] for each in (errors, believed))
    others = layer.scale.size + (0 if tied else c)
    free = others + float(np.sum(errors / (errors + believed)))
    gain = -np.inf
    if n > free + 1.0:
        cost = free * n / (n - free - 1.0) - others * n / (n - others - 1.0)
        gain = layer.likelihood - silent.likelihood - cost
    # Never quite zero: whatever its weight, the layer still ranks the labels.
    return float(1.0 / (1.0 + np.exp(-np.clip(gain, -500.0, 500.0))))


def follows_overlap(predicted: np.ndarray, noise: np.ndarray) -> float:
    """Return φ, the share of the noise that goes from class to class in proportion to their overlap.

    Zero where the two are not significantly correlated over the pairs of classes, and so for two classes,
    and for so many that each pair has too few samples.

    Shapes: predicted `(n, C)`, noise `(C, C)`.
    """
    c = predicted.shape[1]
    if not 2 < c <= MATRIX_CLASSES:
        return 0.0
    n = predicted.sum(0)
    off = ~np.eye(c, dtype=bool) & np.logical_and.outer(n >= 1.0, n >= 1.0)  # rarer classes tell nothing
    if np.count_nonzero(off) < 3:
        return 0.0
    errors, overlap = (n[:, None] * noise)[off], (predicted.T @ predicted)[off]
    size = np.sqrt((n[:, None] * n)[off])  # what noise that hits all classes alike is in proportion to
    (_, slope), _ = nnls(np.stack([size, overlap / size], 1), errors / size)
    left, right = errors / size**2, overlap / size**2
    if left.std() <= TINY or right.std() <= TINY:
        return 0.0
    r = min(float(np.corrcoef(left, right)[0, 1]), 1.0 - 1e-9)
    if r * np.sqrt((len(left) - 2) / (1.0 - r**2)) < Z:
        return 0.0
    return float(min(1.0, slope * overlap.sum() / max(errors.sum(), TINY)))


def _power_for(
    goal: float, n_sure: float, predicted: np.ndarray, layer: NoiseLayer, y: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the power of the predictions that yields `goal` wrong labels, and T for it."""
    power, noise = 1.0, layer.noise
    if goal <= n_sure + 1.0:
        return power, noise
    low, high = 0.0, float(np.log(MOST_POWER))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        power = float(np.exp(middle))
        p = sharpened(predicted, power)
        noise = settle(p, layer.noise, y)
        low, high = (middle, high) if wrong_share(posterior(p, noise, y), y).sum() < goal else (low, middle)
    return power, noise


def _least_count(predicted: np.ndarray, layer: NoiseLayer, y: np.ndarray) -> float:
    """Return the smallest number of wrong labels over powers that the likelihood does not rule out."""
    counts: list[float] = []
    likelihoods: list[float] = []
    for power in PROFILE:  # from the fit downwards: less sharp, less noise
        p = sharpened(predicted, float(power))
        noise = settle(p, layer.noise, y)
        chance = np.einsum("nc,cn->n", p, noise[:, y])
        likelihoods.append(float(np.log(chance + TINY).sum()))
        if likelihoods[-1] < max(likelihoods) - DROP:
            break
        counts.append(float(wrong_share(posterior(p, noise, y), y).sum()))
    return min(counts)


def joint_matrix(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the noise matrix of rows as it came out, `(C, C)`, rows sum to one."""
    counts = joint_counts(q, y)
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, TINY), np.eye(len(counts)))
