"""Principal components: those of scikit-learn, whatever the shape and wherever the features are."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

import lsi
from lsi.cli import main

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(60, 9)) * np.arange(9, 0, -1) + 100).astype(np.float32)


@pytest.mark.parametrize("x", [X, X[:7], X.astype(np.float64), X[:9]])
def test_it_is_what_scikit_learn_finds(x):
    found, other = lsi.reduce_features(x, 3), PCA(3, svd_solver="full").fit(x.astype(np.float64))
    expected = other.transform(x.astype(np.float64))
    assert_allclose(np.abs(found.features), np.abs(expected), rtol=1e-5, atol=1e-4)
    assert found.explained == pytest.approx(other.explained_variance_ratio_.sum())
    assert_allclose(found.components @ found.components.T, np.eye(3), atol=1e-9)
    assert_array_equal(found.transform(x), found.features)
    assert found.features.dtype == np.float32


def test_auto_keeps_the_share_that_it_says():
    found = lsi.reduce_features(X)
    kept = found.features.shape[1]
    assert found.explained >= 0.9 > lsi.reduce_features(X, kept - 1).explained
    assert found.describe() == {
        "n_components": kept,
        "of": 9,
        "explained_variance": found.explained,
        "rule": "auto",
    }


def test_a_mapped_file_gives_the_same(tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr("lsi.features.reduction.BLOCK", 7)
    mapped = lsi.reduce_features(np.load(tmp_path / "X.npy", mmap_mode="r"), 4)
    monkeypatch.undo()
    assert_allclose(mapped.features, lsi.reduce_features(X, 4).features, rtol=1e-4, atol=1e-4)


def test_components_of_the_whole_space_change_no_score():
    y = np.arange(60) % 3
    x = (X - X.mean(0)).astype(np.float64)
    probe, more = lsi.LinearProbe(1e-2), {"posterior": "full", "audit": False, "method": lsi.Newton(tol=1e-4)}
    assert_allclose(
        lsi.score(lsi.reduce_features(x, 9).features, y, probe=probe, **more).lsi,
        lsi.score(x, y, probe=probe, **more).lsi,
        rtol=1e-3,
    )


@pytest.mark.parametrize("bad", [0, -1, 10, 1.5, "all", True, None])
def test_numbers_of_components_that_cannot_be(bad):
    with pytest.raises(lsi.InputError):
        lsi.reduce_features(X, bad)


def test_features_that_cannot_be_reduced(monkeypatch):
    with pytest.raises(lsi.InputError, match="NaN"):
        lsi.reduce_features(np.where(X > 110, np.nan, X))
    with pytest.raises(lsi.InputError, match="columns|features"):
        lsi.reduce_features(X, 2).transform(X[:, :4])
    monkeypatch.setattr("lsi.features.reduction.MOST_SIDE", 8)
    with pytest.raises(lsi.InputError, match="too many"):
        lsi.reduce_features(X, 2)
    assert np.isfinite(lsi.reduce_features(np.ones((5, 3))).features).all()


def test_the_command_keeps_what_it_did(tmp_path, capsys):
    words = ["compute", "-d", "wine", "--no-audit", "--no-label-noise", "--redundancy"]
    place, page = tmp_path / "scores", tmp_path / "page.html"
    assert main([*words, "--pca", "5", "--output", str(place), "--report", str(page)]) == 0
    manifest = lsi.load(place).manifest
    assert manifest["pca"]["n_components"] == manifest["data"]["n_features"] == 5
    assert manifest["pca"]["of"] == 13
    assert "5 of 13 components" in " ".join(capsys.readouterr().err.split())
    assert main(["compute", "-d", "digits", "--pca", "0"]) == 2
    assert "components" in capsys.readouterr().err
