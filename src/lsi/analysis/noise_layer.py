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

from lsi.probes.softmax.lbfgs import lbfgs

LEAST = 1e-6  # probabilities below this say nothing more
START_RATE = 0.1  # share of wrong labels that one of the two fits starts with
TRUST = 3.0  # right labels credited to each class beforehand: few samples should not accuse a class
RIDGE = 1.0  # on what B has beside a multiple of the identity
BIAS_RIDGE = 0.1  # a class that no sample is predicted to be keeps a finite bias
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
        bias: b, `(C,)`.
        noise: T, `(C, C)`, row true class, column given label, rows sum to one.
        likelihood: Log likelihood of the given labels, nats.
        penalised: What the fit minimised.
    """

    scale: np.ndarray
    bias: np.ndarray
    noise: np.ndarray
    likelihood: float
    penalised: float

    @property
    def mixes(self) -> bool:
        """Whether B is a matrix."""
        return self.scale.ndim == 2

    def predict(self, logs: np.ndarray) -> np.ndarray:
        """Return `p(z | x)` from `log_features`. Shapes: both `(n, C)`."""
        return softmax((logs @ self.scale.T if self.mixes else logs * self.scale) + self.bias)


def log_features(p: np.ndarray) -> np.ndarray:
    """Return centred logarithms of probabilities, float64. Shapes: both `(n, C)`."""
    logs = np.log(np.maximum(p, LEAST, dtype=np.float64))
    return np.asarray(logs - logs.mean(1, keepdims=True))


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


def fit_layer(p: np.ndarray, y: np.ndarray, noise: np.ndarray | None = None) -> tuple[NoiseLayer, NoiseLayer]:
    """Return the layer of greatest likelihood, and the one without noise.

    Each kind of layer is fitted from two starts, or from T where that is nearly known. From few samples a
    matrix B would learn the noise by heart: there it has to gain more likelihood than it has parameters
    (Akaike).

    Shapes: p `(n, C)`, y `(n,)`, noise `(C, C)`.
    """
    order = np.argsort(y, kind="stable")  # sorted labels are counted fast
    logs, y, c = log_features(p[order]), y[order], p.shape[1]
    starts = (noise,) if noise is not None else (start_matrix(c), confident_matrix(p[order], y))

    def best(mixes: bool) -> NoiseLayer:
        return min((_fit(logs, y, start, mixes) for start in starts), key=lambda layer: layer.penalised)

    may_mix = 2 < c <= MIXED_CLASSES  # with two classes a multiple of the identity does all that B can
    layer = best(may_mix and len(y) >= MANY_ROWS * c * c)
    if may_mix and not layer.mixes:
        mixed = best(True)
        if mixed.likelihood - layer.likelihood > c * c - 1:
            layer = mixed
    return layer, _fit(logs, y, None, layer.mixes)


def _fit(logs: np.ndarray, y: np.ndarray, start: np.ndarray | None, mixes: bool) -> NoiseLayer:
    """Maximise the penalised likelihood; without a start, T is the identity. `y` must ascend."""
    c = logs.shape[1]
    tied = c > MATRIX_CLASSES
    free = [(np.eye(c) if mixes else np.ones(1)).ravel(), np.zeros(0 if tied else c)]
    if start is not None:
        kept = np.diag(start)[:1]
        free.append(np.log(kept / (1.0 - kept)) if tied else np.log(start + 1e-4).ravel())
    objective = _Objective(logs, y, mixes, start is not None)
    options = {"maxiter": FEW_STEPS if tied else STEPS, "maxcor": 20}
    found = lbfgs(objective, np.concatenate(free), options)
    value, _ = objective(found.x)
    scale, bias, noise = objective.parts(found.x)
    scale = scale if mixes else scale.reshape(())
    return NoiseLayer(scale, bias, noise, objective.likelihood, value)


class _Objective:
    """The penalised negative log likelihood and its gradient; `y` ascends.

    Shapes: logs `(n, C)`, y `(n,)`.
    """

    def __init__(self, logs: np.ndarray, y: np.ndarray, mixes: bool, noisy: bool) -> None:
        self.logs, self.y, self.mixes, self.noisy = logs, y, mixes, noisy
        self.c = logs.shape[1]
        self.rows, self.prior = np.arange(len(y)), TRUST * start_matrix(self.c)
        self.present, self.starts = np.unique(y, return_index=True)
        self.likelihood = -np.inf

    def parts(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return B or its multiple, b and T."""
        c, n, tied = self.c, self.c**2 if self.mixes else 1, self.c > MATRIX_CLASSES
        scale = free[:n].reshape(c, c) if self.mixes else free[:1]
        bias = np.zeros(c) if tied else free[n : n + c]
        if not self.noisy:
            return scale, bias, np.eye(c)
        if tied:
            return scale, bias, _any_other(float(1.0 / (1.0 + np.exp(-free[-1]))), c)
        return scale, bias, softmax(free[n + c :].reshape(c, c))

    def __call__(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias, noise = self.parts(free)
        p = softmax((self.logs @ scale.T if self.mixes else self.logs * scale) + bias)
        q, by_noise, penalty = self._noise_part(p, noise)
        pull = p - q  # of the logits
        penalty += 0.5 * BIAS_RIDGE * float(bias @ bias)
        tied = self.c > MATRIX_CLASSES
        by_bias = np.zeros(0) if tied else pull.sum(0) + BIAS_RIDGE * bias
        if self.mixes:
            off = scale - np.trace(scale) / self.c * np.eye(self.c)
            penalty += 0.5 * RIDGE * float((off**2).sum())
            by_scale = (pull.T @ self.logs + RIDGE * off).ravel()
        else:
            by_scale = np.array([np.vdot(pull, self.logs)])
        return penalty - self.likelihood, np.concatenate([by_scale, by_bias, *by_noise])

    def _noise_part(self, p: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], float]:
        """Return q, the gradient by the logits of T, and the penalty on T; note the likelihood."""
        if not self.noisy:
            self.likelihood = float(np.log(p[self.rows, self.y] + TINY).sum())
            q = np.zeros_like(p)
            q[self.rows, self.y] = 1.0
            return q, [], 0.0
        q = p * noise.T[self.y]
        chance = q.sum(1) + TINY
        q /= chance[:, None]
        self.likelihood = float(np.log(chance).sum())
        counts = self.prior.copy()
        counts[:, self.present] += np.add.reduceat(q, self.starts, axis=0).T
        penalty = -float((self.prior * np.log(noise + TINY)).sum())
        gradient = noise * counts.sum(1, keepdims=True) - counts
        if self.c > MATRIX_CLASSES:
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
