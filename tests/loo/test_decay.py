"""The weight decay of the highest leave-one-out likelihood: how it is judged, and how it is searched for."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.oracles import ridge, softmax_probe
from tests.oracles.brute_force import LeaveOneOut

from lsi.errors import ConvergenceError, InputError
from lsi.features.design import Design
from lsi.loo.decay import (
    SoftmaxLikelihoods,
    affordable,
    chosen_rows,
    heaviest_decay,
    ridge_log_likelihoods,
    search,
)
from lsi.probes.ridge import RidgeModel
from lsi.probes.softmax.model import SoftmaxModel

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 4))
Y = (X[:, 0] + RNG.normal(size=40) > 0).astype(int) + (X[:, 1] > 1)


def untrained(x, y, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    design = Design(x, True, torch.float64)
    return SoftmaxModel.start(design, torch.from_numpy(y), torch.from_numpy(weight), 1.0, int(y.max()) + 1)


@pytest.mark.parametrize(("x", "weight"), [(X, None), (X, 0.5 + (Y == 1)), (np.hstack([X] * 15), None)])
def test_the_likelihood_is_that_of_brute_force_to_first_order(x, weight):
    design = np.column_stack([x, np.ones(len(x))])
    given = np.ones(len(Y)) if weight is None else weight
    likelihoods = SoftmaxLikelihoods(untrained(x, Y, weight))
    found, expected = [], []
    for decay in (1.0, 0.3, 0.1, 0.03):
        oracle = LeaveOneOut(design, Y, 3, decay, given)
        exact = [
            np.log(softmax_probe.probabilities(oracle.head(i), design[[i]])[0, Y[i]]) for i in range(len(Y))
        ]
        found.append(likelihoods(decay * len(Y)).numpy())
        expected.append(given / given.mean() * np.array(exact))
    # First order: the curvature of a removal is that at the full-data weights.
    assert_allclose(found[0], expected[0], atol=0.2)
    assert_allclose(np.mean(found, 1), np.mean(expected, 1), rtol=0.1)
    assert np.mean(found, 1).argmax() == np.mean(expected, 1).argmax()


def test_the_likelihood_of_a_ridge_is_that_of_brute_force():
    x = np.column_stack([X, np.ones(len(X))])
    y = x @ RNG.normal(size=(5, 2)) + RNG.normal(size=(40, 2))
    model, decay = RidgeModel.of(Design(x, dtype=torch.float64), torch.from_numpy(y), 1.0), 0.2
    keep = ~np.eye(40, dtype=bool)
    left_out = np.stack([y[i] - ridge.fit(x[keep[i]], y[keep[i]], decay) @ x[i] for i in range(40)]) ** 2
    variance = left_out.mean(0)
    expected = -0.5 * (np.log(2 * np.pi * variance) + left_out / variance).sum(1)
    assert_allclose(ridge_log_likelihoods(model, decay * 40).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("best", [2e-6, 0.011, 0.027, 4.0])
def test_the_search_finds_the_top_of_a_curve_and_does_not_go_far_below(best):
    tried = []

    def evaluate(penalty):
        tried.append(penalty / 50)
        return torch.full((50,), -(np.log(penalty / 50 / best) ** 2), dtype=torch.float64)

    decays, likelihoods = search(evaluate, 30.0, 50)
    assert abs(np.log10(decays[likelihoods.argmax()] / best)) < 0.27  # nearest of 1, 3, 10, …
    assert (np.diff(decays) > 0).all()
    assert min(tried) > best / 200
    assert len(tried) == len(decays)


def test_noise_does_not_end_the_search_at_the_first_small_fall():
    values = {1: -1.0, 0: -1.001, -1: -0.5, -2: -2.0}
    noise = torch.linspace(-1, 1, 50, dtype=torch.float64)

    def evaluate(penalty):
        exponent = round(np.log10(penalty / 50))
        # Independent noise of size one: a fall of a thousandth is none.
        return values.get(exponent, -3.0) + noise.roll(17 * exponent)

    decays, likelihoods = search(evaluate, 10.0, 50)
    assert 0.03 <= decays[likelihoods.argmax()] <= 0.3


def test_values_too_light_to_be_fitted_end_the_search_and_the_heaviest_is_an_error():
    def evaluate(penalty):
        if penalty < 5:
            raise ConvergenceError("too light")
        return torch.full((50,), -penalty, dtype=torch.float64)

    decays, likelihoods = search(evaluate, 10.0, 50)
    assert decays[likelihoods.argmax()] == 0.1
    with pytest.raises(ConvergenceError):
        search(evaluate, 0.01, 50)


def test_many_classes_are_searched_on_some_of_them_with_enough_rows_each():
    for n, d, c in [(50_000, 513, 10), (50_000, 513, 100), (1_281_167, 769, 1000), (3000, 65, 200)]:
        rows, classes = affordable(n, d, c)
        k = min(rows, d) * (classes - 1)
        assert (rows + k) * k**2 <= 5.2e10
        assert rows >= min(20 * classes, n * classes // c) or classes == 2
    assert affordable(1797, 65, 10) == (1797, 10)


def test_rows_are_random_but_the_same_and_hold_two_of_every_class():
    y = np.zeros(5000, dtype=int)
    y[[7, 900, 1800, 4000]] = [1, 2, 1, 2]
    rows = chosen_rows(y, 50, 3)
    assert len(rows) == 50
    assert (np.diff(rows) > 0).all()
    assert np.bincount(y[rows]).tolist() == [46, 2, 2]
    np.testing.assert_array_equal(rows, chosen_rows(y, 50, 3))
    assert len(np.unique(np.arange(5000)[chosen_rows(np.arange(5000) % 9, 90, 4)] % 9)) == 4


def test_a_likelihood_that_is_not_determined_is_an_error():
    x = np.eye(6)[:, :5]
    model = RidgeModel.of(Design(x, dtype=torch.float64), torch.ones((6, 1), dtype=torch.float64), 1.0)
    with pytest.raises(InputError, match="not determined"):
        ridge_log_likelihoods(model, 0.0)
    assert heaviest_decay(Design(np.zeros((3, 2)), dtype=torch.float64), 2) > 0
