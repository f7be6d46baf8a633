"""Heads trained in strides against the protocol run plainly in double precision, and against every epoch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tests.build import retrain_engine, untrained
from tests.cases import CASES, POSTERIORS, Case, clusters
from tests.oracles import plain_sgd

import lsi
from lsi.cli.inputs.options import MethodOptions
from lsi.cli.inputs.settings import build_method
from lsi.features.design import Design
from lsi.loo.retrain.engine import RetrainEngine
from lsi.loo.retrain.strides import choice
from lsi.loo.retrain.strides.choice import GRIDS, Grid, worthwhile
from lsi.loo.retrain.strides.filters import Responses
from lsi.loo.retrain.strides.modes import TOP, curvature_modes, principal_axes
from lsi.loo.retrain.strides.trainer import StrideTrainer
from lsi.probes.softmax.model import SoftmaxModel

LONG = lsi.Retrain(epochs=500, lr=0.02)
HEAVY = lsi.Retrain(epochs=500, lr=0.1, momentum=0.5, nesterov=False)
FLOAT32 = 1e-4  # what 500 epochs in float32 leave in a difference of two heads


@pytest.fixture(autouse=True)
def whatever_the_size(monkeypatch):
    """Let datasets go in strides that are too small for them to pay."""
    monkeypatch.setattr(choice, "LEAST_WORK", 0.0)


def medium(**settings):
    """More samples than pilots are good for, with classes that overlap."""
    return Case("medium", *clusters(20, (30, 25, 25), 6, distance=1.0), **settings)


def plain(case, settings, left_out=None, along=None):
    """Return one head trained plainly in float64, `(C, D)`, or its weights by epoch."""
    names = ("lr", "momentum", "nesterov", "seed")
    return plain_sgd.train(
        case.features,
        case.target,
        case.n_classes,
        weight_decay=case.weight_decay,
        weight=case.weight,
        left_out=left_out,
        fit_intercept=case.fit_intercept,
        dtype=torch.float64,
        epochs=settings.epochs,
        along=along,
        **{name: getattr(settings, name) for name in names},
    )


def strides(case, settings, wholes, left_out):
    """Return differences from the full-data head at the end, `(B, C, D)`, along its path."""
    trainer = StrideTrainer(untrained(case, torch.float32), settings)
    change, _ = trainer.train(trainer.path(wholes), torch.tensor(left_out), None, None)
    return change.numpy()


@pytest.mark.parametrize("settings", [LONG, HEAVY], ids=["nesterov", "heavy ball"])
@pytest.mark.parametrize(
    "name", ["multiclass", "binary", "N < D", "class weights", "no intercept", "constant column"]
)
def test_differences(name, settings):
    case, left_out = CASES[name], [0, 5, 11]
    wholes = plain(case, settings, along=GRIDS[0].nodes(settings.epochs))
    exact = np.stack([plain(case, settings, i) - wholes[settings.epochs] for i in left_out])
    found = strides(case, settings, wholes, left_out)
    error = np.linalg.norm((found - exact).reshape(3, -1), axis=1)
    assert_array_equal(error <= 5e-4 * np.linalg.norm(exact.reshape(3, -1), axis=1), True)


def test_finer_grids_come_nearer():
    case, left_out = medium(), [3, 40]
    every = plain(case, LONG, along=range(LONG.epochs + 1))
    exact = np.stack([plain(case, LONG, i) for i in left_out]) - every[LONG.epochs]
    wholes = [{node: every[node] for node in grid.nodes(LONG.epochs)} for grid in (Grid(0.4, 200), *GRIDS)]
    error = [np.abs(strides(case, LONG, each, left_out) - exact).max() for each in wholes]
    assert error[0] > 10 * error[1] > 10 * error[2]


@pytest.mark.parametrize("settings", [LONG, HEAVY], ids=["nesterov", "heavy ball"])
@pytest.mark.parametrize("epochs", [1, 2, 17])
def test_filter_is_the_optimizer(settings, epochs):
    # One weight whose gradient is λθ + f(t), f a cubic: torch.optim.SGD itself says where it goes.
    rates, offsets = [0.0, 0.3, 2.0], [-7, -2, 0, epochs]
    cubic = np.polynomial.Polynomial([0.3, -0.2, 0.01, 0.002])
    theta = torch.nn.Parameter(torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64))
    optimizer = torch.optim.SGD([theta], settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)
    forcing, states = [cubic(offset) for offset in offsets], []
    for epoch in range(-3, epochs + 1):  # a few epochs for a velocity that is not zero
        if epoch in (0, epochs):
            states.append([theta.detach().clone(), optimizer.state[theta]["momentum_buffer"].clone()])
        theta.grad = torch.tensor(rates) * theta.detach() + cubic(epoch)
        optimizer.step()
    stride = Responses.of(torch.tensor(rates, dtype=torch.float64), epochs, 3, settings).at(offsets)
    inputs = torch.stack([*states[0], *(torch.full((3,), value) for value in forcing)], 1)
    assert_allclose((stride.weights * inputs).sum(1), states[1][0], rtol=1e-5, atol=1e-5)
    assert_allclose((stride.velocity * inputs).sum(1), states[1][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["multiclass", "class weights", "N < D"])
def test_modes_diagonalise_the_curvature(name):
    case = CASES[name]
    model = untrained(case, torch.float64)
    model = replace(model, design=model.design.rotated(principal_axes(model.design)))
    weights = torch.randn(model.design.n_features, case.n_classes, dtype=torch.float64)
    modes = curvature_modes(model, weights)
    assert len(modes.rate) <= TOP
    x = model.design.rows(0, model.n_samples)
    p = torch.softmax(x @ weights, 1)
    s = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) * model.weight[:, None, None]
    s = model.contrasts.T @ s @ model.contrasts
    dense = torch.einsum("nab,nd,ne->daeb", s, x, x).reshape(len(modes.rate), -1) / model.n_samples
    dense = modes.top.T @ dense @ modes.top
    assert_allclose(dense, torch.diag(modes.rate - case.weight_decay), atol=1e-10)
    there = torch.randn(len(modes.rate), 2, dtype=torch.float64)
    assert_allclose(modes.back(modes.into(there.clone())), there, atol=1e-12)


def test_large_curvature_is_diagonalised_at_the_top_only():
    features, target = clusters(0, [30] * 10, 40)
    model = untrained(Case("wide", features, target), torch.float64)
    model = replace(model, design=model.design.rotated(principal_axes(model.design)))
    modes = curvature_modes(model, torch.zeros(model.design.n_features, 10, dtype=torch.float64))
    assert modes.top.shape == (TOP, TOP)
    # All classes equally likely: S' is a tenth of the identity, and the features are uncorrelated.
    spread = model.design.rows(0, model.n_samples).square().mean(0) / 10 + model.weight_decay
    assert_allclose(modes.rate.view(-1, 9).sort(0)[0], spread[:, None].expand(-1, 9).sort(0)[0], rtol=1e-9)


def test_nodes():
    for grid in GRIDS:
        nodes = grid.nodes(1000, record_every=30)
        assert nodes == sorted(set(nodes)) and {*range(0, 1000, 30), 1000} <= {*nodes}
        assert max(np.diff(nodes)) <= grid.longest
    assert worthwhile(20, None) == [] and worthwhile(1000, 1) == []
    assert [len(nodes) < 1000 / 3 for nodes in worthwhile(1000, None)] == [True, True]


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_scores(posterior):
    case = medium(class_weight={0: 1.0, 1: 2.0, 2: 0.5})
    fast, every = (case.score(posterior, replace(LONG, tol=tol)) for tol in (1e-3, None))
    assert 0 < fast.manifest["training"]["strides"][0] < 100
    assert "strides" not in every.manifest["training"]
    assert_allclose(fast.lsi, every.lsi, rtol=1e-3)
    assert_allclose(
        fast.to_frame()["loo_probability"], every.to_frame()["loo_probability"], rtol=0, atol=1e-4
    )


def test_recorded_epochs_and_seeds():
    case, settings = medium(), replace(LONG, record_every=125, n_seeds=2)
    fast, every = (case.score("diag", replace(settings, tol=tol)).to_frame() for tol in (1e-3, None))
    columns = ["lsi", "lsi_std", *(f"lsi_epoch_{epoch}" for epoch in (125, 250, 375, 500))]
    assert [name for name in fast.columns if name.startswith("lsi_epoch")] == columns[2:]
    for column in columns:
        error = np.abs(fast[column] - every[column])
        size = every["lsi" if column == "lsi_std" else column]
        assert_array_equal(error <= 1e-3 * size, True)
    assert_allclose(fast["lsi_epoch_500"], fast["lsi"], rtol=1e-12)


def test_block_size():
    case = medium()
    # Few samples where every head is a block of its own.
    for size, index in ((1, torch.arange(20)), (7, torch.arange(len(case.target)))):
        whole, parts = (
            retrain_engine(case, "diag", LONG, block=block).run(index).lsi for block in (None, size)
        )
        assert_allclose(parts, whole, rtol=1e-5)


def test_a_copy_elsewhere_trains_to_the_same_bits():
    case = medium()
    path = plain(case, LONG, along=GRIDS[0].nodes(LONG.epochs))
    wholes = {node: whole.astype(np.float32) for node, whole in path.items()}
    here = choice.Strides(untrained(case, torch.float32), LONG)
    index, ticks = torch.tensor([2, 30, 31]), []
    first, _ = here.train(wholes, index, ticks.append, None)
    assert sum(ticks) == LONG.epochs
    elsewhere, _ = copy.deepcopy(here).train(copy.deepcopy(wholes), index, None, None)
    assert_array_equal(elsewhere, first)
    # A path that was kept of other weights is not taken for this one.
    other, _ = here.train({node: 1.01 * whole for node, whole in wholes.items()}, index, None, None)
    assert float((other - first).abs().max()) > 0
    assert_array_equal(here.train(wholes, index, None, None)[0], first)
    assert first.dtype == torch.float64


def test_progress_before_the_first_block():
    case, seen = medium(), []
    lsi.score(case.features, case.target, method=LONG, audit=False, progress=lambda *what: seen.append(what))
    first = next(place for place, what in enumerate(seen) if what[0] != "fit")
    assert seen[:first] == [("fit", n, 500) for n in range(1, 501)]
    assert all(what[0] == "leave-one-out" for what in seen[first:])


def test_pilots_can_refuse(monkeypatch):
    case, subset = medium(), range(20)
    every = case.score("diag", replace(LONG, tol=None), subset=subset)
    monkeypatch.setattr(choice, "PILOT_SHARE", 0.0)
    monkeypatch.setattr(choice, "ROUNDING", 0.0)
    refused = case.score("diag", LONG, subset=subset)
    assert "strides" not in refused.manifest["training"]
    assert_allclose(refused.lsi, every.lsi, rtol=FLOAT32)


@pytest.mark.parametrize("record_every", [None, 250])
def test_doubtful_heads_are_trained_epoch_by_epoch(record_every, monkeypatch):
    case, settings = medium(), replace(LONG, record_every=record_every)
    chosen, train = [], choice.Strides.train

    def doubting(self, wholes, index, tick, record):
        heads, doubtful = train(self, wholes, index, tick, record)
        if len(index) == len(case.target):  # not the pilots
            heads[::3], doubtful[::3] = float("nan"), True
            chosen.append(index[doubtful])
        return heads, doubtful

    monkeypatch.setattr(choice.Strides, "train", doubting)
    found = case.score("diag", settings)
    assert len(chosen) == 1 and found.manifest["training"]["strides"][0] > 0
    every = case.score("diag", replace(settings, tol=None))
    assert_allclose(found.lsi, every.lsi, rtol=1e-3)


def test_strides_too_long_for_the_training_are_noticed():
    # A learning rate near the largest that is stable: scores are right all the same.
    case = medium()
    wild = lsi.Retrain(epochs=300, lr=0.8, momentum=0.9)
    fast, every = (case.score("diag", replace(wild, tol=tol)) for tol in (1e-3, None))
    assert_allclose(fast.lsi, every.lsi, rtol=2e-3)


def test_small_runs_compute_every_epoch(monkeypatch):
    monkeypatch.setattr(choice, "LEAST_WORK", 2e10)
    assert "strides" not in medium().score("diag", LONG).manifest["training"]
    assert choice.grids_to_try(lsi.Retrain(), 5000, 513, 10, 256) == worthwhile(1000, None)
    assert choice.grids_to_try(lsi.Retrain(tol=None), 5000, 513, 10, 256) == []
    assert choice.grids_to_try(lsi.Retrain(), 5000, 513, 10, 4) == []
    assert choice.grids_to_try(lsi.Retrain(), 5000, 513, 200, 256) == []


@pytest.mark.parametrize("given, tol", [(None, 1e-3), (1e-2, 1e-2), ("none", None)])
def test_tolerance_on_the_command_line(given, tol):
    assert build_method(MethodOptions(method="retrain", tol=given)) == lsi.Retrain(tol=tol)


@pytest.mark.parametrize("n_samples, heads", [(200, 256), (20_000, 244), (100_000, 48), (250_000, 32)])
def test_an_interruption_loses_little(n_samples, heads):
    model = SoftmaxModel.start(
        Design(torch.empty(1, 512).expand(n_samples, 512), dtype=torch.float32), None, None, 0.0, 10
    )
    engine = RetrainEngine(model, None, lsi.Retrain(), False)
    assert engine.block_size() == heads


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), True])
def test_tolerance_out_of_range(tol):
    with pytest.raises(lsi.InputError, match="tol"):
        lsi.Retrain(tol=tol)
