"""Corrections from sampled rows: what they add up to, what they must see, what their certificates promise."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.build import posterior_at, untrained
from tests.cases import CASES, Case

import lsi
from lsi.loo.newton import engine
from lsi.loo.newton.effects import Effects
from lsi.loo.newton.neighbours import Neighbours
from lsi.loo.newton.rows import draw

WHOLE = torch.float64


def rare_categories(n=3000, gaussians=8, sizes=(2, 2, 3, 4, 6, 10, 20, 40), seed=0):
    """Return features with standardised one-hot columns of rare categories, labels, and the rows in them."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, gaussians + len(sizes)))
    rows = random.permutation(n)[: sum(sizes)]
    for column, members in enumerate(np.split(rows, np.cumsum(sizes)[:-1]), gaussians):
        one = np.isin(np.arange(n), members).astype(float)
        X[:, column] = (one - one.mean()) / one.std()
    logits = 2.0 * X[:, 0] + X[:, 1] + random.logistic(size=n)
    return X, (logits > 0).astype(int), rows


def sparse_twins(n=9000, pairs=12, seed=1):
    """Return unscaled sparse features of which some columns are held by two rows, labels, and these rows."""
    random = np.random.default_rng(seed)
    X = random.poisson(0.2, size=(n, 8 + pairs)).astype(float)
    X[:, 8:] = 0.0
    rows = random.permutation(n)[: 2 * pairs].reshape(pairs, 2)
    for column, pair in enumerate(rows, 8):
        X[pair, column] = 10.0 * random.uniform(0.5, 1.5, 2)
    logits = X[:, :8] @ random.normal(size=8) + random.logistic(size=n)
    return X, (logits > np.median(logits)).astype(int), rows.ravel()


