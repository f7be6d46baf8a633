"""What every posterior promises: a dense equivalent, and divergences equal to those of the dense matrices."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.build import posterior_at
from tests.cases import CASES
from tests.cases import POSTERIORS as NAMES
from tests.oracles import softmax_probe
from tests.oracles.gaussian_kl import dense_kl, exact_kl

from lsi.posterior import POSTERIORS, Removal

SOME = ["binary", "multiclass", "N < D", "class weights", "single-sample class", "no intercept", "weak prior"]
every = pytest.mark.parametrize("kind", NAMES)
some = pytest.mark.parametrize("name", SOME)


def head_of(case, seed=0, size=0.3):
    """Return weights whose sum over the classes is zero, in the span of the samples, as a fit's are."""
    mix = np.random.default_rng(seed).standard_normal((case.n_classes, len(case.design)))
    head = (mix - mix.mean(0)) @ case.design
    return size * head / np.abs(head).max()


def definition(kind, x, p, weight, prior_precision):
    """Return the precision in all classes from its definition, `(C·D, C·D)`."""
    c, d = p.shape[1], x.shape[1]
    per_sample = weight[:, None, None] * (p[:, :, None] * np.eye(c) - p[:, :, None] * p[:, None, :])
    if kind == "kron":
        data = np.kron(per_sample.mean(0), x.T @ x)
    else:
        data = np.einsum("nce,nd,nf->cdef", per_sample, x, x).reshape(c * d, c * d)
    data = np.diag(np.diagonal(data)) if kind == "diag" else data
    return data + prior_precision * np.eye(c * d)


def test_names():
    assert tuple(POSTERIORS) == NAMES
    assert all(POSTERIORS[name].name == name for name in NAMES)


@every
@some
def test_to_dense(kind, name):
    case, head = CASES[name], head_of(CASES[name])
    p = softmax_probe.probabilities(head, case.design)
    expected = definition(kind, case.design, p, case.weight, case.prior_precision)
    actual = posterior_at(case, kind, head).to_dense().numpy()
    assert_allclose(actual, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


def removals(case, posterior, head, left_out, deltas):
    """Return the removal of samples with its shift, accumulated from two blocks of rows."""
    model, to_model = posterior.model, posterior.model.contrasts.T
    own = torch.tensor(left_out)
    delta = to_model @ torch.from_numpy(deltas)
    delta = delta if posterior.basis is None else delta @ posterior.basis
    p = softmax_probe.probabilities(head, case.design)
    moved = [softmax_probe.probabilities(head + step, case.design) - p for step in deltas]
    change = np.stack(moved, 2)
    change[left_out, :, np.arange(len(left_out))] = 0
    shift = posterior.new_shift(len(left_out))
    for rows in (slice(0, 7), slice(7, None)):
        x = model.design.rows(0, len(p))[rows]
        posterior.add_shift(
            shift, x, model.weight[rows], torch.from_numpy(p[rows]), torch.from_numpy(change[rows])
        )
    x, _, curvature = model.curvature_at(own)
    return Removal(own, x, curvature, delta), Removal(own, x, curvature, delta, shift)


@every
@some
def test_divergence_is_that_of_the_dense_precisions(kind, name):
    case, head = CASES[name], head_of(CASES[name])
    posterior = posterior_at(case, kind, head)
    left_out = np.array([0, 4])
    deltas = np.stack([head_of(case, seed, 0.1) for seed in (1, 2)])
    kept, shifted = removals(case, posterior, head, left_out, deltas)
    x, tau = case.design, case.prior_precision
    p = softmax_probe.probabilities(head, x)
    first = definition(kind, x, p, case.weight, tau)
    frozen, moved = posterior.divergence(kept), posterior.divergence(shifted)
    for b, i in enumerate(left_out):
        keep = np.arange(len(x)) != i
        moved_p = softmax_probe.probabilities(head + deltas[b], x)
        for terms, now in ((frozen, p), (moved, moved_p)):
            second = definition(kind, x[keep], now[keep], case.weight[keep], tau)
            # 50 digits take long beyond 30 weights; the dense float64 value is good to 1e-13 there.
            dear = len(first) > 30
            exact = (
                dense_kl(first, second, deltas[b])
                if dear
                else exact_kl(first, second - first, deltas[b].ravel())
            )
            tolerance = {"rtol": 1e-9, "atol": 1e-12 if dear else 0}
            assert_allclose(float(terms.mean[b]), float(exact[0]), **tolerance)
            assert_allclose(float(terms.covariance[b]), float(exact[1]), **tolerance)


@every
def test_the_precision_of_a_memory_mapped_design(kind, tmp_path):
    case, head = CASES["multiclass"], head_of(CASES["multiclass"])
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, case.features.shape)
    stored[:] = case.features
    mapped = type(case)("mapped", stored, case.target)
    assert_allclose(
        posterior_at(mapped, kind, head).to_dense(), posterior_at(case, kind, head).to_dense(), rtol=1e-12
    )


