"""Which labels are wrong: the estimate on planted noise, the list, and what a run says about it."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris, make_classification, make_gaussian_quantiles
from tests.score_cases import make

import lsi
from lsi.analysis import detection_quality
from lsi.analysis.label_noise import longest_list
from lsi.cli import main
from lsi.data.corruption.labels import corrupt_labels
from lsi.errors import InputError
from lsi.noisy_labels.estimate import estimate_label_noise, scaled
from lsi.noisy_labels.stage import worthwhile
from lsi.validation.problem import Shape


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def iris_scores():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    given = corrupt_labels(y, 0.1, seed=2).labels
    return lsi.score(X, names[given], audit=False), names[y]


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 0.1), ("symmetric", 0.3), ("pairwise", 0.25)])
def test_planted_noise_is_found_counted_and_corrected(digits, kind, rate):
    X, y = digits
    given = corrupt_labels(y, rate, seed=0, kind=kind).labels
    found = estimate_label_noise(X, given, 10)
    wrong = given != y
    quality = detection_quality(found.wrong_probability, wrong)
    assert quality["auroc"] > 0.985
    assert quality["average_precision"] > 0.95
    assert_allclose(found.wrong_probability.sum(), wrong.sum(), rtol=0.25)
    flagged = wrong & (found.wrong_probability > 0.5)
    assert flagged.sum() > 0.7 * wrong.sum()
    assert (found.suggested[flagged] == y[flagged]).mean() > 0.9
    # The noise matrix shows which kind of noise it is.
    following = found.noise_matrix[np.arange(10), (np.arange(10) + 1) % 10]
    expected = rate if kind == "pairwise" else rate / 9
    assert_allclose(following.mean(), expected, atol=0.05)


def test_pairwise_noise_is_found_better_than_by_the_left_out_probability(digits):
    X, y = digits
    given = corrupt_labels(y, 0.25, seed=1, kind="pairwise").labels
    scores = lsi.score(X, given, method=lsi.Newton(tol=None), audit=False, probe=lsi.LinearProbe(1e-2))
    frame = scores.to_frame()
    wrong = given != y
    ours = detection_quality(frame["wrong_probability"], wrong)["average_precision"]
    plain = detection_quality(1 - frame["loo_probability"], wrong)["average_precision"]
    assert ours > plain + 0.05


def test_few_clean_samples_accuse_hardly_anybody(digits):
    X, y = digits
    found = estimate_label_noise(X, y, 10)
    assert found.wrong_probability.sum() < 0.04 * len(y)
    small = estimate_label_noise(X[:60], y[:60], 10)
    assert small.wrong_probability.sum() < 0.15 * 60


def test_imbalanced_classes_keep_their_rare_members(digits):
    X, y = digits
    rare = np.flatnonzero(y == 3)[:8]
    keep = np.sort(np.concatenate([np.flatnonzero((y == 0) | (y == 1)), rare]))
    codes = np.where(y[keep] == 3, 2, y[keep])
    found = estimate_label_noise(X[keep], codes, 3)
    assert found.wrong_probability[codes == 2].mean() < 0.3


@pytest.mark.parametrize(
    ("X", "y", "c"),
    [
        (np.zeros((6, 2)), np.array([0, 1, 0, 1, 0, 1]), 2),  # nothing to see
        (np.arange(4.0)[:, None], np.array([0, 0, 1, 1]), 2),  # hardly any samples
        (np.eye(5), np.arange(5), 5),  # one sample a class
        (np.full((8, 3), 1e30) * np.arange(8)[:, None], np.arange(8) % 2, 2),
    ],
)
def test_odd_data_give_probabilities(X, y, c):
    found = estimate_label_noise(X, y, c)
    assert ((found.wrong_probability >= 0) & (found.wrong_probability <= 1)).all()
    assert np.isfinite(found.flip_gain).all()
    assert_allclose(found.noise_matrix.sum(1), 1)


def test_the_order_of_samples_does_not_matter():
    X, y = load_iris(return_X_y=True)
    given = corrupt_labels(y, 0.1, seed=3).labels
    order = np.random.default_rng(0).permutation(len(y))
    one, other = estimate_label_noise(X, given, 3), estimate_label_noise(X[order], given[order], 3)
    # Fits stop near the optimum, on paths that rounding changes.
    assert_allclose(other.wrong_probability, one.wrong_probability[order], atol=0.02)


def test_units_of_columns_do_not_decide_alone():
    X, y = load_iris(return_X_y=True)
    spread = scaled(X * [1.0, 1.0, 1.0, 1e6]).std(0)
    assert spread.max() < 25 * spread.min()
    assert (scaled(np.ones((4, 3))) == 0).all()


def test_a_run_stores_the_estimate_and_saves_it(iris_scores, tmp_path):
    scores, truth = iris_scores
    entry = scores.manifest["label_noise"]
    frame = scores.to_frame()
    assert_allclose(entry["n_wrong"], frame["wrong_probability"].sum())
    assert entry["top"][-1]["n"] == 150
    loaded = lsi.load(scores.save(tmp_path / "scores"))
    pd.testing.assert_frame_equal(loaded.mislabeled(), scores.mislabeled())
    summary = loaded.label_noise
    assert list(summary.noise_matrix.columns) == ["setosa", "versicolor", "virginica"]
    assert_allclose(summary.wrong_in_top(10), np.sort(frame["wrong_probability"])[-10:].sum())
    assert "of 150 labels are estimated to be wrong" in str(summary)
    worst = scores.mislabeled(top=10)
    given = worst["label"].to_numpy()
    right = truth[worst["sample_id"].to_numpy()]
    assert (given != right).mean() >= 0.9


def test_a_subset_gets_the_estimate_of_all_samples():
    X, y = load_iris(return_X_y=True)
    given = corrupt_labels(y, 0.1, seed=2).labels
    rows = [140, 3, 77]
    everything = lsi.score(X, given, audit=False).to_frame()
    some = lsi.score(X, given, subset=rows, audit=False)
    assert_array_equal(some.to_frame()["wrong_probability"], everything["wrong_probability"].iloc[rows])
    assert_allclose(some.manifest["label_noise"]["n_wrong"], some.to_frame()["wrong_probability"].sum())


def test_it_can_be_left_out_and_the_list_still_works():
    X, y = load_iris(return_X_y=True)
    scores = lsi.score(X, y, audit=False, label_noise=False)
    assert "wrong_probability" not in scores.to_frame()
    assert "label_noise" not in scores.manifest
    frame = scores.mislabeled(top=3)
    assert_allclose(frame["wrong_probability"], np.sort(1 - scores.to_frame()["loo_probability"])[::-1][:3])
    with pytest.raises(InputError, match="label_noise=True"):
        _ = scores.label_noise
    with pytest.raises(InputError, match="label_noise must be"):
        lsi.score(X, y, label_noise="yes")


def test_fdr_gives_the_longest_list_that_keeps_it(iris_scores):
    scores, _ = iris_scores
    everything = scores.mislabeled()["wrong_probability"].to_numpy()
    for fdr in (0.0, 0.05, 0.2, 0.5, 1.0):
        n = len(scores.mislabeled(fdr=fdr))
        # Directly: the mean of what is right over every possible list.
        allowed = [m for m in range(1, 151) if (1 - everything[:m]).mean() <= fdr + 1e-12]
        assert n == max(allowed, default=0)
    assert longest_list(np.empty(0), 0.1) == 0
    assert len(scores.mislabeled(fdr=0.2, top=2)) == 2


def test_the_list_of_calibrated_columns():
    extra = {"wrong_probability": [0.1, 0.9, 0.2, 0.5, 0.5]}
    extra["suggested_label"] = ["cat", "owl", "dog", "dog", "cat"]
    scores = make(**extra)
    frame = scores.mislabeled()
    columns = ["sample_id", "label", "suggested_label", "wrong_probability", "lsi", "loo_prediction"]
    assert list(frame) == columns
    assert frame["sample_id"].iloc[0] == "id-1"
    assert_array_equal(frame["wrong_probability"], [0.9, 0.5, 0.5, 0.2, 0.1])
    assert frame["lsi"].iloc[1] >= frame["lsi"].iloc[2]


@pytest.mark.parametrize("fdr", [-0.1, 1.1, "0.1", True, float("nan")])
def test_unusable_fdr(fdr):
    with pytest.raises(InputError, match="fdr must be between 0 and 1"):
        make().mislabeled(fdr=fdr)


@pytest.mark.parametrize("top", [0, -3, 1.5, True])
def test_unusable_top(top):
    with pytest.raises(InputError, match="top must be a positive integer"):
        make().mislabeled(top=top)


def test_what_is_too_large_is_left_to_the_user():
    assert worthwhile(Shape(50_000, 513, 10, 50_000))
    assert worthwhile(Shape(1797, 65, 10, 5))
    assert not worthwhile(Shape(50_000, 513, 10, 100))  # all samples would be fitted for the sake of few
    assert not worthwhile(Shape(1_280_000, 2049, 1000, 1_280_000))


def test_given_probabilities_take_the_place_of_the_estimate(iris_scores, tmp_path, capsys):
    scores, truth = iris_scores
    classes = np.array(scores.classes)
    p = np.where(truth[:, None] == classes, 0.96, 0.02)
    frame = scores.mislabeled(pred_probs=p)
    wrong = scores.to_frame()["label"].to_numpy() != truth
    assert set(frame["sample_id"].head(wrong.sum())) == set(np.flatnonzero(wrong))
    assert "flip_gain" not in frame  # it is the run's own
    np.save(tmp_path / "p.npy", p)
    np.savez(tmp_path / "p.npz", pred_probs=p, other=np.zeros(3))
    folder = str(scores.save(tmp_path / "scores"))
    found = []
    for name in ("p.npy", "p.npz"):
        assert main(["mislabeled", folder, "--pred-probs", str(tmp_path / name), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert found[0]["rows"][0]["sample_id"] == frame["sample_id"][0]
    low, high = found[0]["interval"]
    assert low <= wrong.sum() <= high
    some = scores.with_table(scores.to_frame().iloc[10:60])
    assert len(some.mislabeled(pred_probs=p)) == len(some.mislabeled(pred_probs=p[10:60])) == 50
    with pytest.raises(InputError, match="has 7 rows"):
        scores.mislabeled(pred_probs=p[:7])
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    assert main(["mislabeled", folder, "--pred-probs", str(tmp_path / "bad.npy")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_words_say_what_the_data_can_tell(iris_scores):
    scores, _ = iris_scores
    low, high = scores.label_noise.interval
    assert low <= scores.label_noise.n_wrong <= high
    assert f"between {low:,.0f} and {high:,.0f}" in str(scores.label_noise)
    X, y = load_iris(return_X_y=True)
    clean = lsi.score(X, y, audit=False)
    assert not len(clean.mislabeled(fdr=0.1))
    assert "There may be none" in str(clean.label_noise)


def test_separated_classes_with_many_wrong_labels_are_counted():
    random = np.random.default_rng(0)
    z = random.integers(0, 6, 1500)
    centres = random.normal(size=(6, 20))
    X = 7 * (centres / np.linalg.norm(centres, axis=1, keepdims=True))[z] + random.normal(size=(1500, 20))
    y = corrupt_labels(z, 0.4, 1, kind="pairwise").labels
    found = estimate_label_noise(X, y, 6)
    assert_allclose(found.wrong_probability.sum(), 600, rtol=0.1)
    assert detection_quality(found.wrong_probability, y != z)["average_precision"] > 0.99


def test_clean_classes_with_heavy_tails_do_not_look_wrong():
    """A linear head is the surer of a class the farther out a row is: one label in ten looked wrong."""
    random = np.random.default_rng(50)
    z, centres = random.integers(0, 4, 900), random.normal(size=(4, 8))
    found = lsi.find_label_errors(centres[z] + random.standard_t(5, size=(900, 8)), z)
    assert found.n_wrong <= 0.01 * len(z)
    assert not found.suspects(fdr=0.1).size


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_classes_around_one_another_do_not_look_wrong(rate):
    """Directions alone do not know how far from the centre a row lies: half of these labels looked wrong."""
    X, y = make_gaussian_quantiles(n_samples=1200, n_features=4, n_classes=4, random_state=0)
    random = np.random.default_rng(1)
    wrong = random.random(len(y)) < rate
    given = np.where(wrong, (y + random.integers(1, 4, len(y))) % 4, y)
    found = lsi.find_label_errors(X, given)
    low, high = found.interval
    assert low <= wrong.sum() <= high
    assert (found.wrong_probability[~wrong] > 0.5).mean() <= 0.01
    if rate:
        assert (found.wrong_probability[wrong] > 0.5).mean() > 0.5


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_classes_of_several_clusters_do_not_look_wrong(rate):
    X, z = make_classification(
        2500,
        12,
        n_informative=8,
        n_classes=4,
        weights=[0.5, 0.3, 0.1],
        class_sep=1.5,
        flip_y=0,
        random_state=2,
    )
    y = corrupt_labels(z, rate, 1).labels if rate else z
    found = estimate_label_noise(X, y, 4)
    if not rate:  # a linear head gives every fifth sample to another class
        assert (found.wrong_probability > 0.5).mean() <= 0.01
        assert not found.at_least.any()
    else:
        assert detection_quality(found.wrong_probability, y != z)["average_precision"] > 0.85


@pytest.mark.parametrize(("n", "apart"), [(60, 3.0), (240, 3.0), (240, 6.0), (600, 6.0)])
def test_wrong_labels_are_counted_in_small_data_whose_classes_are_apart(n, apart):
    """What would explain a misfit as well, such as the labels of neighbours, explains these away too."""
    random, true = np.random.default_rng(0), np.arange(n) % 3
    X = random.normal(size=(n, 3)) + apart * np.eye(3)[true]
    given = np.where(np.arange(n) % 12 == 3, (true + 1) % 3, true)
    found = lsi.find_label_errors(X, given)
    assert_allclose(found.n_wrong, (given != true).sum(), rtol=0.2)
    assert found.interval[0] > 0
    listed = found.suspects(fdr=0.1)
    assert (given != true)[listed].mean() > 0.75
