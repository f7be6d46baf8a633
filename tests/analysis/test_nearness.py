"""Distances against the obvious, and chances that are what they say."""

import numpy as np
import pytest

from lsi.analysis import nearness as module
from lsi.analysis.nearness import nearness


def test_chances_of_rows_from_the_same_place_are_uniform():
    rng = np.random.default_rng(0)
    found = nearness(rng.normal(size=(1500, 3)), rng.normal(size=(1500, 3)))
    for share in (0.01, 0.1, 0.5):
        assert (found.copy_p <= share).mean() == pytest.approx(share, abs=0.04)
        assert (found.far_p <= share).mean() == pytest.approx(share, abs=0.04)


def test_copies_among_the_known_rows_hide_no_copy():
    rng = np.random.default_rng(1)
    known = rng.normal(size=(400, 5))
    known[:8] = known[0]
    found = nearness(known, known[:1] + 1e-7)
    assert found.copy_p[0] < 1e-10


def test_nothing_is_a_copy_where_copies_are_ordinary():
    known = np.repeat(np.random.default_rng(2).integers(0, 2, size=(40, 4)), 3, axis=0).astype(float)
    assert (nearness(known, known[:20]).copy_p == 1.0).all()


def test_two_known_rows_are_enough_for_an_answer():
    found = nearness(np.array([[0.0], [1.0]]), np.array([[0.1], [5.0]]))
    assert found.nearest.tolist() == [0, 1]
    assert (found.copy_p == 1.0).all()


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    known, new = rng.normal(size=(83, 4)), rng.normal(size=(31, 4))
    whole = nearness(known, new)
    monkeypatch.setattr(module, "SLAB", 20)
    monkeypatch.setattr(module, "BLOCK", 7)
    parts = nearness(known, new)
    assert (parts.nearest == whole.nearest).all()
    for name in ("distance", "copy_p", "far_p"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)


def test_scales_of_columns_and_constant_columns_do_not_matter():
    rng = np.random.default_rng(4)
    known, new = rng.normal(size=(60, 3)), rng.normal(size=(9, 3))
    stretched = [
        np.column_stack([rows * [1e3, 1.0, 1e-3] + 50, np.full(len(rows), 7.0)]) for rows in (known, new)
    ]
    found = nearness(*stretched)
    assert (found.nearest == nearness(known, new).nearest).all()
    np.testing.assert_allclose(found.distance, nearness(known, new).distance, rtol=1e-6)