@pytest.mark.parametrize("kind", ["diag", "kron"])  # full takes its shift at the removal's own weights
@pytest.mark.parametrize("name", ["binary", "multiclass", "class weights", "weak prior"])
def test_sensitivity_is_the_slope_of_the_divergence(kind, name):
    """What a row's changed probabilities add to the divergence, against a small change of them."""
    case, head = CASES[name], head_of(CASES[name])
    posterior = posterior_at(case, kind, head)
    model, own, row = posterior.model, torch.tensor([2, 5]), slice(8, 9)
    x, _, curvature = model.curvature_at(own)
    delta = 0.1 * torch.randn(
        2, *model.theta.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype
    )
    kept = Removal(own, x, curvature, delta)
    p, z = model.probabilities(model.design.rows(8, 9)), torch.zeros((1, model.n_classes, 2), dtype=x.dtype)
    sensitivity, both = posterior.sensitivity(kept), model.design.rows(8, 9).expand(2, 1, -1)
    own = p.expand(2, -1)[:, :, None]
    price = posterior.row_price(sensitivity, posterior.row_image(both), own, z.permute(2, 1, 0)).permute(
        2, 1, 0
    )
    change = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    change -= change.mean(1, keepdim=True)
    found = []
    for step in (1e-5, -1e-5):
        shift = posterior.new_shift(2)
        posterior.add_shift(shift, model.design.rows(8, 9), model.weight[row], p, step * change)
        found.append(posterior.divergence(Removal(own, x, curvature, delta, shift)).total)
    slope = (found[0] - found[1]) / 2e-5
    assert_allclose(slope, model.weight[row] * (change * price).sum((0, 1)), rtol=1e-6, atol=1e-9)
    moved = [
        posterior.divergence(Removal(own, x, curvature, delta + step * delta.flip(0))).mean
        for step in (1e-6, -1e-6)
    ]
    assert_allclose(
        (moved[0] - moved[1]) / 2e-6, (sensitivity.gradient * delta.flip(0)).sum((1, 2)), rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["diag", "kron"])
@pytest.mark.parametrize("name", ["binary", "multiclass", "class weights"])
def test_rows_of_each_removals_own_shift_the_curvature_as_common_ones_do(kind, name):
    posterior = posterior_at(CASES[name], kind, head_of(CASES[name]))
    model, rows = posterior.model, slice(3, 9)
    x, weight = model.design.rows(3, 9), model.weight[rows]
    p, generator = model.probabilities(x), torch.Generator().manual_seed(1)
    change = 0.1 * torch.randn((6, model.n_classes, 2), generator=generator, dtype=x.dtype)
    change -= change.mean(1, keepdim=True)
    common = posterior.new_shift(2)
    posterior.add_shift(common, x, weight, p, change)
    own = posterior.own_shift(
        posterior.row_image(x.expand(2, -1, -1)),
        weight.expand(2, -1),
        p.T.expand(2, -1, -1),
        change.permute(2, 1, 0),
    )
    assert_allclose(own, common, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", ["diag", "kron"])
@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_products_of_shifts_are_their_covariance_term_to_lowest_order(kind, name):
    posterior = posterior_at(CASES[name], kind, head_of(CASES[name]))
    model, generator = posterior.model, torch.Generator().manual_seed(2)
    empty = posterior.new_shift(1)
    shifts = [1e-5 * torch.randn(empty.shape, generator=generator, dtype=empty.dtype) for _ in range(2)]
    if kind == "kron":
        shifts = [shift + shift.mT for shift in shifts]
    products = posterior.shift_products(torch.stack(shifts, 1))[0]
    if kind == "diag":
        ratio = [shift[0] / posterior.precision for shift in shifts]
        exact = [[0.25 * float((a * b).sum()) for b in ratio] for a in ratio]
    else:
        k, d = model.theta.shape
        inverse = torch.linalg.inv(
            torch.kron(
                (posterior.class_basis * posterior.precision.class_values) @ posterior.class_basis.T,
                torch.diag(posterior.precision.feature_values),
            )
            + posterior.prior_precision * torch.eye(k * d, dtype=torch.float64)
        )
        whole = [
            inverse
            @ torch.kron(shift[0] / (model.n_samples - 1), torch.diag(posterior.precision.feature_values))
            for shift in shifts
        ]
        exact = [[0.25 * float((a @ b).trace()) for b in whole] for a in whole]
    assert_allclose(products, exact, rtol=1e-9)
