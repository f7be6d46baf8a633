"""Neighbours against the obvious, and what they say of labels."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from lsi.analysis import surroundings as module
from lsi.analysis.surroundings import NEIGHBOURS, Surroundings, look_around, positions


def test_neighbours_are_the_nearest_others():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)).astype(np.float32), random.integers(0, 3, 60)
    seen = look_around(torch.from_numpy(x), y, 3)
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1)[:, :NEIGHBOURS]
    votes = np.stack([(y[order] == k).sum(1) for k in range(3)], 1)
    assert_allclose(seen.p, (votes + 1 / 3) / (NEIGHBOURS + 1))
    last = np.sort(apart, axis=1)[:, NEIGHBOURS - 1]
    middle = np.sqrt(np.median(last**2))
    assert_allclose(seen.far, np.log(last / middle), atol=1e-4)


def test_many_rows_have_some_references_and_never_themselves(monkeypatch):
    monkeypatch.setattr(module, "REFERENCES", 40)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32))
    known = positions(200)
    assert_array_equal(known, np.arange(0, 200, 5))
    found, _ = Surroundings(x[torch.from_numpy(known)], 200).find(x[7:60], np.arange(7, 60))
    assert np.isin(found, known).all()
    assert (found != np.arange(7, 60)[:, None]).all()


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_rows(n):
    seen = look_around(torch.zeros(n, 2), np.arange(n) % 2, 2)
    assert_allclose(seen.p.sum(1), 1)
    assert_array_equal(seen.far, np.zeros(n))
