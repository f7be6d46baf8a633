import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_iris
from tests.oracles import softmax_probe

import lsi
from lsi.analysis.grouping import group_around
from lsi.analysis.redundancy import directions
from lsi.errors import InputError
from lsi.validation.problem import check_problem

PROBE = lsi.LinearProbe(weight_decay=1e-2)


def clusters(n=90, n_classes=3, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return (1.2 * rng.normal(size=(n_classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32), y


def similarities(X, y, by="influence", **limits):
    found = directions(check_problem(X, y), PROBE, by, **limits)
    return (found @ found.T).numpy()


def slow_groups(similarity, order, threshold):
    """One row at a time against all representatives so far."""
    leader = {}
    for row in order:
        leaders = [other for other in leader if leader[other] == other]
        best = max(leaders, key=lambda other: similarity[row, other], default=None)
        joins = best is not None and similarity[row, best] >= threshold
        leader[row] = best if joins else row
    return np.array([leader[row] for row in range(len(similarity))])


@pytest.mark.parametrize("rows", [7, 64, 1024])
def test_blocks_of_rows_group_as_one_row_at_a_time(rows):
    X, y = clusters(80, d=3)
    parts = directions(check_problem(X, y), PROBE, "influence")
    order = np.random.default_rng(1).permutation(80)
    similarity = (parts @ parts.T).numpy()
    found = group_around(parts, order, 0.7, rows=rows, columns=11)
    np.testing.assert_array_equal(found.representative, slow_groups(similarity, order, 0.7))
    np.testing.assert_allclose(found.similarity, similarity[np.arange(80), found.representative], atol=1e-5)
    members = np.bincount(found.group[found.group >= 0])
    assert (np.diff(members) <= 0).all()
    assert members.min() >= 2


def test_similarity_is_the_cosine_of_what_leaving_out_does():
    """Against retrained models: δ_i and δ_j by refitting without i and without j, in the dense curvature."""
    X, y = clusters(60, d=4)
    x = np.column_stack([X, np.ones(60)]).astype(np.float64)
    full = softmax_probe.fit(x, y, 3, 1e-2)
    keep = ~np.eye(60, dtype=bool)
    ridge = 1e-2 * 60 / 59  # the same ridge in sum form: its change with n is common to all samples
    moved = np.array([softmax_probe.fit(x[k], y[k], 3, ridge, start=full) - full for k in keep]).reshape(
        60, -1
    )
    precision = softmax_probe.curvature(full, x, np.ones(60)) + 60 * 1e-2 * np.eye(moved.shape[1])
    inner = moved @ precision @ moved.T
    size = np.sqrt(np.diag(inner))
    exact = (inner / np.outer(size, size))[np.triu_indices(60, 1)]
    found = similarities(X, y)[np.triu_indices(60, 1)]
    # First order: leaving out moves the others' curvature a little, which the formula does not see.
    assert spearmanr(found, exact).statistic > 0.99
    np.testing.assert_allclose(found, exact, atol=0.15)


def test_random_directions_and_the_large_form_stand_for_the_whole():
    X, y = clusters(200, n_classes=4, d=6)
    exact = similarities(X, y)
    rough = similarities(X, y, n_directions=20)
    error = np.abs(rough - exact)
    # The standard error that the module states, (1 − s²) / √R, with room for the largest of 20,000 pairs.
    assert (error < 6 * (1 - exact**2) / np.sqrt(20) + 0.02).all()
    product = similarities(X, y, largest=1)
    assert np.corrcoef(product.ravel(), exact.ravel())[0, 1] > 0.7


def test_duplicates_are_found_and_contradictions_are_none():
    X, y = clusters(60)
    X[10], y[10] = X[3], y[3]
    X[20], y[20] = X[4], (y[4] + 1) % 3
    found = lsi.redundancy(X, y, probe=PROBE, threshold=0.999)
    assert found["redundancy_group"].iloc[10] == found["redundancy_group"].iloc[3] >= 0
    assert found["redundancy_group"].iloc[20] == -1
    by_features = lsi.redundancy(X, y, probe=PROBE, threshold=0.999, by="features")
    assert by_features["redundancy_group"].iloc[20] == by_features["redundancy_group"].iloc[4] >= 0


def test_scale_and_rotation_of_features_change_nothing():
    X, y = clusters()
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0].astype(np.float32)
    np.testing.assert_allclose(similarities(X @ rotation, y), similarities(X, y), atol=2e-3)


def test_a_thousand_copies_need_no_room_for_pairs():
    X, y = clusters(40)
    X, y = np.concatenate([X, np.repeat(X[:1], 2000, 0)]), np.concatenate([y, np.repeat(y[:1], 2000)])
    found = lsi.redundancy(X, y, probe=PROBE, threshold=1.0)
    assert (found["redundancy_group"] == 0).sum() >= 2001
    assert found["representative"].iloc[-1] == 0


def test_the_most_informative_sample_represents_its_group():
    X, y = load_iris(return_X_y=True)
    scores = lsi.score(X, y, probe=PROBE, audit=False)
    table = scores.with_redundancy(X, threshold=0.9).to_frame()
    kept = scores.with_redundancy(X, threshold=0.9).select(drop_redundant=True)
    assert 0 < (table["redundancy_group"] >= 0).sum() < 150
    for _, members in table[table["redundancy_group"] >= 0].groupby("redundancy_group"):
        stays = members[members["position"].isin(kept)]
        assert stays["lsi"].tolist() == [members["lsi"].max()]


def test_groups_are_kept_on_disk_and_partial_scores_need_all_labels(tmp_path):
    X, y = load_iris(return_X_y=True)
    scores = lsi.score(X, y, probe=PROBE, audit=False, subset=np.arange(0, 150, 2))
    with pytest.raises(InputError, match="pass all labels"):
        scores.with_redundancy(X)
    found = scores.with_redundancy(X, y)
    found.save(tmp_path / "scores")
    again = lsi.load(tmp_path / "scores")
    assert again.to_frame()["redundancy_group"].equals(found.to_frame()["redundancy_group"])
    assert again.manifest["redundancy"] == {"threshold": 0.7, "by": "influence"}
    with pytest.raises(InputError, match="X has 10 rows"):
        scores.with_redundancy(X[:10], y[:10])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "threshold must lie"),
        ({"by": "pixels"}, "'influence', 'features'"),
        ({"lsi": np.ones(3)}, "lsi has 3 entries"),
    ],
)
def test_what_cannot_be_asked_for(arguments, message):
    with pytest.raises(InputError, match=message):
        lsi.redundancy(*clusters(), **arguments)


def test_a_sample_without_influence_belongs_to_nobody():
    found = group_around(torch.zeros((3, 2)), np.arange(3), 0.7)
    assert found.group.tolist() == [-1, -1, -1]
