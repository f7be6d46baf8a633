"""The divergences against the textbook formula in 50-digit arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from tests.oracles.gaussian_kl import exact_kl

from lsi.divergence import (
    KronPrecision,
    diag_divergence,
    excess,
    full_divergence,
    kron_divergence,
    low_rank_covariance,
)

# What the project promises of the divergence itself; float64 leaves two orders of magnitude to it.
RELATIVE = 1e-9
SCALES = [1.0, 1e-2, 1e-4, 1e-8]  # at 1e-8 the value is 1e-16 of the sums that the textbook subtracts
seeds = st.integers(0, 2**32 - 1)


def tensor(values):
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def spread(random, *shape):
    """Return matrices with very different rows, to be squared into well- and ill-determined precisions."""
    return random.standard_normal(shape) * 10.0 ** random.uniform(-1, 1, (*shape[:-1], 1))


def compare(terms, first, changes, deltas, relative=RELATIVE):
    """Compare each term and their sum with the exact value."""
    for b, (change, delta) in enumerate(zip(changes, deltas, strict=True)):
        mean, covariance = exact_kl(first, change, delta)
        assert_allclose(float(terms.mean[b]), float(mean), rtol=relative)
        assert_allclose(float(terms.covariance[b]), float(covariance), rtol=relative)
        assert_allclose(float(terms.total[b]), float(mean + covariance), rtol=relative)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_diag(seed, scale):
    random = np.random.default_rng(seed)
    precision = 10.0 ** random.uniform(-2, 4, 6)
    change = scale * precision * random.uniform(-0.9, 2.0, (3, 6))
    delta = scale * random.standard_normal((3, 6))
    terms = diag_divergence(tensor(precision), tensor(change), tensor(delta))
    compare(terms, np.diag(precision), [np.diag(row) for row in change], delta)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_full(seed, scale):
    random = np.random.default_rng(seed)
    rows = spread(random, 8, 5)
    first = rows.T @ rows + np.eye(5)
    # Removing a share of some rows and adding others: neither sign of the eigenvalues is special.
    weights = scale * random.uniform(-0.9, 2.0, (3, 8))
    change = np.array([(rows.T * w) @ rows for w in weights])
    delta = scale * random.standard_normal((3, 5))
    terms = full_divergence(torch.linalg.cholesky(tensor(first)), tensor(change), tensor(delta))
    compare(terms, first, change, delta)


def test_full_of_a_sample_that_held_almost_all_the_precision():
    # Removing it leaves 1e-12 of the precision in one direction: rounding may make that negative.
    x = 1e6 * np.array([1.0, -2.0, 0.5])
    first = np.outer(x, x) + np.eye(3)
    terms = full_divergence(
        torch.linalg.cholesky(tensor(first)), tensor(-np.outer(x, x))[None], torch.zeros((1, 3)).double()
    )
    _, covariance = exact_kl(first, -np.outer(x, x), np.zeros(3))
    # The smallest eigenvalue itself is known to 1e-16 · 1e12 only, and enters by its logarithm.
    assert_allclose(float(terms.covariance[0]), float(covariance), rtol=0.2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_low_rank(seed, scale):
    random = np.random.default_rng(seed)
    rows = spread(random, 8, 6)
    first = rows.T @ rows + np.eye(6)
    reach = random.standard_normal((3, 6, 2))
    gram = reach.mT @ np.linalg.solve(first, reach)
    root = random.standard_normal((3, 2, 2))
    curvature = root @ root.mT
    # Scaled so that the largest eigenvalue of what is removed is `scale` (0.9 at most) of the precision.
    largest = np.linalg.eigvals(curvature @ gram).real.max(1)
    curvature *= (min(scale, 0.9) / largest)[:, None, None]
    value = low_rank_covariance(tensor(curvature), tensor(gram))
    for b in range(3):
        _, covariance = exact_kl(first, -reach[b] @ curvature[b] @ reach[b].T, np.zeros(6))
        # The dense change has its own rounding, 1e-16 of entries that the square makes 1e-8 relative at 1e-8.
        assert_allclose(float(value[b]), float(covariance), rtol=max(RELATIVE, 1e-14 / scale))


def kron_case(random, scale, n_classes=3, n_features=4):
    """Return the arguments of `kron_divergence` and the dense matrices that they stand for."""
    beta = np.sort(10.0 ** random.uniform(-2, 0, n_classes))
    alpha = np.sort(10.0 ** random.uniform(0, 3, n_features))
    tau = 10.0 ** random.uniform(-1, 1)
    root = random.standard_normal((3, n_classes, n_classes))
    class_change = 0.3 * scale * beta.min() * (root + root.mT) / 2
    removed = np.sqrt(scale * alpha.min()) * random.uniform(-0.45, 0.45, (3, n_features))
    delta = scale * random.standard_normal((3, n_classes, n_features))
    precision = KronPrecision(tensor(beta), tensor(alpha), tau)
    given = precision, tensor(class_change), tensor(removed), tensor(delta)
    first = np.diag(np.kron(beta, alpha) + tau)
    changes = [
        np.kron(change, np.diag(alpha) - np.outer(x, x)) - np.kron(np.diag(beta), np.outer(x, x))
        for change, x in zip(class_change, removed, strict=True)
    ]
    return given, first, changes, delta.reshape(3, -1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(3))
def test_kron(seed, scale):
    given, first, changes, delta = kron_case(np.random.default_rng(seed), scale)
    # Eigenvectors that turn by 1e-8 are known to 1e-16 or 1e-15 absolute, so to 1e-7 of the turn.
    compare(kron_divergence(*given), first, changes, delta, max(RELATIVE, 1e-14 / scale))


@given(seeds, st.floats(-12, 0))
def test_divergences_are_not_negative(seed, exponent):
    random, scale = np.random.default_rng(seed), 10.0**exponent
    rows = spread(random, 6, 4)
    first, weights = rows.T @ rows + 1e-3 * np.eye(4), scale * random.uniform(-1.0, 2.0, (2, 6))
    change = np.array([(rows.T * w) @ rows for w in weights])
    delta = tensor(scale * random.standard_normal((2, 4)))
    dense = full_divergence(torch.linalg.cholesky(tensor(first)), tensor(change), delta)
    precision = np.diagonal(first).copy()
    diagonal = diag_divergence(tensor(precision), tensor(np.diagonal(change, axis1=1, axis2=2).copy()), delta)
    kron = kron_divergence(*kron_case(random, scale)[0])
    for terms in (dense, diagonal, kron):
        assert bool((terms.mean >= 0).all() and (terms.covariance >= 0).all())
        assert bool(terms.total.isfinite().all())


@given(seeds)
def test_the_same_gaussian_diverges_by_nothing(seed):
    random = np.random.default_rng(seed)
    rows = spread(random, 6, 4)
    factor = torch.linalg.cholesky(tensor(rows.T @ rows + np.eye(4)))
    nothing = torch.zeros((1, 4, 4), dtype=torch.float64)
    assert float(full_divergence(factor, nothing, nothing[:, 0]).total) == 0
    assert float(diag_divergence(factor.diagonal(), nothing[:, 0], nothing[:, 0]).total) == 0
    (precision, *_), *_ = kron_case(random, 1.0)
    change, delta = torch.zeros((1, 3, 3)).double(), torch.zeros((1, 3, 4)).double()
    # Eigenvalues of an unchanged class factor come back with their rounding, 1e-16 of numbers near one.
    assert float(kron_divergence(precision, change, delta[:, 0], delta).total) <= 1e-13


@given(st.floats(-0.999, 1e6))
def test_excess_is_convex_and_touches_zero_at_zero(u):
    value = float(excess(tensor(u)))
    assert value >= 0
    # Between the two, u² is among the smallest numbers there are, and rounds either way.
    assert value > 0 or abs(u) < 1e-161
    assert value == 0 or abs(u) > 1e-162
    # u²/2 is the tangent parabola; it lies above for positive u and below for negative u.
    parabola, last = 0.5 * u * u, 5e-323
    assert (value <= parabola * (1 + 1e-12) + last) if u > 0 else (value >= parabola * (1 - 1e-12) - last)
