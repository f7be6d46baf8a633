"""Wrong labels where a sample has several: each is counted, samples are ranked, clean ones are left alone."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score

import lsi
from lsi.cli import main

NAMES = ["red", "big", "old"]


def scored(rate, sharp=3.0, seed=0):
    """Scores of samples with three labels of which a share is flipped; and what was flipped."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(1500, 12))
    z = 3 * sharp * (X @ random.normal(size=(12, 3)) / 12**0.5 + [-0.7, 0.0, 0.3])
    clean = (random.random(z.shape) < 1 / (1 + np.exp(-z))).astype(int)
    flipped = random.random(clean.shape) < rate
    given = pd.DataFrame(np.where(flipped, 1 - clean, clean), columns=NAMES)
    method, probe = lsi.Newton(tol=None), lsi.SigmoidProbe(weight_decay=1e-3)
    return lsi.score(X, given, probe=probe, method=method, audit=False), flipped


@pytest.fixture(scope="module")
def noisy():
    return scored(0.08)


def test_flipped_labels_are_counted_and_found(noisy):
    scores, flipped = noisy
    wrong, found = flipped.any(1), scores.label_noise
    assert_allclose(found.n_wrong, wrong.sum(), rtol=0.15)
    assert found.interval[0] <= wrong.sum() <= found.interval[1]
    for name, truth in zip(NAMES, flipped.T, strict=True):
        assert_allclose(found.each[name].n_wrong, truth.sum(), rtol=0.25)
        assert found.each[name].interval[0] <= truth.sum() <= found.each[name].interval[1]
    plain = 1 - scores.to_frame()["loo_probability"]
    ours = average_precision_score(wrong, found.wrong_probability)
    assert ours > average_precision_score(wrong, plain) + 0.02
    listed = found.suspects(fdr=0.1)
    assert len(listed) > 0.5 * wrong.sum()
    assert wrong[listed].mean() > 0.8


def test_the_list_names_the_label(noisy):
    scores, flipped = noisy
    frame = scores.mislabeled(top=50)
    where = frame["most_doubtful"].map(NAMES.index).to_numpy()
    assert flipped[frame["sample_id"], where].mean() > 0.9
    assert (frame["suggested_label"] != frame["label"]).all()
    each = frame[[f"wrong_probability_{name}" for name in NAMES]].to_numpy()
    assert_allclose(frame["wrong_probability"], 1 - (1 - each).prod(1), atol=1e-9)
    assert scores.label_noise.noise_matrix.loc["red"].shape == (2, 2)


def test_clean_labels_are_not_accused():
    scores, _ = scored(0.0, sharp=1.0)
    found = scores.label_noise
    assert found.n_wrong < 0.03 * 1500
    assert found.interval[0] == 0
    assert not len(scores.mislabeled(fdr=0.1))


def test_a_label_that_nobody_or_everybody_has():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = pd.DataFrame({"none": np.zeros(40, int), "all": np.ones(40, int), "some": (X[:, 0] > 0).astype(int)})
    found = lsi.score(X, y, probe=lsi.SigmoidProbe(weight_decay=1e-2), audit=False).label_noise
    assert found.each["none"].n_wrong < 1
    assert found.each["all"].n_wrong < 1
    assert np.isfinite(found.wrong_probability).all()


def test_the_command_lists_several_labels_and_numbers(noisy, tmp_path, capsys):
    folder = noisy[0].save(tmp_path / "several")
    assert main(["mislabeled", str(folder), "--fdr", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "samples are estimated to have a wrong label" in said
    assert "doubtful" in said.splitlines()[1]
    X = np.random.default_rng(0).normal(size=(60, 2))
    numbers = lsi.score(X, X @ [1.0, 2.0] + X[:, 0] ** 2, probe=lsi.RidgeProbe(), audit=False)
    assert main(["mislabeled", str(numbers.save(tmp_path / "numbers")), "--json"]) == 0
    assert '"interval"' in capsys.readouterr().out
