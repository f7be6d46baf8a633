"""The probe's sums over the data: objective, gradient, curvature and its change."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import helmert
from tests.build import untrained
from tests.cases import CASES, Case, clusters
from tests.oracles import softmax_probe

# More features than one panel of a symmetric product holds, and no multiple of it.
WIDE = Case("wide", *clusters(3, (20, 15, 10), 290), class_weight={0: 0.5, 1: 1.0, 2: 2.0})


def at(case, size, seed=0):
    """Return the model at random weights, and those weights in all classes."""
    head = size * np.random.default_rng(seed).standard_normal((case.n_classes, case.design.shape[1]))
    head -= head.mean(0)
    model = untrained(case)
    return replace(model, theta=model.contrasts.T @ torch.from_numpy(head)), head


def in_contrasts(model, dense):
    """Return a `(C·D, C·D)` matrix in the model's class-contrast coordinates."""
    classes = np.kron(model.contrasts.numpy(), np.eye(model.design.n_features))
    return classes.T @ dense @ classes


@pytest.mark.parametrize("case", [*CASES.values(), WIDE], ids=lambda case: case.name)
def test_objective_and_gradient(case):
    model, head = at(case, 0.1)
    value, slope = model.objective_and_gradient(model.theta)
    problem = (case.design, case.target, case.weight, case.weight_decay)
    n = len(case.target)
    assert_allclose(value, n * softmax_probe.objective(head, *problem), rtol=1e-12)
    expected = n * softmax_probe.gradient(head, *problem)
    assert_allclose(model.contrasts @ slope, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("case", [CASES["binary"], CASES["class weights"], WIDE], ids=lambda case: case.name)
def test_curvature(case):
    model, head = at(case, 0.1)
    expected = in_contrasts(model, softmax_probe.curvature(head, case.design, case.weight))
    assert_allclose(model.hessian(), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("case", [CASES["binary"], CASES["class weights"], WIDE], ids=lambda case: case.name)
@pytest.mark.parametrize("size", [1e-1, 1e-6])
def test_change_of_curvature_keeps_its_digits(case, size):
    model, head = at(case, 0.1)
    other, step = at(case, size, seed=1)
    change = model.hessian_change(other.theta).numpy()
    if size == 1e-6:
        # The oracle subtracts two curvatures, so let it take a larger step: the change is linear by now.
        smaller, larger = (
            softmax_probe.curvature(head + sign * 100 * step, case.design, case.weight) for sign in (-1, 1)
        )
        expected = in_contrasts(model, larger - smaller) / 200
    else:
        before, after = (
            softmax_probe.curvature(weights, case.design, case.weight) for weights in (head, head + step)
        )
        expected = in_contrasts(model, after - before)
    # Second order of a step of 1e-6 times features of size ten, third order of the oracle's 1e-4.
    assert_allclose(change, expected, atol=(1e-12 if size > 1e-6 else 1e-4) * np.abs(expected).max())


def test_the_loss_of_samples_that_are_almost_certain():
    # log softmax of a probability that rounds to one is zero; the loss itself is not.
    features = np.array([[40.0], [-40.0], [-40.0]])
    case = Case("certain", features, np.array([0, 1, 1]), weight_decay=1e-30, fit_intercept=False)
    model = untrained(case)
    model = replace(model, theta=model.contrasts.T @ torch.tensor([[0.5], [-0.5]]).double())
    value, _ = model.objective_and_gradient(model.theta)
    assert_allclose(value, 3 * np.log1p(np.exp(-40.0)), rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_contrasts_are_an_orthonormal_basis(n_classes):
    case = Case("classes", *clusters(0, (2,) * n_classes, 2))
    v = untrained(case).contrasts.numpy()
    assert_allclose(v.T @ v, np.eye(n_classes - 1), atol=1e-14)
    assert_allclose(v.sum(0), 0, atol=1e-14)
    # The oracle's basis spans the same space.
    other = helmert(n_classes).T
    assert_allclose(v @ v.T, other @ other.T, atol=1e-14)
