import json

import numpy as np
import pandas as pd
import pytest

from lsi.data import Samples
from lsi.errors import InputError
from lsi.report import summarize
from lsi.scores import Scores


@pytest.mark.parametrize("planted", [0, 6])
@pytest.mark.parametrize("images", [True, False, None])
def test_a_summary_is_json_and_complete(make_scores, make_samples, planted, images):
    scores = make_scores(planted=planted)
    samples = None if images is None else make_samples(scores, images=images)
    summary = summarize(scores, samples)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["gallery"]["kind"] == {True: "image", False: "features", None: "none"}[images]
    assert (summary["detection"] is not None) == bool(planted)


def test_the_gallery_shows_both_ends_in_order_and_once(make_scores):
    scores = make_scores(n=60)
    gallery = summarize(scores)["gallery"]
    assert [card["rank"] for card in gallery["highest"]] == list(range(1, 25))
    assert [card["rank"] for card in gallery["lowest"]] == list(range(60, 36, -1))
    assert gallery["highest"][0]["lsi"] == scores.lsi.max()
    assert gallery["lowest"][0]["lsi"] == scores.lsi.min()


@pytest.mark.parametrize("n", [3, 4, 5, 47, 49])
def test_a_small_gallery_never_shows_a_sample_twice(make_scores, n):
    gallery = summarize(make_scores(n=n, audited=2))["gallery"]
    shown = [card["sample_id"] for end in ("highest", "lowest") for card in gallery[end]]
    assert len(shown) == len(set(shown)) == min(n, 48)


def test_integer_ids_and_labels_stay_integers(make_scores):
    card = summarize(make_scores(labels=(0, 1)))["gallery"]["highest"][0]
    assert card["sample_id"] == "59"
    assert card["label"] in ("0", "1")


def test_detection_counts_what_was_planted(make_scores):
    found = summarize(make_scores(n=60, planted=6))["detection"]
    assert (found["auroc"], found["average_precision"]) == (1.0, 1.0)
    assert (found["n_positive"], found["found_at_n_positive"]) == (6, 6)
    assert found["curve"][0] == [0.0, 0.0]
    assert found["curve"][-1] == [1.0, 1.0]
    assert found["corruption"]["rate"] == 0.1


def test_detection_is_left_out_where_only_planted_errors_were_scored(make_scores):
    scores = make_scores(planted=6)
    only = Scores(scores.to_frame().tail(6), scores.manifest, None)
    assert summarize(only)["detection"] is None


def test_the_histogram_holds_every_sample_once(make_scores):
    spread = summarize(make_scores(n=60, planted=6))["distribution"]
    assert sum(spread["counts"]) == 60
    assert sum(spread["planted"]) == 6
    assert spread["log10_edges"][0] == -4
    assert spread["log10_edges"][-1] == 1


def with_lsi(scores, values):
    table = scores.to_frame().assign(lsi=values)
    return Scores(table, scores.manifest, None)


@pytest.mark.parametrize(
    ("values", "vanishing"),
    [(np.zeros(4), 4), (np.array([0, 0, 1e-30, 2.0]), 3), (np.full(4, 0.5), 0), (np.full(4, 1.0), 0)],
)
def test_vanishing_and_equal_values(make_scores, values, vanishing):
    spread = summarize(with_lsi(make_scores(n=4, audited=0), values))["distribution"]
    assert spread["n_vanishing"] == vanishing
    assert sum(spread["counts"]) == 4 - vanishing


def test_scores_that_are_not_finite_are_counted_not_drawn(make_scores):
    scores = make_scores(n=10, audited=0)
    summary = summarize(with_lsi(scores, [np.nan, np.inf, *scores.lsi[2:]]))
    assert summary["overview"]["n_not_finite"] == 2
    assert summary["overview"]["n_scored"] == 8
    with pytest.raises(InputError, match="no finite score"):
        summarize(with_lsi(scores, np.full(10, np.nan)))


def test_classes_come_highest_mean_first_with_their_counts(make_scores):
    scores = make_scores(n=61, planted=6)
    classes = summarize(scores)["classes"]
    frame = scores.to_frame()
    expected = frame.groupby("label")["lsi"].mean().sort_values(ascending=False)
    assert [row["label"] for row in classes] == expected.index.tolist()
    np.testing.assert_allclose([row["mean"] for row in classes], expected)
    assert sum(row["n"] for row in classes) == 61
    assert sum(row["n_planted"] for row in classes) == 6


def test_class_names_come_from_the_samples_or_the_manifest(make_scores, make_samples):
    scores = make_scores(labels=(0, 1))
    named = Scores(scores.to_frame(), {**scores.manifest, "class_names": {"0": "malignant"}}, None)
    assert {row["label"] for row in summarize(named)["classes"]} == {"malignant", "1"}


def test_samples_of_another_run_are_refused(make_scores, make_samples):
    scores = make_scores(n=60)
    with pytest.raises(InputError, match="30 samples here, 60 there"):
        summarize(scores, make_samples(make_scores(n=30)))
    renamed = make_samples(make_scores(n=60, ids=[f"id{k}" for k in range(60)]))
    with pytest.raises(InputError, match="other ids"):
        summarize(scores, renamed)


def test_a_subset_finds_its_rows_in_the_samples(make_scores, make_samples):
    scores = make_scores(n=60)
    samples = make_samples(scores)
    part = Scores(scores.to_frame().iloc[[7, 3, 50]], scores.manifest, None)
    samples.images[50] = 200
    card = summarize(part, samples)["gallery"]["highest"][0]
    whole = summarize(scores, samples)["gallery"]["highest"]
    assert card["sample_id"] == "50"
    assert card["image"] == next(c["image"] for c in whole if c["sample_id"] == "50")


def test_a_feature_profile_names_the_most_unusual_features(make_scores):
    scores = make_scores(n=20)
    features = np.tile(np.array([[-1.0], [1.0]]), (10, 5))
    features[19, 3] = 50.0
    samples = Samples(
        name="animals",
        ids=np.arange(20),
        labels=scores.to_frame()["label"].to_numpy(),
        features=features,
        feature_names=("a", "b", "c", "weight", "e"),
    )
    card = summarize(scores, samples)["gallery"]["highest"][0]
    assert card["striking"][0]["name"] == "weight"
    assert len(card["profile"]) == 5
    assert max(card["profile"]) == 3.0


def test_an_audit_that_overflows_stays_json(make_scores):
    scores = make_scores()
    values = scores.audit.to_dict() | {"max_relative_error": float("inf"), "spearman": float("nan")}
    audit = type(scores.audit).from_dict(values)
    summary = summarize(Scores(pd.DataFrame(scores.to_frame()), scores.manifest, audit))
    assert summary["audit"]["max_relative_error"] is None
    json.dumps(summary, allow_nan=False)
