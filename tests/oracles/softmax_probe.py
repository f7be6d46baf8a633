"""The linear softmax probe by Newton's method on the dense K×K problem, in all C classes and float64.

The objective is `(1/n) Σ_j w_j CE(θ x_j, y_j) + ½ wd ‖θ‖²`; x holds the intercept column if there is one.
"""

import numpy as np
from scipy.special import log_softmax, softmax


def probabilities(theta, x):
    """Return `softmax(θ x)` of every row, `(n, C)`."""
    return softmax(x @ theta.T, axis=1)


def objective(theta, x, y, weight, weight_decay):
    losses = -log_softmax(x @ theta.T, axis=1)[np.arange(len(x)), y]
    return np.mean(weight * losses) + 0.5 * weight_decay * np.sum(theta**2)


def gradient(theta, x, y, weight, weight_decay):
    """Return the gradient of `objective`, `(C, D)`."""
    residual = probabilities(theta, x) - np.eye(len(theta))[y]
    return (weight[:, None] * residual).T @ x / len(x) + weight_decay * theta


def curvature(theta, x, weight):
    """Return `Σ_j w_j (diag(p_j) − p_j p_jᵀ) ⊗ x_j x_jᵀ`, `(C·D, C·D)`, rows class-major."""
    p = probabilities(theta, x)
    c, d = theta.shape
    dense = np.empty((c, d, c, d))
    for one in range(c):
        for other in range(one, c):
            s = weight * p[:, one] * ((one == other) - p[:, other])
            dense[one, :, other, :] = dense[other, :, one, :] = x.T @ (s[:, None] * x)
    return dense.reshape(c * d, c * d)


def fit(x, y, n_classes, weight_decay, weight=None, start=None):
    """Return the optimum `(C, D)`.

    Newton's steps go on until rounding stops them from halving the gradient's size, measured by the
    Newton decrement; then the gradient is at most 1e-12 times the size of the features, or this fails.
    """
    weight = np.ones(len(x)) if weight is None else weight
    theta = np.zeros((n_classes, x.shape[1])) if start is None else start.copy()
    problem = (x, y, weight, weight_decay)
    previous = np.inf
    for _ in range(300):
        slope = gradient(theta, *problem)
        hessian = curvature(theta, x, weight) / len(x)
        hessian[np.diag_indices_from(hessian)] += weight_decay
        step = np.linalg.solve(hessian, slope.ravel()).reshape(theta.shape)
        decrement = len(x) * np.sum(step * slope)
        if decrement < 1e-20 and decrement > 0.25 * previous:
            break
        previous = decrement
        length, now = 1.0, objective(theta, *problem)
        # Below 1e-12 the objective's own rounding hides the gain; there a full Newton step is safe.
        while decrement > 1e-12 and objective(theta - length * step, *problem) > now:
            length /= 2
        theta = theta - length * step
        # The optimum's weights add up to zero over the classes; in that direction only the weight decay
        # holds them, too weakly to be seen beside features of size 1e6.
        theta -= theta.mean(axis=0)
    size = max(1.0, np.sqrt(np.mean(np.sum(x**2, axis=1))))
    assert np.linalg.norm(gradient(theta, *problem)) <= 1e-12 * size, "the oracle itself did not converge"
    return theta


def row_space(x):
    """Return x in an orthonormal basis of its rows, and the basis `(D, R)`: `x == reduced @ basis.T`.

    With weight decay the optimum is a combination of the samples, so that nothing is lost.
    """
    _, singular, directions = np.linalg.svd(x, full_matrices=False)
    basis = directions[singular > 1e-13 * singular[0]].T
    return x @ basis, basis
