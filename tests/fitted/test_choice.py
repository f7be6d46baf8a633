"""Rows are taken as a dense, obvious greedy search would take them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

import lsi
from lsi.errors import InputError

RNG = np.random.default_rng(8)
WD = 1e-2


def draw(n, d, c=3):
    X = RNG.standard_normal((n, d))
    return X, np.r_[np.arange(c), RNG.integers(0, c, n - c)]


def greedy(fitted, X, new, budget):
    """Take rows one by one with dense matrices in all classes; the intercept is the last column."""
    (engine,) = fitted.engines()
    model, basis = engine.model, engine.posterior.basis
    theta = (model.contrasts @ model.theta).numpy()
    theta = theta if basis is None else theta @ basis.numpy().T
    rows, data = (np.hstack([each, np.ones((len(each), 1))]) for each in (new, X))

    def brought(x):
        p = softmax(theta @ x)
        return np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x))

    H = sum(brought(x) for x in data) + (len(X) - 1) * WD * np.eye(theta.size)
    taken, gains = [], []
    for _ in range(budget):
        now = np.linalg.slogdet(H)[1]
        found = [
            -np.inf if j in taken else 0.5 * (np.linalg.slogdet(H + brought(x))[1] - now)
            for j, x in enumerate(rows)
        ]
        taken.append(int(np.argmax(found)))
        gains.append(max(found))
        H = H + brought(rows[taken[-1]])
    return taken, gains


@pytest.mark.parametrize(("size", "posterior"), [((40, 3), "diag"), ((40, 3), "kron"), ((8, 12), "full")])
def test_it_takes_what_a_dense_search_takes(size, posterior):
    X, y = draw(*size)
    new = draw(30, size[1])[0] * 2
    fitted = lsi.fit(X, y, probe=lsi.LinearProbe(WD), posterior=posterior)
    found = fitted.choose(new, 12)
    taken, gains = greedy(fitted, X, new, 12)
    assert found["position"].tolist() == taken
    assert_allclose(found["gain"], gains, rtol=1e-8)


def test_a_copy_of_a_row_that_was_taken_is_worth_less():
    X, y = draw(40, 3)
    new = draw(20, 3)[0]
    new[1:4] = new[0] = 3.0
    found = lsi.fit(X, y, probe=lsi.LinearProbe(WD)).choose(new, 20)
    copies = found["gain"][found["position"] < 4].to_numpy()
    assert (copies[1:] < 0.9 * copies[:-1]).all()


def test_all_rows_can_be_taken_and_heads_add_up():
    X, y = draw(40, 3)
    new = draw(6, 3)[0]
    several = np.stack([y == 1, y == 1], 1).astype(int)
    probe = lsi.SigmoidProbe(WD)
    both = lsi.fit(X, several, probe=probe).choose(pd.DataFrame(new, index=list("abcdef")), 6)
    one = lsi.fit(X, y == 1, probe=probe).choose(new, 6)
    assert sorted(both["candidate"]) == list("abcdef")
    assert_allclose(both["gain"], 2 * one["gain"], rtol=1e-10)


@pytest.mark.parametrize("budget", [0, 7])
def test_a_budget_that_cannot_be_spent_is_refused(budget):
    X, y = draw(40, 3)
    with pytest.raises(InputError, match=f"between 1 and the 6 rows of X, got {budget}"):
        lsi.fit(X, y, probe=lsi.LinearProbe(WD)).choose(X[:6], budget)
