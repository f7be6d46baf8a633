"""`lsi.label_noise`: counts and lists from given probabilities: noise, clean overlap, odd input."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import check_grad
from sklearn.metrics import average_precision_score

import lsi
from lsi.analysis.noise_layer import (
    MATRIX_CLASSES,
    _Objective,
    confident_matrix,
    log_features,
    noise_matrix,
    posterior,
    softmax,
    start_matrix,
)
from lsi.analysis.noise_model import follows_overlap
from lsi.data.corruption.labels import corrupt_labels
from lsi.errors import InputError


def overlapping(c, error, n, seed):
    """Samples of Gaussian classes with this Bayes error: exact probabilities and right labels."""
    random = np.random.default_rng(seed)
    centres = np.eye(c) if c > 2 else np.array([[1.0], [-1.0]])
    z, noise = random.integers(0, c, 20_000), random.normal(size=(20_000, centres.shape[1]))
    low, high = 0.05, 12.0
    for _ in range(30):
        s = (low + high) / 2
        wrong = (((s * centres[z] + noise) @ centres.T).argmax(1) != z).mean()
        low, high = (s, high) if wrong > error else (low, s)
    z = random.integers(0, c, n)
    return softmax((s * centres[z] + random.normal(size=(n, centres.shape[1]))) @ centres.T * s), z


def separated(n=3000, c=6, seed=0, sure=4.0):
    """Probabilities of a model that is nearly always right about the true class."""
    random = np.random.default_rng(seed)
    z = random.integers(0, c, n)
    logits = random.normal(size=(n, c))
    logits[np.arange(n), z] += sure
    return softmax(logits), z


def through(p, noise, spread=0.3):
    """What a model trained on noisy labels predicts: not quite the probability of each given label."""
    return softmax(np.log(p @ noise) + spread * np.random.default_rng(9).normal(size=p.shape))


@pytest.mark.parametrize(("kind", "rate"), [("pairwise", 0.2), ("pairwise", 0.4), ("symmetric", 0.2)])
def test_noise_on_separated_classes_is_counted_and_found(kind, rate):
    p, z = separated(sure=8.0)
    y = corrupt_labels(z, rate, 1, kind=kind).labels
    matrix = np.eye(6) * (1 - rate)
    matrix += np.roll(np.eye(6), 1, 1) * rate if kind == "pairwise" else (1 - np.eye(6)) * rate / 5
    found = lsi.label_noise(through(p, matrix), y)
    wrong = y != z
    assert_allclose(found.n_wrong, wrong.sum(), rtol=0.1)
    assert found.interval[0] <= wrong.sum() <= found.interval[1]
    assert average_precision_score(wrong, found.wrong_probability) > 0.99
    assert_allclose(found.noise_matrix.to_numpy(), matrix, atol=0.06)
    listed = found.suspects(fdr=0.1)
    assert len(listed) > 0.8 * wrong.sum()
    assert wrong[listed].mean() > 0.85
    low, high = found.interval_in_top(200)
    assert low <= wrong[found.suspects(top=200)].sum() <= high


@pytest.mark.parametrize("n", [500, 4000])
@pytest.mark.parametrize("error", [0.05, 0.2, 0.35])
@pytest.mark.parametrize("c", [2, 3, 6])
def test_clean_classes_that_overlap_are_not_accused(c, error, n):
    p, z = overlapping(c, error, n, seed=c)
    found = lsi.label_noise(p, z)
    assert (found.wrong_probability > 0.5).mean() <= 0.01
    assert found.n_wrong <= 0.03 * n
    assert found.interval[0] == 0
    assert not len(found.suspects(fdr=0.1))
    if found.interval[1] >= 1:
        assert "There may be none" in str(found)


def test_noise_on_overlapping_classes_is_counted():
    p, z = overlapping(4, 0.15, 4000, seed=1)
    y = corrupt_labels(z, 0.2, 2).labels
    found = lsi.label_noise(through(p, np.eye(4) * (0.8 - 0.2 / 3) + 0.2 / 3), y)
    # Errors of the predictions make the classes overlap more: fewer labels are surely wrong.
    assert 0 < found.interval[0] <= 800 <= found.interval[1]
    assert_allclose(found.n_wrong, 800, rtol=0.3)


def test_what_cannot_be_known_is_not_claimed():
    # Exact probabilities 0.8 and 0.2, nothing else: two classes that overlap, or two with wrong labels.
    z = np.arange(2000) % 2
    p = np.where(z[:, None] == np.arange(2), 0.8, 0.2)
    y = np.where(np.arange(2000) % 10 < 2, 1 - z, z)
    found = lsi.label_noise(p, y)
    assert found.n_wrong < 60
    assert found.interval[0] == 0
    assert found.interval[1] >= 400
    assert "may be none" in str(found)


def test_predictions_that_are_too_sure_do_not_matter():
    p, z = separated()
    y = corrupt_labels(z, 0.2, 1).labels
    plain, sure = lsi.label_noise(p, y), lsi.label_noise(p**3 / (p**3).sum(1, keepdims=True), y)
    assert_allclose(sure.n_wrong, plain.n_wrong, rtol=0.03)


def test_many_classes_have_one_kind_of_error():
    c = MATRIX_CLASSES + 20
    p, z = separated(n=2400, c=c, sure=9.0)
    y = corrupt_labels(z, 0.1, 1).labels
    found = lsi.label_noise(p, y)
    assert_allclose(found.n_wrong, (y != z).sum(), rtol=0.1)
    assert average_precision_score(y != z, found.wrong_probability) > 0.99


def test_posterior_and_matrix_by_hand():
    p, noise = np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.8, 0.2], [0.3, 0.7]])
    q = posterior(p, noise, np.array([1, 0]))
    assert_allclose(q[0], np.array([0.18, 0.07]) / 0.25)
    assert_allclose(q[1], np.array([0.40, 0.15]) / 0.55)


@pytest.mark.parametrize("n", [3, 3000])
def test_the_matrix_trusts_labels_until_there_are_many_samples(n):
    found = noise_matrix(np.repeat([[1.0, 0.0]], n, 0), np.ones(n, dtype=int))  # of class 0, labelled 1
    assert_allclose(found[0, 1], (n + 0.3) / (n + 3.0))
    assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize(("c", "mixes"), [(3, True), (3, False), (MATRIX_CLASSES + 1, False)])
def test_gradients(c, mixes):
    random = np.random.default_rng(0)
    p, y = random.dirichlet(np.ones(c), 40), np.sort(random.integers(0, c, 40))
    objective = _Objective(log_features(p), y, mixes, True)
    free = 0.3 * random.normal(size=(2 if c > MATRIX_CLASSES else (c * c if mixes else 1) + c + c * c))
    error = check_grad(lambda v: objective(v)[0], lambda v: objective(v)[1], free)
    assert error < 1e-3 * np.linalg.norm(objective(free)[1])


def test_confident_counts_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.9, 0.1]])
    y = np.array([0, 0, 1, 1])  # the last is sure to be of class 0
    found = confident_matrix(p, y)
    assert found[0, 1] > 0.2 > found[1, 0]
    assert_allclose(found.sum(1), 1)


def test_noise_that_follows_overlap_is_told_from_noise_that_does_not():
    random = np.random.default_rng(0)
    centre = random.normal(size=(8, 3))
    p = softmax(2.0 * (centre[random.integers(0, 8, 4000)] + random.normal(size=(4000, 3))) @ centre.T)
    overlap = p.T @ p / p.sum(0)[:, None]
    follows = 0.5 * np.eye(8) + 0.5 * overlap
    assert follows_overlap(p, follows) > 0.9
    assert follows_overlap(p, 0.2 * np.roll(np.eye(8), 1, 1) + 0.8 * np.eye(8)) < 0.3
    assert follows_overlap(p[:, :2], np.eye(2)) == 0
    assert follows_overlap(p, start_matrix(8)) < 0.4  # overlap is not evenly spread over pairs of uneven size


def test_words_missing_classes_and_order():
    p, z = separated(n=600, c=3)
    names = np.array(["owl", "cat", "dog"])
    found = lsi.label_noise(p, names[z], classes=names)
    assert list(found.noise_matrix.columns) == ["owl", "cat", "dog"]
    assert (found.suggested == names[z]).mean() > 0.95
    order = np.argsort(names)
    again = lsi.label_noise(pd.DataFrame(p[:, order], columns=names[order]), list(names[z]))
    assert_allclose(again.n_wrong, found.n_wrong, atol=0.5)
    few = np.flatnonzero(z != 2)
    assert len(lsi.label_noise(p[few], z[few]).noise_matrix) == 3
    one = lsi.label_noise(np.ones((4, 1)), ["a"] * 4)
    assert (one.n_wrong, one.interval) == (0.0, (0.0, 0.0))


def test_float16_and_memory_mapped_rows(tmp_path):
    p, z = separated(n=400, c=4)
    np.save(tmp_path / "p.npy", p.astype(np.float16))
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    assert lsi.label_noise(mapped, z).n_wrong < 12


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (np.ones((3, 2)), [0, 1, 0], "sum to one"),
        (np.full((3, 2), np.nan), [0, 1, 0], "not finite"),
        (np.array([[1.5, -0.5]] * 2), [0, 1], "sum to one"),
        (np.ones(3), [0, 1, 0], "shape"),
        (np.array([["a", "b"]]), [0], "numbers"),
        (np.full((3, 2), 0.5), [0, 1], "3 rows"),
        (np.full((3, 2), 0.5), ["a", "b", "c"], "classes="),
        (np.full((3, 4), 0.25), ["a", "b", "c"], "classes="),
        (np.full((2, 2), 0.5), [0, None], "no label"),
    ],
)
def test_misuse(p, y, message):
    with pytest.raises(InputError, match=message):
        lsi.label_noise(p, y)


def test_names_that_do_not_fit():
    p = np.full((3, 2), 0.5)
    with pytest.raises(InputError, match="'c' in y is none of them"):
        lsi.label_noise(p, ["a", "b", "c"], classes=["a", "b"])
    with pytest.raises(InputError, match="1 differ"):
        lsi.label_noise(p, ["a", "a", "a"], classes=["a", "a"])


def test_odd_rows_give_probabilities():
    for p, y in (
        (np.eye(5), np.arange(5)),
        (np.eye(4)[[0, 0, 1, 1]], [0, 1, 2, 3]),
        (np.full((6, 3), 1 / 3), [0, 1, 2, 0, 1, 2]),
        (np.array([[1.0, 0.0]]), [1]),
    ):
        found = lsi.label_noise(p, y)
        assert ((found.wrong_probability >= 0) & (found.wrong_probability <= 1)).all()
        assert found.interval[0] <= found.n_wrong <= found.interval[1]
        assert_allclose(found.noise_matrix.sum(axis=1), 1)
        assert (found.at_least <= found.at_most + 1e-9).all()


def test_the_order_of_rows_does_not_matter():
    p, z = overlapping(3, 0.1, 900, seed=0)
    y = corrupt_labels(z, 0.2, 0).labels
    order = np.random.default_rng(0).permutation(900)
    one, other = lsi.label_noise(p, y), lsi.label_noise(p[order], y[order])
    assert_allclose(other.wrong_probability, one.wrong_probability[order], atol=1e-3)
