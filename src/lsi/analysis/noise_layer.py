r"""A noise layer on top of out-of-sample probabilities: how given labels arise from true ones.

The true class z of a sample is hidden, and the given label y is drawn from row z of the noise matrix T:

.. math:: P(y \mid x) = \sum_z p(z \mid x)\, T_{zy},\qquad
          p(\cdot \mid x) = \mathrm{softmax}(B \log\hat p(x) + b)

B, b and T have the greatest likelihood of the given labels. The map from the predicted :math:`\hat p` is what
tells noise from overlap: where classes overlap, labels agree the more, the surer the prediction is; where
labels are wrong, agreement stops rising at the diagonal of T, however sure the prediction gets.

Source:
    Goldberger & Ben-Reuven, *Training deep neural networks using a noise adaptation layer*, 2017;
    the starting point counts labels above class-mean thresholds: Northcutt, Jiang & Chuang, *Confident
    learning: estimating uncertainty in dataset labels*, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from lsi.probes.softmax.lbfgs import lbfgs

LEAST = 1e-6  # probabilities below this say nothing more
START_RATE = 0.1  # share of wrong labels that one of the two fits starts with
TRUST = 3.0  # right labels credited to each class beforehand: few samples should not accuse a class
RIDGE = 1.0  # on what B has beside a multiple of the identity
# On that multiple, about one. Left-out predictions lean against the own label by about 1/n: where they know
# nothing else, a multiple of -n would read the labels from that. A multiple of ten still costs 0.4 nats only.
SCALE_RIDGE = 0.1
LOG_SCALE = (-8.0, 5.0)
BIAS_RIDGE = 0.1  # a class that no sample is predicted to be keeps a finite bias
START_TAIL = 0.1  # τ that a fit of the tails starts with: the tail falls as the tenth power
START_FADE, MOST_FADE = 0.2, 3.0  # γ: logits fall as this power of the distance
# Largest τ. Beyond, the tail falls more slowly than that of Student's t with two degrees of freedom, has no
# variance, and looks like wrong labels.
MOST_TAIL = 0.5
MIXED_CLASSES = 30  # with more classes, B is a multiple of the identity
MATRIX_CLASSES = 100  # with more classes, T has one rate of error, any other class alike, and there is no b
MANY_ROWS = 50  # for each entry of B, from which on B is a matrix in any case
STEPS, FEW_STEPS = 150, 50  # L-BFGS iterations of a fit; with very many classes
SETTLE = 10  # updates of T for other probabilities
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class NoiseLayer:
    """A fitted noise layer.

    Attributes:
        scale: B, `(C, C)`, or one number for a multiple of the identity.
        others: `(K − 1,)`, the weights of further predictions.
        fade: γ, by how much the logits shrink with `far`.
        bias: b, `(C,)`.
        tail: τ of the link, zero for softmax.
        noise: T, `(C, C)`, row true class, column given label, rows sum to one.
        noise_size: How many numbers T has: none where it is the identity, one for a rate of error.
        likelihood: Log likelihood of the given labels, nats.
        penalised: What the fit minimised.
    """

    scale: np.ndarray
    others: np.ndarray
    fade: float
    bias: np.ndarray
    tail: float
    noise: np.ndarray
    noise_size: int
    likelihood: float
    penalised: float

    @property
    def mixes(self) -> bool:
        """Whether B is a matrix."""
        return self.scale.ndim == 2

    def predict(self, logs: np.ndarray, far: np.ndarray | None = None) -> np.ndarray:
        """Return `p(z | x)` from `log_features` and `far`, how far out each row is.

        Shapes: logs `(n, C)` or `(K, n, C)`, far `(n,)`, result `(n, C)`.
        """
        logits = pooled(stacked(logs), self.scale, self.others)
        if far is not None:
            logits *= np.exp(-self.fade * far)[:, None]
        return softmax(heavy_tailed(logits + self.bias, self.tail)[0])


def stacked(logs: np.ndarray) -> np.ndarray:
    """Return logs `(n, C)` or `(K, n, C)` as `(K, n, C)`."""
    return logs if logs.ndim == 3 else logs[None]


def pooled(logs: np.ndarray, scale: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the logits of K predictions together, `(n, C)`. Shapes: logs `(K, n, C)`, others `(K − 1,)`."""
    out = logs[0] @ scale.T if scale.ndim == 2 else logs[0] * scale
    for weight, part in zip(others, logs[1:], strict=True):
        out += weight * part
    return np.asarray(out)