def near_duplicates(n=3000, seed=2):
    """Return dense features in which some rows have near copies, labels, and these rows."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 20))
    X[:20] *= 6.0
    X[20:60] = np.repeat(X[:20], 2, axis=0) + 0.02 * random.normal(size=(40, 20))
    y = np.digitize(X @ random.normal(size=20) / 3 + random.logistic(size=n), [-1.0, 1.0])
    y[20:60] = np.repeat(y[:20], 2)
    return X, y, np.arange(60)


DATA = {"rare categories": rare_categories, "sparse twins": sparse_twins, "near-duplicates": near_duplicates}


def both(monkeypatch, X, y, subset, posterior):
    """Return tables of scores from sampled rows, and from every row."""
    tables = []
    for work, tol in ((0.0, 1e-2), (np.inf, 1e-4)):
        monkeypatch.setattr(engine, "SAMPLED_WORK", work)
        method = lsi.Newton(tol=tol)
        scores = lsi.score(
            X, y, posterior=posterior, method=method, subset=subset, audit=False, label_noise=False
        )
        tables.append(scores.to_frame())
    return tables


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("name", DATA)
def test_no_certificate_lies_where_few_rows_dominate(name, posterior, monkeypatch):
    X, y, rows = DATA[name]()
    others = np.setdiff1d(np.arange(0, len(X), 60), rows)
    sampled, exact = both(monkeypatch, X, y, np.concatenate([rows, others]), posterior)
    error = (sampled["lsi"] / exact["lsi"] - 1.0).abs()
    assert (error <= sampled["relative_error"] + exact["relative_error"]).all()
    assert (sampled["relative_error"] <= 1e-2).all()


@pytest.mark.parametrize("posterior", ["diag", "kron"])
@pytest.mark.parametrize("name", DATA)
def test_the_probability_without_the_sample_is_that_of_the_corrected_weights(name, posterior, monkeypatch):
    X, y, rows = DATA[name]()
    sampled, exact = both(monkeypatch, X, y, rows, posterior)
    assert_allclose(sampled["loo_probability"], exact["loo_probability"], atol=1e-3)
    assert (sampled["loo_prediction"] == exact["loo_prediction"]).all()


def test_rows_are_drawn_by_their_bounds():
    bound = torch.cat([torch.tensor([50.0, 30.0]), torch.rand(5000, dtype=WHOLE) + 0.1])
    length = torch.rand(5002, dtype=WHOLE)
    small, large = draw(bound, length, [64, 1024], seed=0)
    for level, count in ((small, 64), (large, 1024)):
        assert len(level.rows) == count == len(level.rows.unique())
        chance = 1.0 / level.weight
        assert (chance <= 1.0).all()
        # Every row drawn by chance stands for the same share of the bound: none can hide more than another.
        assert_allclose(bound[level.rows[level.n_certain :]] * level.weight[level.n_certain :], level.spacing)
        assert_allclose((level.weight * bound[level.rows]).sum(), bound.sum())
    assert small.rows[: small.n_certain].tolist() == [0]
    assert large.rows[:2].tolist() == [0, 1]
    assert large.n_certain >= 2
    # Nested: the larger level reads what the smaller one did.
    assert np.isin(small.rows.numpy(), large.rows.numpy()).mean() > 0.95
    everything = draw(bound, length, [6000], seed=0)[0]
    assert everything.spacing == 0.0
    assert (everything.weight == 1.0).all()


def test_the_chance_to_be_drawn_is_what_it_says():
    bound = torch.linspace(0.1, 3.0, 300, dtype=WHOLE)
    hits = torch.zeros(300)
    for seed in range(400):
        hits[draw(bound, bound, [60], seed)[0].rows] += 1
    level = draw(bound, bound, [60], 0)[0]
    chance = (bound / level.spacing).clamp_max(1.0)
    assert_allclose(hits / 400, chance, atol=0.1)


def test_a_twin_is_the_nearest_row():
    X, y, rows = sparse_twins()
    case = CASES["binary"]
    model = posterior_at(type(case)("twins", X, y), "diag", np.zeros((2, X.shape[1] + 1))).model
    found = Neighbours(model).nearest(torch.from_numpy(rows), torch.ones(len(X), dtype=torch.bool))
    assert (found[:, 0].view(-1, 2).flip(1).reshape(-1) == torch.from_numpy(rows)).all()
    hidden = torch.ones(len(X), dtype=torch.bool)
    hidden[rows] = False
    again = Neighbours(model).nearest(torch.from_numpy(rows), hidden)
    assert not np.isin(again.numpy()[:, 0], rows).any()


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_effects_against_their_definitions(name):
    random = np.random.default_rng(0)
    c, n = CASES[name].n_classes, 9
    p = torch.softmax(torch.from_numpy(random.normal(size=(n, c))), 1)
    z, y, price = (torch.from_numpy(random.normal(size=(n, c, 2))) for _ in range(3))
    own = torch.zeros((n, 2), dtype=torch.bool)
    own[3, 1] = True
    effects = Effects.of(p, z, y, price, torch.zeros((n, c, 0), dtype=WHOLE), own)
    for j in range(n):
        S = torch.diag(p[j]) - torch.outer(p[j], p[j])
        inverse = torch.linalg.pinv(S)
        for b in range(2):
            moved = torch.softmax(p[j].log() + z[j, :, b], 0)
            change, other = moved - p[j], torch.diag(moved) - torch.outer(moved, moved) - S
            rho = change - S @ z[j, :, b]
            expected = {
                "moved": y[j, :, b] @ rho,
                "priced": change @ price[j, :, b],
                "unexplained": rho @ inverse @ rho,
                "bent": y[j, :, b] @ other @ inverse @ other @ y[j, :, b],
                "bent_step": z[j, :, b] @ other @ inverse @ other @ z[j, :, b],
                "response": price[j, :, b] @ S @ price[j, :, b],
            }
            for what, value in expected.items():
                assert_allclose(getattr(effects, what)[j, b], 0.0 if own[j, b] else value, atol=1e-12)


def test_places_without_a_row_are_the_samples_own():
    # 41 rows fill one group of 32 and part of a second: its empty places must not count any row twice.
    model = untrained(Case("few", np.eye(41), np.arange(41) % 2, fit_intercept=False))
    found = Neighbours(model).nearest(torch.tensor([0, 40]), torch.ones(41, dtype=torch.bool))
    for own, rows in zip((0, 40), found, strict=True):
        others = rows[rows != own]
        assert len(others) == len(others.unique())
