"""Dense KL divergence between Gaussians `N(0, P₁⁻¹)` and `N(δ, P₂⁻¹)`, in nats."""

import mpmath
import numpy as np
import scipy.linalg


def exact_kl(first, change, delta, digits=50):
    """Return mean and covariance term in `digits`-digit arithmetic by the textbook formula.

    Args:
        first: P₁, `(K, K)` float64.
        change: P₂ − P₁, `(K, K)` float64, added with all digits.
        delta: `(K,)`.
    """
    with mpmath.workdps(digits):
        p1, p2 = mpmath.matrix(first.tolist()), mpmath.matrix(first.tolist()) + mpmath.matrix(change.tolist())
        shift = mpmath.matrix(np.ravel(delta).tolist())
        product = p2 * mpmath.inverse(p1)
        trace = mpmath.fsum(product[i, i] for i in range(len(first)))
        covariance = (trace - len(first) - mpmath.log(mpmath.det(p2) / mpmath.det(p1))) / 2
        return (shift.T * p2 * shift)[0] / 2, covariance


def dense_kl(first, second, delta):
    """Return mean and covariance term in float64, from `M = L⁻¹(P₂ − P₁)L⁻ᵀ` with `P₁ = LLᵀ`.

    Its covariance term `½[tr M − ln det(I + M)]` is good to about K·1e-16 nats.
    """
    factor = np.linalg.cholesky(first)
    half = scipy.linalg.solve_triangular(factor, second - first, lower=True)
    inner = scipy.linalg.solve_triangular(factor, half.T, lower=True)
    delta = np.ravel(delta)
    logarithm = np.linalg.slogdet(inner + np.eye(len(inner)))[1]
    return 0.5 * delta @ second @ delta, 0.5 * (np.trace(inner) - logarithm)
