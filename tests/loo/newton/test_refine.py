"""Certificates of refined samples where the curvature of the fit and that of the posterior are far apart."""

import numpy as np
import pytest

import lsi


def saturated(n, d, seed):
    """Return three classes 30 apart, whose rows have next to no curvature, and 60 rows anywhere between."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    centres = random.normal(size=(3, d))
    centres *= 30 / np.linalg.norm(centres, axis=1, keepdims=True)
    X = centres[y] + random.normal(size=(n, d))
    rows = random.permutation(n)[:60]
    X[rows] = 30 * random.normal(size=(60, d))
    return X, y, rows


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize(("n", "d", "seed"), [(3000, 4, 3), (9007, 2, 4)])
def test_steps_that_are_short_for_the_posterior_may_be_long_for_the_fit(n, d, seed, posterior):
    """The posterior's metric alone saw a tenth of how slowly steps shrink: 2 % off, certified to 0.2 %."""
    X, y, rows = saturated(n, d, seed)
    rough, fine = (
        lsi.score(
            X,
            y,
            probe=lsi.LinearProbe(weight_decay=1e-7),
            posterior=posterior,
            method=lsi.Newton(tol=tol),
            subset=rows,
            audit=False,
            label_noise=False,
        ).to_frame()
        for tol in (1e-2, 1e-6)
    )
    error = (rough["lsi"] / fine["lsi"] - 1.0).abs() - fine["relative_error"]
    assert (error <= rough["relative_error"]).all()
