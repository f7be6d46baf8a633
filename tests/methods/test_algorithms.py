"""Training algorithms, many copies at once, against plain loops of `torch.optim`, and their settings."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from tests.cases import CASES, POSTERIORS, clusters
from tests.oracles import network as oracle
from torch import nn

import lsi
from lsi.methods.algorithms import Schedule

X, Y = clusters(2, (8, 7, 6), 4)
PICKS = [0, 5, 13]
SCHEDULERS = torch.optim.lr_scheduler


def perceptron():
    return oracle.perceptron((4, 5, 3))


def score(probe=None, subset=PICKS, posterior="diag", **settings):
    probe = lsi.MLPProbe(hidden=(5,), weight_decay=1e-3) if probe is None else probe
    method = lsi.Retrain(**{"epochs": 30, "lr": 0.05} | settings)
    return lsi.score(X, Y, probe=probe, method=method, subset=subset, posterior=posterior, audit=False)


# Settings of the library, and the same for the oracle.
ALGORITHMS = {
    "adam": ({"optimizer": "adam", "lr": 0.01}, {"algorithm": "adam", "lr": 0.01}),
    "adam betas": (
        {"optimizer": lsi.Adam(betas=(0.8, 0.9)), "lr": 0.01},
        {"algorithm": "adam", "lr": 0.01, "betas": (0.8, 0.9)},
    ),
    "adamw": (
        {"optimizer": lsi.Adam(decoupled=True), "lr": 0.01},
        {"algorithm": "adamw", "lr": 0.01},
    ),
    "sam": ({"optimizer": lsi.SAM(rho=0.3)}, {"algorithm": "sam", "rho": 0.3}),
    "sam minibatch": ({"optimizer": "sam", "batch_size": 6}, {"algorithm": "sam", "batch_size": 6}),
    "clipping": (
        {"optimizer": lsi.DPSGD(noise_multiplier=0.0, max_grad_norm=0.4)},
        {"algorithm": "dp", "clip": 0.4},
    ),
    "dp-sgd": (
        {"optimizer": lsi.DPSGD(noise_multiplier=0.5, max_grad_norm=0.4), "batch_size": 8},
        {"algorithm": "dp", "clip": 0.4, "noise": 0.5, "batch_size": 8},
    ),
    "minibatch": ({"batch_size": 8}, {"batch_size": 8}),
    "no momentum": ({"momentum": 0.0, "nesterov": False}, {"momentum": 0.0, "nesterov": False}),
    "plain momentum": ({"nesterov": False, "batch_size": 8}, {"nesterov": False, "batch_size": 8}),
    "cosine": (
        {"schedule": "cosine", "batch_size": 8},
        {"scheduler": lambda o: SCHEDULERS.CosineAnnealingLR(o, 30), "batch_size": 8},
    ),
    "step": (
        {"schedule": Schedule("step", step_size=7, gamma=0.5)},
        {"scheduler": lambda o: SCHEDULERS.StepLR(o, 7, 0.5)},
    ),
    "exponential": (
        {"schedule": Schedule("exponential", gamma=0.9), "optimizer": "adam", "lr": 0.01},
        {"scheduler": lambda o: SCHEDULERS.ExponentialLR(o, 0.9), "algorithm": "adam", "lr": 0.01},
    ),
}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


@every_algorithm
def test_networks(name):
    settings, plain = ALGORITHMS[name]
    whole, *others = (oracle.train(perceptron, X, Y, i, **plain) for i in (None, *PICKS))
    expected = oracle.lsi(whole, dict(zip(PICKS, others, strict=True)), X, Y)
    # Adam divides by the root of tiny numbers, which amplifies rounding.
    assert_allclose(score(**settings).lsi, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", ["adam", "sam", "dp-sgd", "cosine"])
def test_modules(name):
    settings, _ = ALGORITHMS[name]
    module = lsi.ModuleProbe(perceptron, weight_decay=1e-3)
    assert_allclose(score(module, **settings).lsi, score(**settings).lsi, rtol=1e-5, atol=1e-10)


@cache  # the same for every posterior
def linear_copies(name):
    """Return the full-data head and the heads without three samples, trained one at a time."""
    case, (_, plain) = CASES["class weights"], ALGORITHMS[name]
    n, d, c = len(case.target), case.features.shape[1], case.n_classes
    picks = [0, n // 2, n - 1]
    whole, *others = (
        oracle.train(lambda: nn.Linear(d, c), case.features, case.target, i, weight=case.weight, **plain)
        for i in (None, *picks)
    )
    return whole, dict(zip(picks, others, strict=True))


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("name", ["adam", "sam", "dp-sgd", "minibatch", "cosine"])
def test_linear_probes(name, posterior):
    case, (settings, _) = CASES["class weights"], ALGORITHMS[name]
    whole, copies = linear_copies(name)
    expected = oracle.lsi(whole, copies, case.features, case.target, posterior, weight=case.weight)
    method = lsi.Retrain(**{"epochs": 30, "lr": 0.05} | settings)
    assert_allclose(case.score(posterior, method, subset=list(copies)).lsi, expected, rtol=1e-5, atol=1e-10)


def test_sam_is_another_algorithm():
    assert np.abs(score(optimizer="sam").lsi / score().lsi - 1).min() > 1e-3


def test_noise_is_shared_by_all_copies_and_drawn_from_the_seed():
    noisy = {"optimizer": lsi.DPSGD(noise_multiplier=2.0, max_grad_norm=0.5)}
    first, again = score(**noisy).lsi, score(**noisy, subset=PICKS[::-1]).lsi[::-1]
    assert_allclose(first, again, rtol=1e-9)
    assert np.abs(score(**noisy, seed=6).lsi / first - 1).min() > 1e-3
    # Copies that saw different noise would be apart by far more than one sample does.
    silent = score(optimizer=lsi.DPSGD(noise_multiplier=0.0, max_grad_norm=0.5)).lsi
    assert (first < 100 * silent).all()


def test_opacus_takes_the_same_steps():
    opacus = pytest.importorskip("opacus")
    settings = {"optimizer": lsi.DPSGD(noise_multiplier=0.7, max_grad_norm=0.4)}
    finals = []
    for left_out in (None, *PICKS):
        keep = torch.arange(len(X)) != (-1 if left_out is None else left_out)
        x, y = torch.tensor(X)[keep], torch.tensor(Y)[keep]
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # opacus warns that its hooks keep activations
            torch.manual_seed(5)
            module = opacus.GradSampleModule(perceptron().double())
            inner = torch.optim.SGD(module.parameters(), 0.05, 0.9, nesterov=True, weight_decay=1e-3)
            optimizer = opacus.optimizers.DPOptimizer(
                inner, noise_multiplier=0.7, max_grad_norm=0.4, expected_batch_size=len(x),
                generator=torch.Generator().manual_seed(5),
            )  # fmt: skip
            for _ in range(30):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x), y).backward()
                optimizer.step()
        finals.append(perceptron().double())
        finals[-1].load_state_dict(module._module.state_dict())
    whole, *others = finals
    expected = oracle.lsi(whole, dict(zip(PICKS, others, strict=True)), X, Y)
    assert_allclose(score(**settings).lsi, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("kind", ["network", "linear"])
def test_mean_and_spread_over_seeds(kind):
    probe = lsi.MLPProbe(hidden=(5,)) if kind == "network" else lsi.LinearProbe()
    each = np.array([score(probe, seed=seed).lsi for seed in (5, 6, 7)])
    scores = score(probe, n_seeds=3)
    assert_allclose(scores.lsi, each.mean(0), rtol=1e-9)
    assert_allclose(scores.to_frame()["lsi_std"], each.std(0, ddof=1), rtol=1e-7)
    told = scores.manifest["training"]
    pairs = [spearmanr(each[a], each[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert told["seeds"] == [5, 6, 7]
    assert told["rank_correlation_between_seeds"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("kind", ["network", "linear", "linear, adam"])
def test_scores_along_the_training(kind):
    probe = lsi.MLPProbe(hidden=(5,)) if kind == "network" else lsi.LinearProbe()
    settings = {"optimizer": "adam", "lr": 0.01} if kind == "linear, adam" else {}
    subset = list(range(8))
    scores = score(probe, subset, epochs=25, record_every=10, **settings)
    table = scores.to_frame()
    recorded = [name for name in table if name.startswith("lsi_epoch_")]
    assert recorded == ["lsi_epoch_10", "lsi_epoch_20", "lsi_epoch_25"]
    for epochs in (10, 20, 25):
        alone = score(probe, subset, epochs=epochs, **settings).lsi
        assert_allclose(table[f"lsi_epoch_{epochs}"], alone, rtol=1e-6)
    told = scores.manifest["training"]
    assert told["recorded_epochs"] == [10, 20, 25]
    ranks = [spearmanr(table[name], scores.lsi).statistic for name in recorded]
    assert_allclose(told["rank_correlation_with_end"], ranks)


def test_recorded_scores_survive_saving(tmp_path):
    scores = score(epochs=10, record_every=5, n_seeds=2)
    scores.save(tmp_path / "scores")
    again = lsi.load(tmp_path / "scores")
    assert_array_equal(again.to_frame()["lsi_epoch_5"], scores.to_frame()["lsi_epoch_5"])
    assert again.manifest["training"] == scores.manifest["training"]


def test_the_audit_follows_the_algorithm():
    for name in ("adam", "sam", "dp-sgd", "cosine"):
        settings = {"epochs": 30, "lr": 0.05} | ALGORITHMS[name][0]
        probe = lsi.MLPProbe(hidden=(5,))
        audit = lsi.score(X, Y, probe=probe, method=lsi.Retrain(**settings), subset=PICKS, audit=2).audit
        assert audit.max_relative_error < 1e-5, name


def test_what_the_manifest_says():
    scores = score(optimizer=lsi.DPSGD(noise_multiplier=4.0), schedule="cosine")
    method = scores.manifest["config"]["method"]
    assert method["optimizer"] == {"kind": "dp-sgd", "noise_multiplier": 4.0, "max_grad_norm": 1.0}
    assert method["schedule"] == "cosine"
    assert scores.manifest["training"]["privacy"]["epsilon"] == pytest.approx(
        lsi.DPSGD(noise_multiplier=4.0).epsilon(30, 1e-5)
    )


def test_epsilon_is_that_of_opacus():
    accountants = pytest.importorskip("opacus.accountants")
    for sigma, epochs in ((1.0, 1), (8.0, 30), (40.0, 1000)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the range of its orders
            accountant = accountants.PRVAccountant()
            accountant.history = [(sigma, 1.0, epochs)]
            numeric = accountant.get_epsilon(1e-5)
        assert lsi.DPSGD(noise_multiplier=sigma).epsilon(epochs, 1e-5) == pytest.approx(numeric, abs=0.02)
    assert lsi.DPSGD(noise_multiplier=0.0).epsilon(1, 1e-5) == np.inf
    assert lsi.DPSGD(noise_multiplier=1e6).epsilon(1, 1e-5) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "adamm"},
        {"optimizer": 3},
        {"schedule": "cosinus"},
        {"batch_size": 1},
        {"record_every": 0},
        {"record_every": 31, "epochs": 30},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(lsi.InputError):
        lsi.Retrain(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: lsi.Adam(betas=(0.9, 1.0)),
        lambda: lsi.Adam(eps=0),
        lambda: lsi.SAM(rho=0),
        lambda: lsi.DPSGD(noise_multiplier=-1),
        lambda: lsi.DPSGD(max_grad_norm=0),
        lambda: lsi.DPSGD().epsilon(1, 0.0),
        lambda: lsi.Schedule("step", step_size=0),
        lambda: lsi.Schedule("step", gamma=-1.0),
    ],
)
def test_algorithms_out_of_range(wrong):
    with pytest.raises(lsi.InputError):
        wrong()


def test_a_batch_of_one_sample_is_refused():
    for probe in (lsi.LinearProbe(), lsi.MLPProbe()):
        with pytest.raises(lsi.InputError, match="Use 6"):
            score(probe, batch_size=5)
