import numpy as np
import pytest
from tests.analysis.tables import random_table, scored, table

import lsi
from lsi.analysis.difficulty import difficulty
from lsi.errors import InputError


def test_chance_is_one_and_certainty_is_zero():
    labels = ["a", "b", "c", "d"] * 25
    chance = difficulty(scored(table(np.ones(100), labels, probability=np.full(100, 0.25))))
    np.testing.assert_allclose([chance.difficulty, chance.usable_information], [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(chance.label_entropy, np.log(4))
    sure = difficulty(scored(table(np.ones(100), labels, probability=np.ones(100))))
    assert (sure.difficulty, sure.low, sure.high, sure.loo_error) == (0.0, 0.0, 0.0, 0.0)


def test_the_interval_is_that_of_a_mean():
    """With equal classes, resampling the entropy hardly matters: the interval is the mean's."""
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.2, 1.0, 4000)
    rows = table(np.ones(4000), ["a", "b"] * 2000, probability=probability)
    found = difficulty(scored(rows), n_bootstrap=1000)
    loss = -np.log(probability) / np.log(2)
    half = 1.96 * loss.std() / np.sqrt(4000)
    np.testing.assert_allclose([found.low, found.high], [loss.mean() - half, loss.mean() + half], rtol=0.01)
    assert found.low < found.difficulty < found.high


def test_it_is_the_same_whatever_the_number_of_copies():
    small = random_table(50)
    large = small.loc[np.repeat(np.arange(50), 4)].reset_index(drop=True)
    expected = difficulty(scored(small)).difficulty
    assert difficulty(scored(large)).difficulty == pytest.approx(expected, rel=1e-12)


def test_information_per_weight_counts_weights():
    manifest = {
        "data": {"n_samples": 200, "n_features": 4, "n_classes": 3},
        "config": {"probe": {"kind": "linear", "fit_intercept": True}},
    }
    given = random_table(50)
    found = difficulty(scored(given, **manifest))
    np.testing.assert_allclose(found.information_per_weight, 2 * 200 * given["lsi"].mean() / 10)
    assert difficulty(scored(given)).information_per_weight is None


def test_a_well_specified_model_has_half_a_nat_a_weight():
    """Labels drawn from a softmax model: Takeuchi's trace is the number of free weights, (C − 1) D."""
    rng = np.random.default_rng(0)
    X, theta = rng.normal(size=(4000, 4)), rng.normal(size=(4, 3))
    noisy = X @ theta + rng.gumbel(size=(4000, 3))
    probe = lsi.LinearProbe(weight_decay=1e-7, fit_intercept=False)
    method = lsi.Newton(tol=None)
    scores = lsi.score(X, noisy.argmax(1), probe=probe, posterior="full", method=method, audit=False)
    np.testing.assert_allclose(scores.difficulty(n_bootstrap=20).information_per_weight, 1.0, rtol=0.1)


def test_datasets_are_sorted_hardest_first(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    given = {}
    for name, distance in (("easy", 4.0), ("hard", 0.5)):
        X = rng.normal(size=(60, 3)) + distance * y[:, None]
        given[name] = lsi.score(X, y, audit=False)
    given["easy"].save(tmp_path / "easy")
    found = lsi.compare_datasets({"easy": tmp_path / "easy", "hard": given["hard"]}, n_bootstrap=50)
    assert found["dataset"].tolist() == ["hard", "easy"]
    assert found["weight_decay"].tolist() == [1e-4, 1e-4]


def test_what_has_no_difficulty():
    with pytest.raises(InputError, match="two or more classes"):
        difficulty(scored(table([1.0, 2.0], ["a", "a"])))
    with pytest.raises(InputError, match="for classification"):
        difficulty(scored(table([1.0, 2.0], [0.5, 1.5]), task="regression"))
    with pytest.raises(InputError, match="no datasets"):
        lsi.compare_datasets({})
    with pytest.raises(InputError, match="n_bootstrap"):
        difficulty(scored(random_table()), n_bootstrap=1)