def heavy_tailed(logits: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return logits whose softmax has polynomial tails, how fast they rise, and their change with log τ.

    .. math:: -\tfrac{1}{\tau} \log(1 + \tau \Delta_c),\qquad \Delta_c = \max_k u_k - u_c

    Shapes: all `(n, C)`.
    """
    if tail == 0.0:
        return logits, np.ones_like(logits), np.zeros_like(logits)
    gap = logits.max(1, keepdims=True) - logits
    slope = 1.0 / (1.0 + tail * gap)
    bent = -np.log1p(tail * gap) / tail
    return bent, slope, -bent - gap * slope


def log_features(p: np.ndarray) -> np.ndarray:
    """Return centred logarithms of probabilities, float64. Shapes: both `(…, n, C)`."""
    logs = np.log(np.maximum(p, LEAST, dtype=np.float64))
    return np.asarray(logs - logs.mean(-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return softmax over the last axis."""
    out = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(out / out.sum(-1, keepdims=True))


def start_matrix(n_classes: int) -> np.ndarray:
    """Return the noise matrix that every estimate starts from, `(C, C)`."""
    out = np.full((n_classes, n_classes), START_RATE / max(n_classes - 1, 1))
    np.fill_diagonal(out, 1.0 - START_RATE if n_classes > 1 else 1.0)
    return out


def posterior(p: np.ndarray, noise: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Return :math:`q_i(z) \propto p_i(z) T_{z y_i}`, the true label's probability given label and features.

    Shapes: p and result `(n, C)`, noise `(C, C)`, y `(n,)`.
    """
    joint = p * noise.T[y]
    return np.asarray(joint / np.maximum(joint.sum(1, keepdims=True), TINY))


def wrong_share(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the probability of all labels but the given one, `(n,)`. Shapes: q `(n, C)`, y `(n,)`."""
    # A sum over the others: one minus a probability near one would lose its digits.
    others = q.copy()
    others[np.arange(len(y)), y] = 0.0
    return np.asarray(others.sum(1).clip(0.0, 1.0))


def joint_counts(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return expected counts, `(C, C)`, row true class, column given label. Shapes: q `(n, C)`, y `(n,)`."""
    out = np.zeros((q.shape[1], q.shape[1]))
    order = np.argsort(y, kind="stable")
    present, starts = np.unique(y[order], return_index=True)
    if len(y):
        out[:, present] = np.add.reduceat(q[order], starts, axis=0).T
    return out


def noise_matrix(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return T from the posterior of the true labels. Shapes: q `(n, C)`, y `(n,)`, result `(C, C)`."""
    counts = joint_counts(q, y) + TRUST * start_matrix(q.shape[1])
    if len(counts) > MATRIX_CLASSES:
        return _any_other(np.trace(counts) / counts.sum(), len(counts))
    return np.asarray(counts / counts.sum(1, keepdims=True))


def settle(p: np.ndarray, noise: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return T for fixed probabilities, by EM. Shapes: p `(n, C)`, noise and result `(C, C)`, y `(n,)`."""
    for _ in range(SETTLE):
        noise = noise_matrix(posterior(p, noise, y), y)
    return noise


def confident_matrix(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return T counted from samples whose probability of a class exceeds the mean among its labels, `(C, C)`.

    Shapes: p `(n, C)`, y `(n,)`.
    """
    c = p.shape[1]
    given = np.bincount(y, minlength=c)
    own = np.bincount(y, weights=p[np.arange(len(y)), y], minlength=c)
    least = np.where(given > 0, own / np.maximum(given, 1), 1.0)
    sure = np.where(p >= least, p, -1.0)
    anchors = (sure >= 0).any(1)
    counts = np.full((c, c), 0.1) + np.eye(c)  # a class without anchors is trusted
    np.add.at(counts, (sure.argmax(1)[anchors], y[anchors]), 1.0)
    counts *= given / counts.sum(0)
    counts += 1e-3
    if c > MATRIX_CLASSES:
        return _any_other(np.trace(counts) / counts.sum(), c)
    return np.asarray(counts / counts.sum(1, keepdims=True))


def fit_layers(
    p: np.ndarray, y: np.ndarray, far: np.ndarray | None = None, noise: np.ndarray | None = None
) -> list[NoiseLayer]:
    """Return the layers of greatest likelihood: without noise, by softmax and with heavy tails, and with it.

    The noise is one rate of error, any other class alike, and with up to `MATRIX_CLASSES` classes also a
    matrix, fitted from two starts, or from T where that is nearly known. From few samples a matrix B would
    learn the noise by heart: there it has to gain more likelihood than it has parameters (Akaike).

    Shapes: p `(n, C)` or `(K, n, C)`, y and far `(n,)`, noise `(C, C)`.
    """
    order = np.argsort(y, kind="stable")  # sorted labels are counted fast
    p, y, c = stacked(p)[:, order], y[order], p.shape[-1]
    data = _Data(log_features(p), y, None if far is None else far[order])
    starts = [noise] if noise is not None else [start_matrix(c), confident_matrix(p[0], y)]

    def best(mixes: bool, one_rate: bool) -> NoiseLayer:
        fits = (_fit(data, mixes, start, one_rate) for start in starts)
        return min(fits, key=lambda layer: layer.penalised)

    many = c > MATRIX_CLASSES
    may_mix = 2 < c <= MIXED_CLASSES  # with two classes a multiple of the identity does all that B can
    layer = best(may_mix and len(y) >= MANY_ROWS * c * c, many)
    if may_mix and not layer.mixes:
        mixed = best(True, many)
        if mixed.likelihood - layer.likelihood > c * c - 1:
            layer = mixed
    silent = _fit(data, layer.mixes)
    layers = [silent, _fit(data, layer.mixes, near=silent, heavy=True), layer]
    return (
        layers
        if many or c < 2
        else [*layers, _fit(data, layer.mixes, layer.noise, one_rate=True, near=layer)]
    )


class _Data:
    """What layers are fitted to; `y` ascends. Shapes: logs `(K, n, C)`, y and far `(n,)`."""

    def __init__(self, logs: np.ndarray, y: np.ndarray, far: np.ndarray | None = None) -> None:
        self.logs, self.y, self.far = stacked(logs), y, far
        self.k, self.c = len(self.logs), logs.shape[-1]
        self.rows = np.arange(len(y))
        self.present, self.starts = np.unique(y, return_index=True)


def _fit(
    data: _Data,
    mixes: bool,
    start: np.ndarray | None = None,
    one_rate: bool = False,
    heavy: bool = False,
    near: NoiseLayer | None = None,
) -> NoiseLayer:
    """Maximise the penalised likelihood; without a start, T is the identity."""
    c, many = data.c, data.c > MATRIX_CLASSES
    weights, off, fade, bias = np.full(data.k, 1.0 / data.k), np.zeros((c, c)), START_FADE, np.zeros(c)
    if near is not None:
        multiple = max(float(np.trace(near.scale)) / c if mixes else float(near.scale), np.exp(LOG_SCALE[0]))
        weights, fade, bias = np.r_[multiple, near.others], near.fade, near.bias
        off = near.scale - multiple * np.eye(c)
    free = [np.log(weights), off.ravel() if mixes else np.zeros(0)]
    free += [np.full(0 if data.far is None else 1, max(fade, 0.01) ** 0.5), np.zeros(0) if many else bias]
    if heavy:
        free.append(np.log([START_TAIL / (MOST_TAIL - START_TAIL)]))
    if start is not None:
        kept = np.array([np.trace(start) / c])
        free.append(np.log(kept / (1.0 - kept)) if one_rate else np.log(start + 1e-4).ravel())
    objective = _Objective(data, mixes, start is not None, one_rate, heavy)
    options = {"maxiter": FEW_STEPS if many else STEPS, "maxcor": 20}
    found = lbfgs(objective, np.concatenate(free), options)
    value, _ = objective(found.x)
    return NoiseLayer(*objective.parts(found.x), objective.noise_size, objective.likelihood, value)


class _Objective:
    """The penalised negative log likelihood and its gradient."""

    def __init__(
        self, data: _Data, mixes: bool, noisy: bool, one_rate: bool = False, heavy: bool = False
    ) -> None:
        self.data, self.mixes = data, mixes
        self.noisy, self.one_rate, self.heavy = noisy, one_rate, heavy
        self.prior = TRUST * start_matrix(data.c)
        self.noise_size = (1 if one_rate else data.c**2) if noisy else 0
        self.likelihood = -np.inf

    def parts(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, float, np.ndarray]:
        """Return B or its multiple, the weights of other predictions, γ, b, τ and T."""
        c, k = self.data.c, self.data.k
        weights, rest = np.exp(np.clip(free[:k], *LOG_SCALE)), free[k:]
        scale, fade = weights[0], 0.0
        if self.mixes:
            scale, rest = scale * np.eye(c) + rest[: c * c].reshape(c, c), rest[c * c :]
        if self.data.far is not None:
            root, rest = rest[0], rest[1:]
            fade = float(min(root**2, MOST_FADE))  # never negative: far out, predictions tell less
        bias, rest = (np.zeros(c), rest) if c > MATRIX_CLASSES else (rest[:c], rest[c:])
        tail = 0.0
        if self.heavy:
            tail, rest = MOST_TAIL * float(expit(rest[0])), rest[1:]
        noise = np.eye(c)
        if self.noisy:
            noise = _any_other(float(expit(rest[0])), c) if self.one_rate else softmax(rest.reshape(c, c))
        return np.asarray(scale), weights[1:], fade, bias, tail, noise

    def __call__(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        data, k, c = self.data, self.data.k, self.data.c
        scale, others, fade, bias, tail, noise = self.parts(free)
        logits = pooled(data.logs, scale, others)
        if data.far is not None:
            shrunk = np.exp(-fade * data.far)[:, None]
            logits *= shrunk
        biased = logits + bias
        bent, slope, by_tail = heavy_tailed(biased, tail)
        p = softmax(bent)
        q, by_noise, penalty = self._noise_part(p, noise)
        pull = p - q  # of the bent logits
        by_rest = by_noise
        if self.heavy:
            by_rest = [np.array([np.vdot(pull, by_tail) * (1.0 - tail / MOST_TAIL)]), *by_noise]
            pull = pull * slope
            pull[data.rows, biased.argmax(1)] -= pull.sum(1)
        penalty += 0.5 * BIAS_RIDGE * float(bias @ bias) + 0.5 * SCALE_RIDGE * float(free[:k] @ free[:k])
        by_bias = np.zeros(0) if c > MATRIX_CLASSES else pull.sum(0) + BIAS_RIDGE * bias
        by_fade, by_off = np.zeros(0), np.zeros(0)
        if data.far is not None:
            root = free[k + (c * c if self.mixes else 0)]
            penalty += 0.5 * SCALE_RIDGE * root**2
            by_fade = np.array([root * (SCALE_RIDGE - 2.0 * (data.far @ (pull * logits).sum(1)))])
            pull = pull * shrunk
        weights = np.exp(np.clip(free[:k], *LOG_SCALE))
        by_weights = weights * [np.vdot(pull, part) for part in data.logs] + SCALE_RIDGE * free[:k]
        if self.mixes:
            off = free[k : k + c * c].reshape(c, c)
            penalty += 0.5 * RIDGE * float((off**2).sum())
            by_off = (pull.T @ data.logs[0] + RIDGE * off).ravel()
        return penalty - self.likelihood, np.concatenate([by_weights, by_off, by_fade, by_bias, *by_rest])

    def _noise_part(self, p: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], float]:
        """Return q, the gradient by the logits of T, and the penalty on T; note the likelihood."""
        if not self.noisy:
            self.likelihood = float(np.log(p[self.data.rows, self.data.y] + TINY).sum())
            q = np.zeros_like(p)
            q[self.data.rows, self.data.y] = 1.0
            return q, [], 0.0
        q = p * noise.T[self.data.y]
        chance = q.sum(1) + TINY
        q /= chance[:, None]
        self.likelihood = float(np.log(chance).sum())
        counts = self.prior.copy()
        counts[:, self.data.present] += np.add.reduceat(q, self.data.starts, axis=0).T
        penalty = -float((self.prior * np.log(noise + TINY)).sum())
        gradient = noise * counts.sum(1, keepdims=True) - counts
        if self.one_rate:
            return q, [np.array([np.trace(gradient)])], penalty
        return q, [gradient.ravel()], penalty


def _any_other(kept: float, c: int) -> np.ndarray:
    """Return T that keeps each of C labels with one probability and else draws any other class alike."""
    out = np.full((c, c), (1.0 - kept) / max(c - 1, 1))
    np.fill_diagonal(out, kept)
    return out


def sharpened(p: np.ndarray, power: float) -> np.ndarray:
    """Return `p^power`, normalised. Shapes: both `(n, C)`."""
    if power == 1.0:
        return p
    logs = power * np.log(np.maximum(p, TINY))
    return softmax(logs)
