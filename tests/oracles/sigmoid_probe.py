"""Logistic heads with sigmoid losses, refitted without a sample; LSI from the definitions of the posteriors.

Every label has a head of its own; the objective is `(1/n) Σ_i Σ_l [log(1 + e^z) − y z] + ½ wd ‖θ‖²`.
"""

import numpy as np
from scipy.special import expit
from tests.oracles.gaussian_kl import dense_kl


def fit(x, y, weight_decay):
    """Return one head `(D,)` by damped Newton on the mean objective; y is `(n,)` zeros and ones."""
    theta = np.zeros(x.shape[1])

    def objective(candidate):
        z = x @ candidate
        return np.mean(np.logaddexp(0, z) - y * z) + 0.5 * weight_decay * candidate @ candidate

    for _ in range(200):
        p = expit(x @ theta)
        gradient = x.T @ (p - y) / len(x) + weight_decay * theta
        hessian = (x.T * (p * (1 - p))) @ x / len(x) + weight_decay * np.eye(len(theta))
        step = np.linalg.solve(hessian, gradient)
        decrement = len(x) * step @ gradient
        length = 1.0
        while decrement > 1e-12 and objective(theta - length * step) > objective(theta):
            length /= 2
        theta = theta - length * step
        if decrement < 1e-24:
            return theta
    raise AssertionError("the oracle itself did not converge")


def precision(x, heads, prior_precision, structure):
    """Return one precision a label: a vector for diag, else `(D, D)`."""
    found = []
    gram = x.T @ x
    for theta in heads:
        p = expit(x @ theta)
        s = p * (1 - p)
        if structure == "diag":
            found.append(s @ x**2 + prior_precision)
        elif structure == "kron":
            found.append(s.mean() * gram + prior_precision * np.eye(len(gram)))
        else:
            found.append((x.T * s) @ x + prior_precision * np.eye(len(gram)))
    return found


def lsi(x, y, weight_decay, prior_precision, structure, left_out):
    """Return the LSI of one sample by label, `(L,)` nats; y is `(N, L)`."""
    keep = np.arange(len(x)) != left_out
    before = [fit(x, column, weight_decay) for column in y.T]
    after = [fit(x[keep], column[keep], weight_decay) for column in y.T]
    pairs = zip(
        precision(x, before, prior_precision, structure),
        precision(x[keep], after, prior_precision, structure),
        before,
        after,
        strict=True,
    )
    values = []
    for first, second, old, new in pairs:
        if structure == "diag":
            u = (second - first) / first
            terms = 0.5 * np.sum((new - old) ** 2 * second), 0.5 * np.sum(u - np.log1p(u))
        else:
            terms = dense_kl(first, second, new - old)
        values.append(sum(terms))
    return np.array(values)


def probability(x, y, weight_decay, left_out):
    """Return the probability of every given label without the sample, `(L,)`."""
    keep = np.arange(len(x)) != left_out
    yes = np.array([expit(x[left_out] @ fit(x[keep], column[keep], weight_decay)) for column in y.T])
    return np.where(y[left_out] == 1, yes, 1 - yes)
