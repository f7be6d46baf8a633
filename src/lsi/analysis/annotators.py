r"""Several labels a sample, from several annotators: the true class, and how good each annotator is.

The true class z is hidden. All annotators see the sample as class w, which is z but for errors that they
share, and annotator a calls it y with the probability of row w of a noise matrix of her own:

.. math:: q_i(z) \;\propto\; p_i(z) \sum_w S_{zw} \prod_{a \in A_i} T^a_{w y_{ia}},\qquad
          p_i = \mathrm{softmax}(\beta \log\hat p_i + b)

with :math:`A_i` the annotators of sample i and :math:`\hat p` the out-of-sample probabilities of a model.
Without a model p is the share of each class and S the identity: nothing tells an error that all share from
the truth. With one, S is what `lsi.analysis.noise_layer` calls the noise matrix, and it is kept where it
gains more likelihood than it has parameters (Akaike).

Few labels do not make a matrix. :math:`T^a` is the mean under a Dirichlet prior of strength κ around the
matrix that all annotators have in common, moved to her accuracy :math:`\alpha_a`, and :math:`\alpha_a` the
mean under a Beta prior of strength ν around everybody's. κ and ν have the greatest marginal likelihood.

Source:
    Dawid & Skene, *Maximum likelihood estimation of observer error-rates using the EM algorithm*, 1979;
    a classifier as the prior: Raykar et al., *Learning from crowds*, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, gammaln, logit

from lsi.analysis.noise_layer import TRUST, log_features, softmax, start_matrix
from lsi.probes.softmax.lbfgs import lbfgs

ROUNDS, SETTLED = 100, 1e-4  # of EM; mean change of a probability that ends it
TRIES = 50  # steps of EM for S, before its likelihood is compared
STRENGTHS = 2.0 ** np.arange(13)  # that a prior may have, in labels: from hardly any to all alike
JUDGED = 200  # annotators from which the strengths are estimated
ROWS = 20_000  # samples from which p and S are estimated: a few hundred numbers
BIAS_RIDGE = 0.1  # a class that nobody names keeps a finite bias
STEPS = 20  # L-BFGS iterations for β and b in a round, from where the last one ended
EDGE = 1e-6  # an accuracy is not nearer than this to 0 or 1
TINY = 1e-300


class Votes:
    """Labels by annotators with gaps, as a sparse matrix of samples by pairs (annotator, label).

    Only pairs that occur have a column, so ten thousand annotators with a few labels each take little room.

    Args:
        row: `(M,)` sample of each label.
        annotator: `(M,)` who gave it.
        code: `(M,)` class code.
        shape: N, A and C.
    """

    def __init__(
        self, row: np.ndarray, annotator: np.ndarray, code: np.ndarray, shape: tuple[int, int, int]
    ) -> None:
        self.n, self.n_annotators, self.n_classes = shape
        key, column = np.unique(annotator * self.n_classes + code, return_inverse=True)
        self.annotator, self.code = key // self.n_classes, key % self.n_classes  # of each pair
        ones = np.ones(len(row))
        self.pairs = csr_array((ones, (row, column.ravel())), shape=(self.n, len(key)))
        self.counts = np.bincount(row, minlength=self.n)  # m
        self.n_labels = np.bincount(annotator, minlength=self.n_annotators)
        place = (row, code)
        self.by_class = csr_array((ones, place), shape=(self.n, self.n_classes)).toarray()


@dataclass(frozen=True, eq=False)
class Crowd:
    """What is known about annotators; pairs are those of `Votes`.

    Attributes:
        matrix: `(C, C)` noise matrix that all have in common.
        accuracy: `(A,)` α.
        strength: ν.
        own: `(pairs, C)` probability of each pair's label for each class, T^a.
        rows: `(A, C)` labels of each annotator for each class.
        kappa: κ.
    """

    matrix: np.ndarray
    accuracy: np.ndarray
    strength: float
    own: np.ndarray
    rows: np.ndarray
    kappa: float

    def matrices(self, votes: Votes, which: np.ndarray) -> np.ndarray:
        """Return the noise matrices of some annotators, `(k, C, C)`."""
        out = np.empty((len(which), *self.matrix.shape))
        typical = typical_matrix(self.matrix, self.accuracy[which])
        for k, a in enumerate(which):
            out[k] = typical[k] * (self.kappa / (self.rows[a] + self.kappa))[:, None]
            mine = votes.annotator == a
            out[k][:, votes.code[mine]] = self.own[mine].T
        return out

    def told(self, votes: Votes) -> np.ndarray:
        """Return the likelihood of each class by all labels of a sample, `(N, C)`; the largest one is 1."""
        logs = votes.pairs @ np.log(np.maximum(self.own, TINY))
        return np.asarray(np.exp(logs - logs.max(1, keepdims=True)))


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known about samples without their labels.

    Attributes:
        free: `(1 + C,)` β and b.
        shared: `(C, C)` S; None: the identity.
    """

    free: np.ndarray
    shared: np.ndarray | None = None

    def predict(self, logs: np.ndarray) -> np.ndarray:
        """Return p. Shapes: both `(n, C)`."""
        return softmax(logs * self.free[0] + self.free[1:])

    def posteriors(self, logs: np.ndarray, told: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the posteriors of true class z and seen class w, and each sample's likelihood.

        Shapes: logs, told and posteriors `(n, C)`, likelihood `(n,)`.
        """
        p = self.predict(logs)
        seen = told * (p if self.shared is None else p @ self.shared)
        chance = np.maximum(seen.sum(1), TINY)
        seen /= chance[:, None]
        if self.shared is None:
            return seen, seen, chance
        return p * (told @ self.shared.T) / chance[:, None], seen, chance

    def improved(self, logs: np.ndarray, told: np.ndarray) -> Prior:
        """Return the prior after one step of EM."""
        true, _, chance = self.posteriors(logs, told)
        shared = self.shared
        if shared is not None:
            joint = shared * ((self.predict(logs) / chance[:, None]).T @ told)
            joint += TRUST * start_matrix(len(joint))
            shared = joint / joint.sum(1, keepdims=True)
        return Prior(_fit_prior(logs, true, self.free), shared)


@dataclass(frozen=True, eq=False)
class Fit:
    """What EM found.

    Attributes:
        true: `(N, C)`, posterior of the true class, q.
        seen: `(N, C)`, posterior of the class as which the annotators see the sample.
        crowd: The annotators.
        prior: The samples without their labels.
    """

    true: np.ndarray
    seen: np.ndarray
    crowd: Crowd
    prior: Prior


def fit_crowd(votes: Votes, p: np.ndarray | None) -> Fit:
    """Return the posterior of the true classes, and what it says about the annotators, by EM.

    Shapes: p `(N, C)`, out-of-sample probabilities; None: no model.
    """
    c = votes.n_classes
    logs = np.zeros((votes.n, c)) if p is None else log_features(p)
    some = np.flatnonzero(votes.counts)
    if len(some) > ROWS:
        some = np.sort(np.random.default_rng(0).choice(some, ROWS, replace=False))
    seen = votes.by_class + (softmax(logs) if p is not None else votes.by_class.mean(0) + TINY)
    seen /= seen.sum(1, keepdims=True)
    fit = _settle(votes, logs, seen, Prior(np.concatenate([[1.0], np.zeros(c)])), some)
    if p is not None:
        told = fit.crowd.told(votes)
        shared = _shared_errors(logs[some], told[some], fit.prior)
        if shared is not None:
            fit = _settle(votes, logs, shared.posteriors(logs, told)[1], shared, some)
    return fit


def _settle(votes: Votes, logs: np.ndarray, seen: np.ndarray, prior: Prior, some: np.ndarray) -> Fit:
    """Return where EM settles; `some` samples decide on the prior. Shapes: logs and seen `(N, C)`."""
    for _ in range(ROUNDS):
        crowd = _fit_annotators(votes, seen)
        told = crowd.told(votes)
        prior = prior.improved(logs[some], told[some])
        before = seen
        true, seen, _ = prior.posteriors(logs, told)
        if np.abs(seen - before).mean() < SETTLED:
            break
    return Fit(true, seen, crowd, prior)


def _shared_errors(logs: np.ndarray, told: np.ndarray, prior: Prior) -> Prior | None:
    """Return the prior with errors that all annotators share, if the data show them.

    An entry of S is a parameter as far as the samples that it explains outweigh what the prior believes.
    """
    c = logs.shape[1]
    shared, plain = Prior(prior.free, start_matrix(c)), prior
    for _ in range(TRIES):
        shared, plain = shared.improved(logs, told), plain.improved(logs, told)
    gain = float(
        np.log(shared.posteriors(logs, told)[2]).sum() - np.log(plain.posteriors(logs, told)[2]).sum()
    )
    off = ~np.eye(c, dtype=bool)
    errors = (shared.predict(logs).sum(0)[:, None] * shared.shared)[off]
    free = float((errors / (errors + TRUST * start_matrix(c)[off])).sum())
    return shared if gain > free else None


def typical_matrix(matrix: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Return the shared matrix moved to each annotator's accuracy, in log odds.

    Shapes: matrix `(C, C)`, accuracy `(k,)`, result `(k, C, C)`.
    """
    c = len(matrix)
    kept, off = _kept_and_off(matrix)
    mean = float(np.clip(kept.mean(), EDGE, 1 - EDGE))
    shift = logit(np.clip(accuracy, EDGE, 1 - EDGE)) - logit(mean)
    right = expit(logit(kept)[None] + shift[:, None])
    out = (1.0 - right)[:, :, None] * off
    out[:, np.arange(c), np.arange(c)] = right
    return np.asarray(out)


def _kept_and_off(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonal `(C,)`, and where errors go, `(C, C)` with rows that sum to one."""
    off = matrix * (1.0 - np.eye(len(matrix)))
    off /= np.maximum(off.sum(1, keepdims=True), TINY)
    return np.clip(np.diag(matrix), EDGE, 1 - EDGE), off


def _fit_annotators(votes: Votes, q: np.ndarray) -> Crowd:
    """Return the crowd of greatest posterior probability for these classes. Shapes: q `(N, C)`."""
    c, pair = votes.n_classes, np.arange(len(votes.code))
    counts = np.asarray(votes.pairs.T @ q)  # (pairs, C)
    joint = np.zeros((c, c))
    np.add.at(joint.T, votes.code, counts)
    joint += TRUST * start_matrix(c)
    matrix = joint / joint.sum(1, keepdims=True)
    right = np.bincount(votes.annotator, counts[pair, votes.code], votes.n_annotators)
    rows = np.zeros((votes.n_annotators, c))
    np.add.at(rows, votes.annotator, counts)
    mean = float(np.clip(np.trace(joint) / joint.sum(), EDGE, 1 - EDGE))
    strength = _strength(right, votes.n_labels, mean)
    accuracy = (right + strength * mean) / (votes.n_labels + strength)
    prior = _typical_of_pairs(matrix, accuracy, votes)
    kappa = _kappa(counts, prior, rows, votes)
    own = (counts + kappa * prior) / (rows[votes.annotator] + kappa)
    return Crowd(matrix, accuracy, strength, own, rows, kappa)


def _typical_of_pairs(matrix: np.ndarray, accuracy: np.ndarray, votes: Votes) -> np.ndarray:
    """Return `typical_matrix` where pairs are, `(pairs, C)`, without making a matrix for each annotator."""
    kept, off = _kept_and_off(matrix)
    mean = float(np.clip(kept.mean(), EDGE, 1 - EDGE))
    shift = logit(np.clip(accuracy, EDGE, 1 - EDGE)) - logit(mean)
    right = expit(logit(kept)[None] + shift[:, None])  # (A, C)
    out = (1.0 - right)[votes.annotator] * off.T[votes.code]
    pair = np.arange(len(votes.code))
    out[pair, votes.code] = right[votes.annotator, votes.code]
    return np.asarray(out)


def _strength(right: np.ndarray, n_labels: np.ndarray, mean: float) -> float:
    """Return ν by the beta-binomial likelihood of right labels, `(A,)` each."""
    a, b = STRENGTHS[:, None] * mean, STRENGTHS[:, None] * (1.0 - mean)
    likely = gammaln(a + right) - gammaln(a) + gammaln(b + n_labels - right) - gammaln(b)
    likely += gammaln(a + b) - gammaln(a + b + n_labels)
    return float(STRENGTHS[likely.sum(1).argmax()])


def _kappa(counts: np.ndarray, prior: np.ndarray, rows: np.ndarray, votes: Votes) -> float:
    """Return κ by the Dirichlet-multinomial likelihood of the labels of some annotators."""
    step = -(-votes.n_annotators // JUDGED)
    judged = votes.annotator % step == 0
    counts, prior, rows = counts[judged], prior[judged], rows[::step]
    likely = [
        (gammaln(k) - gammaln(k + rows)).sum() + (gammaln(k * prior + counts) - gammaln(k * prior)).sum()
        for k in STRENGTHS
    ]
    return float(STRENGTHS[int(np.argmax(likely))])


def _fit_prior(logs: np.ndarray, q: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return β and b of greatest likelihood, `(1 + C,)`. Shapes: logs and q `(n, C)`."""

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        bias = free[1:]
        p = softmax(logs * free[0] + bias)
        pull = p - q
        value = -float((q * np.log(p + TINY)).sum()) + 0.5 * BIAS_RIDGE * float(bias @ bias)
        return value, np.concatenate([[np.vdot(pull, logs)], pull.sum(0) + BIAS_RIDGE * bias])

    return np.asarray(lbfgs(objective, free, {"maxiter": STEPS}).x)
