"""`lsi.consensus`: against loops, better than the majority, errors in common, gaps, odd tables."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from tests.oracles import annotators as oracle

import lsi
from lsi.analysis.annotators import Votes, fit_crowd, typical_matrix
from lsi.analysis.noise_layer import log_features, softmax
from lsi.errors import InputError


def crowd(n, c, quality, per, seed=0, sharp=1.5, together=0.0):
    """Labels of annotators who label `per` samples each row, a model's probabilities, and the truth.

    On a share `together` of the samples most annotators see the same wrong class.
    """
    random = np.random.default_rng(seed)
    z, a = random.integers(0, c, n), len(quality)
    p = softmax(sharp * (sharp * np.eye(c)[z] + random.normal(size=(n, c))))
    labels = np.empty((n, a))
    shared, hard = (z + random.integers(1, c, n)) % c, random.random(n) < together
    for k, right in enumerate(quality):
        own = np.where(random.random(n) < right, z, (z + random.integers(1, c, n)) % c)
        labels[:, k] = np.where(hard & (random.random(n) < 0.7), shared, own)
    labels[random.random((n, a)).argsort(1) >= per] = np.nan
    return labels, p, z


def as_votes(labels, c):
    row, annotator = np.nonzero(~np.isnan(labels))
    return Votes(row, annotator, labels[row, annotator].astype(int), (*labels.shape, c))


@pytest.mark.parametrize("together", [0.0, 0.2])
def test_posterior_and_matrices_agree_with_loops(together):
    labels, p, _ = crowd(400, 3, [0.9, 0.8, 0.6, 0.7, 0.5], 3, sharp=2.5, together=together)
    labels[7] = np.nan
    votes = as_votes(labels, 3)
    found = fit_crowd(votes, p)
    answers = [{a: int(y) for a, y in enumerate(row) if not np.isnan(y)} for row in labels]
    matrices = found.crowd.matrices(votes, np.arange(5))
    assert_allclose(matrices.sum(2), 1)
    shared = np.eye(3) if found.prior.shared is None else found.prior.shared
    assert (found.prior.shared is not None) == (together > 0)
    prior = found.prior.predict(log_features(p))
    assert_allclose(found.true, oracle.posterior(prior, shared, matrices, answers), atol=1e-9)
    # Where EM settles, each matrix is the mean of what was counted and what such annotators do in general.
    counts = oracle.counts(found.seen, answers, 5)
    typical = typical_matrix(found.crowd.matrix, found.crowd.accuracy)
    kappa = found.crowd.kappa
    expected = (counts + kappa * typical) / (counts.sum(2, keepdims=True) + kappa)
    assert_allclose(matrices, expected, atol=2e-3)
    nu, right, n = found.crowd.strength, np.trace(counts, axis1=1, axis2=2), counts.sum((1, 2))
    mean = (found.crowd.accuracy * (n + nu) - right) / nu
    assert_allclose(mean, mean[0], atol=1e-2)  # everybody's accuracy


@pytest.mark.parametrize("with_model", [True, False])
def test_better_than_the_majority_and_as_sure_as_right(with_model):
    quality = np.random.default_rng(3).uniform(0.4, 0.95, 40)
    labels, p, z = crowd(3000, 4, quality, 4)
    found = lsi.consensus(labels, p if with_model else None, classes=None if with_model else range(4))
    right = found.label == z
    assert right.mean() > (found.majority.astype(float) == z).mean() + 0.04
    assert_allclose(found.probability.mean(), right.mean(), atol=0.015)
    sure = found.probability > 0.9
    assert_allclose(found.probability[sure].mean(), right[sure].mean(), atol=0.015)
    people = found.annotators
    assert np.abs(people["quality"] - quality).max() < 0.12
    assert ((people["low"] < quality) & (quality < people["high"])).mean() > 0.85


def test_annotators_who_confuse_two_classes_are_known_by_their_matrix():
    labels, p, z = crowd(3000, 3, [0.9, 0.9, 0.9], 3)
    confused = np.random.default_rng(0).random(3000) < 0.7
    labels[:, 2] = np.where((z == 0) & confused, 1, z)
    found = lsi.consensus(pd.DataFrame(labels, columns=["ann", "bob", "cat"]), p)
    matrix = found.matrix_of("cat").to_numpy()
    assert_allclose(matrix[0, 1], 0.7, atol=0.05)
    assert matrix[1, 0] < 0.05
    assert_allclose(matrix.sum(1), 1)
    with pytest.raises(InputError, match="no annotator 'dan'"):
        found.matrix_of("dan")


def test_errors_in_common_are_seen_by_a_model():
    labels, p, z = crowd(3000, 4, [0.9, 0.85, 0.8, 0.75, 0.7], 5, sharp=2.5, together=0.15)
    found = lsi.consensus(labels, p)
    assert found.shared_errors is not None
    assert_allclose(found.shared_errors.sum(axis=1), 1)
    assert (found.label == z).mean() > (found.majority.astype(float) == z).mean() + 0.08
    assert_allclose(found.probability.mean(), (found.label == z).mean(), atol=0.02)
    assert lsi.consensus(*crowd(3000, 4, [0.9, 0.8, 0.7], 3)[:2]).shared_errors is None


def test_features_take_the_place_of_probabilities():
    random = np.random.default_rng(0)
    labels, _, z = crowd(1500, 3, [0.8, 0.7, 0.6], 2)
    X = 1.5 * np.eye(3)[z] @ random.normal(size=(3, 8)) + random.normal(size=(1500, 8))
    labels[:20] = np.nan
    found = lsi.consensus(labels, features=X)
    plain = lsi.consensus(labels)
    assert (found.label == z).mean() > (plain.label == z).mean() + 0.03
    assert (found.label[:20] == z[:20]).mean() > 0.6  # by the model alone
    assert found.to_frame()["n_labels"].head(20).eq(0).all()
    assert "20 samples have no label" in str(found)


def test_whom_to_ask():
    labels, p, _ = crowd(500, 3, [0.95, 0.9, 0.5, 0.5], 2)
    labels[:3] = np.nan
    labels[3] = [0, 1, 2, 0]
    found = lsi.consensus(labels, p)
    asked = found.ask(500)
    assert_array_equal(np.sort(asked["position"]), np.arange(500))
    assert (asked["information"].diff().dropna() <= 0).all()
    where = asked.set_index("position")
    assert where.loc[3, "annotator"] is None
    assert where.loc[0, "annotator"] == 0
    for position, annotator in zip(asked["position"], asked["annotator"], strict=True):
        assert annotator is None or np.isnan(labels[position, annotator])
    q, matrix = found.probabilities[:1], found.matrix_of(0).to_numpy()
    assert_allclose(where.loc[0, "information"], oracle.information(q, matrix)[0], rtol=1e-6)
    assert len(found.ask(5)) == 5
    with pytest.raises(InputError, match="positive integer"):
        found.ask(0)


def test_words_gaps_and_ties():
    table = pd.DataFrame({"ann": ["owl", "cat", None, None], "bob": ["owl", "owl", "cat", None]})
    found = lsi.consensus(table)
    assert found.label[0] == "owl"
    assert found.label[2] == "cat"
    assert list(found.majority) == ["owl", "cat", "cat", None]  # of a tie the first class
    frame = found.to_frame()
    assert frame["agreement"].isna().tolist() == [False, False, False, True]
    assert_array_equal(frame["n_labels"], [2, 2, 1, 0])
    assert_allclose(found.probabilities.sum(1), 1)
    assert list(found.annotators.index) == ["ann", "bob"]


def test_somebody_without_labels_is_like_the_others():
    labels, p, _ = crowd(200, 3, [0.9, 0.7, 0.7], 3)
    labels[:, 1] = np.nan
    found = lsi.consensus(labels, p).annotators
    assert found.loc[1, "n_labels"] == 0
    assert 0.5 < found.loc[1, "quality"] < 1
    assert found.loc[1, "high"] - found.loc[1, "low"] > 0.005
    assert pd.isna(found.loc[1, "agreement"])


def test_a_sparse_table_of_many_annotators():
    random = np.random.default_rng(0)
    n, a, z = 6000, 10_000, random.integers(0, 4, 6000)
    row = np.repeat(np.arange(n), 3)
    who = (random.integers(0, a, n)[:, None] + [0, 7, 19]).ravel() % a
    y = np.where(random.random(3 * n) < 0.75, z[row], random.integers(0, 4, 3 * n))
    found = lsi.consensus(scipy.sparse.coo_array((y, (row, who)), shape=(n, a)))
    assert (found.label == z).mean() > 0.85
    assert len(found.annotators) == a
    assert len(found.ask(3)) == 3


def test_dense_and_sparse_tables_are_the_same():
    labels, p, _ = crowd(300, 3, [0.9, 0.8, 0.7], 2)
    row, who = np.nonzero(~np.isnan(labels))
    sparse = scipy.sparse.csr_array((labels[row, who].astype(int), (row, who)), shape=labels.shape)
    assert_allclose(lsi.consensus(sparse, p).probabilities, lsi.consensus(labels, p).probabilities)


def test_the_order_of_samples_and_annotators_does_not_matter():
    labels, p, _ = crowd(300, 3, [0.9, 0.8, 0.7], 2)
    random = np.random.default_rng(0)
    rows, columns = random.permutation(300), random.permutation(3)
    one, other = lsi.consensus(labels, p), lsi.consensus(labels[rows][:, columns], p[rows])
    assert_allclose(other.probabilities, one.probabilities[rows], atol=1e-3)
    assert_allclose(other.annotators["quality"], one.annotators["quality"].to_numpy()[columns], atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        (np.zeros((3, 1)), None, "one annotator"),
        ([[0, 1], [1, 0]], np.full((3, 2), 0.5), "3 rows and labels 2"),
        ([[0, 2], [1, 0]], np.full((2, 2), 0.5), "classes="),
        ([[0, 1], [1, 0]], np.full((2, 2), 0.7), "sum to one"),
        (np.full((3, 2), np.nan), None, "every entry is a gap"),
        ([[0.5, 1], [1, 0]], None, "looks like regression"),
        (np.zeros(4), None, "table of shape"),
        (pd.DataFrame([[0, 1]], columns=["a", "a"]), None, "several annotators called 'a'"),
        (scipy.sparse.csr_array(np.array([[0, 1], [1, 2]])), None, "stored explicitly"),
        (scipy.sparse.coo_array(([0, 1], ([0, 0], [1, 1])), shape=(2, 2)), None, "two labels of one"),
    ],
)
def test_misuse(labels, p, message):
    with pytest.raises(InputError, match=message):
        lsi.consensus(labels, p)


def test_misuse_of_classes_and_features():
    labels = [["a", "b"], ["b", "a"]]
    with pytest.raises(InputError, match="Pass one of them"):
        lsi.consensus(labels, np.full((2, 2), 0.5), features=np.ones((2, 2)))
    with pytest.raises(InputError, match="'b' in y is none of them"):
        lsi.consensus(labels, classes=["a", "c"])
    with pytest.raises(InputError, match="3 rows and labels 2"):
        lsi.consensus(labels, features=np.ones((3, 2)))


def test_one_class_is_certain():
    found = lsi.consensus([["a", "a"], ["a", None]], features=np.ones((2, 2)))
    assert_allclose(found.probability, 1)
