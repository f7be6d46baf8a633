"""Ridge regression and its leave-one-out LSI from the definitions: normal equations, without the sample.

`exact_terms` does all of it in 40-digit arithmetic.
"""

import mpmath
import numpy as np
from tests.oracles.gaussian_kl import dense_kl


def fit(x, y, weight_decay):
    """Return the optimum `(T, D)` of `(1/n) Σ ½‖y − θx‖² + ½ wd ‖θ‖²`."""
    matrix = x.T @ x + len(x) * weight_decay * np.eye(x.shape[1])
    return np.linalg.solve(matrix, x.T @ y).T


def precision(x, noise, prior_precision, structure):
    """Return the posterior precision: a vector for diag, else a list of one `(D, D)` matrix a target."""
    if structure == "diag":
        return (noise[:, None] * (x**2).sum(0) + prior_precision).ravel()
    gram = x.T @ x
    return [beta * gram + prior_precision * np.eye(x.shape[1]) for beta in noise]


def terms(x, y, weight_decay, noise, prior_precision, structure, left_out):
    """Return mean and covariance term of the LSI of one sample or several, in nats, in float64."""
    keep = ~np.isin(np.arange(len(x)), left_out)
    delta = fit(x[keep], y[keep], weight_decay) - fit(x, y, weight_decay)
    first = precision(x, noise, prior_precision, structure)
    second = precision(x[keep], noise, prior_precision, structure)
    if structure == "diag":
        u = (second - first) / first
        return 0.5 * np.sum(delta.ravel() ** 2 * second), 0.5 * np.sum(u - np.log1p(u))
    parts = [dense_kl(*pair) for pair in zip(first, second, delta, strict=True)]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def exact_terms(x, y, weight_decay, noise, prior_precision, structure, left_out, digits=40):
    """Return mean and covariance term in `digits`-digit arithmetic, by the textbook formula."""
    with mpmath.workdps(digits):
        n, d = x.shape
        whole, targets = mpmath.matrix(x.tolist()), mpmath.matrix(y.tolist())
        rows = [row for row in range(n) if row != left_out]
        rest = mpmath.matrix([[whole[row, k] for k in range(d)] for row in rows])
        rest_targets = mpmath.matrix([[targets[row, t] for t in range(targets.cols)] for row in rows])
        eye = mpmath.eye(d)
        grams = [part.T * part for part in (whole, rest)]
        decay = mpmath.mpf(float(weight_decay))
        before = mpmath.lu_solve(grams[0] + n * decay * eye, whole.T * targets) if targets.cols == 1 else None
        if before is None:
            before = mpmath.inverse(grams[0] + n * decay * eye) * (whole.T * targets)
        after = mpmath.inverse(grams[1] + (n - 1) * decay * eye) * (rest.T * rest_targets)
        mean = covariance = mpmath.mpf(0)
        for t, beta in enumerate(noise):
            first, second = (float(beta) * gram + float(prior_precision) * eye for gram in grams)
            if structure == "diag":
                first, second = (mpmath.diag([m[k, k] for k in range(d)]) for m in (first, second))
            shift = mpmath.matrix([after[k, t] - before[k, t] for k in range(d)])
            mean += (shift.T * second * shift)[0] / 2
            product = second * mpmath.inverse(first)
            trace = mpmath.fsum(product[k, k] for k in range(d))
            covariance += (trace - d - mpmath.log(mpmath.det(second) / mpmath.det(first))) / 2
        return mean, covariance
