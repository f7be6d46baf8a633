"""Corrections from sampled rows: what they add up to, what they must see, what their certificates promise."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.cases import CASES

import lsi
from lsi.loo.newton import engine
from lsi.loo.newton import rows as row_module
from lsi.loo.newton.effects import Effects
from lsi.loo.newton.rows import chances
from lsi.loo.newton.sampled import contrasts
from lsi.loo.newton.tables import tables

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


def saturated_twins(n=2000, pairs=60, seed=4):
    """Return features of which some columns are held by two rows that leave no doubt, labels, and these rows.

    Such a row has nearly no curvature, until the softmax's exponentials let it grow without its twin.
    """
    random = np.random.default_rng(seed)
    X = np.concatenate([random.normal(size=(n, 6)), np.zeros((n, pairs))], axis=1)
    y = (3.0 * X[:, 0] + X[:, 1] + random.logistic(size=n) > 0).astype(int)
    rows = random.permutation(np.flatnonzero(y))[: 2 * pairs].reshape(pairs, 2)
    for column, pair in enumerate(rows, 6):
        X[pair, column] = random.choice([5.0, 10.0, 20.0]) * random.uniform(0.3, 1.5, 2)
    return X, y, rows.ravel()


DATA = {
    "rare categories": rare_categories,
    "sparse twins": sparse_twins,
    "near-duplicates": near_duplicates,
    "saturated twins": saturated_twins,
}


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


def test_chances_are_in_proportion_to_weights_and_at_most_one():
    weights = torch.cat([torch.tensor([5000.0, 30.0, 0.0]), torch.rand(5000, dtype=WHOLE) + 0.1])
    for count in (64, 1024):
        found = chances(weights, count)
        assert (found <= 1.0).all()
        assert_allclose(found.sum(), count)
        free = found < 1.0
        assert not free[0]
        assert_allclose(found[free], weights[free] * (found[free].sum() / weights[free].sum()))
    assert (chances(weights + 0.1, 6000) == 1.0).all()


def sampler_of(X, y, monkeypatch, pool):
    """Return what draws the rows of a trained probe, with a pool of about `pool` rows, and its solver."""
    kept = []
    run = engine.NewtonEngine.run
    monkeypatch.setattr(engine, "SAMPLED_WORK", 0.0)
    monkeypatch.setattr(engine.NewtonEngine, "run", lambda self, *rest: kept.append(self) or run(self, *rest))
    lsi.score(X, y, subset=[0], audit=False, label_noise=False)
    if pool:
        monkeypatch.setattr(row_module, "POOL", pool)
    solver, corrector = kept[0].solver, kept[0]._corrector
    return row_module.RowSampler(corrector.model, corrector._leverage, 1e-2 / 6.0, 0), solver


def test_what_is_left_of_a_few_hundred_samples_is_swept_together(monkeypatch):
    X, y, hard = sparse_twins(2000, 3)
    subset = np.random.default_rng(0).permutation(np.union1d(hard, np.arange(200)))
    swept, refine = [], engine.Refiner.refine
    monkeypatch.setattr(engine, "SAMPLED_WORK", 0.0)
    monkeypatch.setattr(
        engine.Refiner, "refine", lambda self, first: swept.append(len(first.index)) or refine(self, first)
    )
    lsi.score(X, y, subset=subset, method=lsi.Newton(tol=3e-3), audit=False, label_noise=False)
    assert 4 < sum(swept) < 64
    assert len(swept) == 1


@pytest.mark.parametrize("pool", [None, 400], ids=["all rows", "a pool"])
def test_the_chance_to_be_read_is_what_it_says(pool, monkeypatch):
    """The sum of one over the chances of the rows that are read is the number of all others, on average."""
    X, y, hard = sparse_twins(2000, 3)
    index, totals = torch.from_numpy(np.concatenate([hard[:2], [7, 8]])), []
    sampler, solver = sampler_of(X, y, monkeypatch, pool)
    first = solver.first_order(index)
    for seed in range(120):
        sampler.seed(seed)
        pairs = sampler.draw(first, sampler.near(first)[0], 128, True)
        assert (pairs.row != index[pairs.removal]).all()
        keys = pairs.removal * len(X) + pairs.row
        assert len(keys) == len(keys.unique())
        totals.append(torch.zeros(4).index_add_(0, pairs.removal, 1.0 / pairs.chance))
    mean, spread = torch.stack(totals).mean(0), torch.stack(totals).std(0) / 120**0.5
    assert ((mean - (len(X) - 1)).abs() < 4.0 * spread).all()


@pytest.mark.parametrize("pool", [None, 400], ids=["all rows", "a pool"])
def test_a_twin_is_always_read(pool, monkeypatch):
    X, y, twins = sparse_twins(6000)
    index = torch.from_numpy(twins)
    sampler, solver = sampler_of(X, y, monkeypatch, pool)
    first = solver.first_order(index)
    pairs = sampler.draw(first, sampler.near(first)[0], 128, True)
    partner = index.view(-1, 2).flip(1).reshape(-1)
    for place, twin in enumerate(partner.tolist()):
        found = (pairs.removal == place) & (pairs.row == twin)
        assert found.sum() == 1
        assert pairs.chance[found] == 1.0


def test_tables_hold_every_row_once():
    random = np.random.default_rng(0)
    removal = torch.from_numpy(random.integers(0, 9, 400))
    removal = removal[removal != 4]  # one without any row
    chance = torch.from_numpy(random.choice([0.2, 0.5, 1.0], len(removal)))
    pairs = row_module.Pairs(removal, torch.arange(100, 100 + len(removal)), chance.to(torch.float32))
    index, seen = torch.arange(9), []
    for which, table in tables(pairs, index, 120):
        there = table.chance.isfinite()
        assert (table.chance[:, : table.n_certain][there[:, : table.n_certain]] == 1.0).all()
        assert (table.chance[:, table.n_certain :][there[:, table.n_certain :]] < 1.0).all()
        assert (table.rows[~there] == which[:, None].expand_as(there)[~there]).all()
        at = which[:, None].expand_as(there)[there]
        seen += list(zip(at.tolist(), table.rows[there].tolist(), table.chance[there].tolist(), strict=True))
    expected = zip(removal.tolist(), pairs.row.tolist(), pairs.chance.tolist(), strict=True)
    assert sorted(seen) == sorted(expected)


def test_signs_cancel_what_groups_have_in_common():
    signs = contrasts()
    assert_allclose(signs.sum(1), 0.0)
    assert_allclose(signs @ signs.T, len(signs.T) * np.eye(len(signs)))


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_effects_against_their_definitions(name):
    random = np.random.default_rng(0)
    c, n = CASES[name].n_classes, 9
    p = torch.softmax(torch.from_numpy(random.normal(size=(n, c))), 1)
    z, y, price = (torch.from_numpy(random.normal(size=(n, c, 2))) for _ in range(3))
    draw = torch.from_numpy(random.normal(size=(n, c, 2)))
    common = p.T.expand(2, -1, -1)
    effects = Effects.of(common, *(each.permute(2, 1, 0) for each in (z, y, price)), [draw.permute(2, 1, 0)])
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
                "turned": draw[j, :, b] @ other @ inverse @ other @ draw[j, :, b],
            }
            for what, value in expected.items():
                assert_allclose(getattr(effects, what)[b, j], value, atol=1e-12)
