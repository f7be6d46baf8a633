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
from scipy.optimize import brentq, nnls

from lsi.analysis.noise_layer import (
    MATRIX_CLASSES,
    TINY,
    TRUST,
    NoiseLayer,
    fit_layers,
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
# What a layer has to gain for each of its numbers, nats: as much as is significant. At Akaike's own price,
# one nat, the many numbers of T pass for noise where a model does not fit.
PRICE = DROP
MOST_POWER = 4.0  # sharpened further, predictions only say yes or no
HALVINGS = 7  # of the interval of powers
BLOCK_CELLS = 4_000_000  # probabilities looked at together


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is predicted of rows without them.

    Attributes:
        p: `(n, C)` probabilities, or `(K, n, C)`: those of a model first, further ones to be pooled with it.
        far: `(n,)`, how far out each row is (`lsi.analysis.surroundings`); None: not known.
    """

    p: np.ndarray
    far: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Evidence:
        """Return what is predicted of some of the rows."""
        return Evidence(self.p[..., rows, :], None if self.far is None else self.far[rows])

    def logs(self) -> np.ndarray:
        """Return centred logarithms of the probabilities."""
        return log_features(self.p)


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
        weight: How likely noise is, against a model that does not fit, in [0, 1].
        power: By which its predictions are sharpened.
        noise: T for the sharpened predictions, `(C, C)`.
        caution: In [0, 1], the factor of the odds that a label is wrong at the lower end; zero where the data
            do not show noise.
    """

    layer: NoiseLayer
    weight: float
    power: float
    noise: np.ndarray
    caution: float

    def plain(self, seen: Evidence, y: np.ndarray) -> np.ndarray:
        """Return the true labels' posterior without sharpening, `(n, C)`. Shapes: y `(n,)`."""
        return posterior(self.layer.predict(seen.logs(), seen.far), self.layer.noise, y)

    def rows(self, seen: Evidence, y: np.ndarray) -> RowNoise:
        """Return what the model says about rows. Shapes: y `(n,)`."""
        predicted = self.layer.predict(seen.logs(), seen.far)
        surely = posterior(predicted, self.layer.noise, y)
        q = surely if self.power == 1.0 else posterior(sharpened(predicted, self.power), self.noise, y)
        wrong = self.weight * wrong_share(q, y)
        at_least = np.minimum(wrong, cautious(wrong_share(surely, y), self.caution))
        q = self.weight * q
        q[np.arange(len(y)), y] += 1.0 - self.weight
        return RowNoise(q, wrong, at_least, np.maximum(wrong, predicted.argmax(1) != y))


def fitted_rows(n: int, c: int) -> np.ndarray:
    """Return which of n rows with c classes a model is fitted to."""
    most = min(ROWS, max(1, FIT_CELLS // c))
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def fit_model(seen: Evidence, y: np.ndarray, near: NoiseModel | None = None) -> NoiseModel:
    """Return the noise model of what was predicted out of sample, and of class codes `(n,)`.

    A model of nearly the same predictions is a start that saves half of the time.
    """
    rows = fitted_rows(*seen.p.shape[-2:])
    seen, y = seen.take(rows), y[rows]
    logs, far = seen.logs(), seen.far
    layers = fit_layers(seen.p, y, far, None if near is None else near.layer.noise)
    layer, weight = weigh(layers, logs, far)
    predicted = layer.predict(logs, far)
    surely = wrong_share(posterior(predicted, layer.noise, y), y)
    n_sure, disagree = float(surely.sum()), float(np.count_nonzero(predicted.argmax(1) != y))
    follows = follows_overlap(predicted, layer.noise)
    overlap = max(0.0, disagree - n_sure)
    goal = n_sure + follows * min(1.0, n_sure / max(disagree, 1.0)) * overlap
    power, noise = _power_for(goal, n_sure, predicted, layer, y)
    least = min(n_sure, _least_count(predicted, layer, y))
    low = least - Z * np.sqrt(n_sure) - TAIL * overlap
    caution = caution_for(low, surely) if weight > LEAST_WEIGHT else 0.0
    return NoiseModel(layer, weight, power, noise, caution)


def cautious(wrong: np.ndarray, caution: float) -> np.ndarray:
    """Return probabilities with their odds multiplied by `caution`. Shapes: both `(n,)`."""
    return np.asarray(caution * wrong / np.maximum(caution * wrong + (1.0 - wrong), TINY))


def caution_for(low: float, wrong: np.ndarray) -> float:
    """Return the factor of the odds with which probabilities sum to `low`, at most one. Shapes: wrong `(n,)`.

    A list by these probabilities keeps its promise even if no more labels are wrong than the lower end.
    """
    if low <= 0.0 or cautious(wrong, TINY).sum() >= low:
        return 0.0
    if low >= wrong.sum():
        return 1.0
    return float(np.exp(brentq(lambda log: cautious(wrong, np.exp(log)).sum() - low, np.log(TINY), 0.0)))


def count_low(at_least: np.ndarray) -> float:
    """Return the lower end of the interval for the number of wrong labels among rows, `(n,)`."""
    return max(0.0, float(at_least.sum() - Z * np.sqrt((at_least * (1.0 - at_least)).sum())))


def count_high(at_most: np.ndarray) -> float:
    """Return the upper end of the interval for the number of wrong labels among rows, `(n,)`."""
    most = float(at_most.sum())
    return min(float(len(at_most)), most + Z * np.sqrt(max(most, 1.0)))


def weigh(
    layers: list[NoiseLayer], logs: np.ndarray, far: np.ndarray | None = None
) -> tuple[NoiseLayer, float]:
    """Return the likeliest layer with noise, and how likely noise is: the weight of all layers with it.

    By Akaike's criterion, corrected for few samples, at a higher price for each number.
    """
    scores = np.array([layer.likelihood - _cost(layer, logs, far) for layer in layers])
    noisy = np.array([layer.noise_size > 0 for layer in layers])
    best = int(np.argmax(np.where(noisy, scores, -np.inf)))
    with_noise, without = (np.logaddexp.reduce(scores[these]) for these in (noisy, ~noisy))
    # Never quite zero: whatever its weight, the layer still ranks the labels.
    gain = -500.0 if with_noise == -np.inf else np.clip(with_noise - without, -500.0, 500.0)
    return layers[best], float(1.0 / (1.0 + np.exp(-gain)))


def _cost(layer: NoiseLayer, logs: np.ndarray, far: np.ndarray | None = None) -> float:
    """Return what a layer's numbers cost in likelihood; infinite where the samples are too few.

    An entry of T is a parameter as far as the labels that it explains outweigh what the prior believes.
    """
    n, c = logs.shape[-2:]
    free = float(
        layer.scale.size
        + layer.others.size
        + (0 if c > MATRIX_CLASSES else c)
        + (layer.tail > 0)
        + (far is not None)
    )
    if layer.noise_size and c > 1:
        off = ~np.eye(c, dtype=bool)
        errors = layer.predict(logs, far).sum(0)[:, None] * layer.noise
        believed = TRUST * start_matrix(c)
        errors, believed = (
            each[off].sum() if layer.noise_size == 1 else each[off] for each in (errors, believed)
        )
        free += float(np.sum(errors / (errors + believed)))
    return PRICE * free * n / (n - free - 1.0) if n > free + 1.0 else np.inf


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
