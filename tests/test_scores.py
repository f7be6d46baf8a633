"""What a result shows: arrays, rankings, summaries, text and HTML."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal
from tests.score_cases import AUDIT, LSI, MANIFEST, make

from lsi.errors import InputError
from lsi.results.table import json_label
from lsi.scores import Scores


def test_arrays_and_length():
    scores = make()
    assert len(scores) == 5
    assert scores.lsi.dtype == scores.mean_term.dtype == scores.covariance_term.dtype == np.float64
    assert_array_equal(scores.lsi, LSI)
    assert_array_equal(scores.lsi, scores.mean_term + scores.covariance_term)
    assert_array_equal(scores.sample_id, [f"id-{i}" for i in range(5)])


def test_what_is_handed_out_is_a_copy():
    scores = make()
    scores.lsi[:] = -1
    for frame in (scores.to_frame(), scores.top(), scores.bottom()):
        frame["lsi"] = -1.0
    assert_array_equal(scores.lsi, LSI)


def test_the_table_that_was_given_is_not_kept():
    frame = make().to_frame()
    scores = Scores(frame, MANIFEST)
    frame["lsi"] = -1.0
    assert_array_equal(scores.lsi, LSI)


def test_top_and_bottom_keep_the_order_of_ties():
    scores = make()
    assert scores.top(3)["sample_id"].tolist() == ["id-1", "id-3", "id-0"]
    assert scores.bottom(2)["sample_id"].tolist() == ["id-2", "id-4"]
    assert len(scores.top()) == len(scores.bottom(99)) == 5


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_that_is_no_count(k):
    with pytest.raises(InputError, match="k must be a positive integer"):
        make().top(k)
    with pytest.raises(InputError, match="k must be a positive integer"):
        make().bottom(k)


def test_class_summary():
    expected = pd.DataFrame(
        {
            "label": ["cat", "dog", "owl"],
            "n": [2, 2, 1],
            "mean_lsi": [0.3, 3.0, 0.2],
            "median_lsi": [0.3, 3.0, 0.2],
            "mean_loo_probability": [0.825, 0.125, 0.5],
            "loo_accuracy": [1.0, 0.0, 1.0],
        }
    )
    assert_frame_equal(make().class_summary(), expected)


def test_mislabeled_is_worst_first():
    frame = make(lsi=[0.5, 3.0, 0.1, 4.0, 0.2]).mislabeled()
    assert list(frame)[:5] == ["sample_id", "label", "suggested_label", "wrong_probability", "lsi"]
    assert frame["sample_id"].tolist() == ["id-3", "id-1", "id-4", "id-0", "id-2"]  # a tie goes by LSI
    assert frame["suggested_label"].tolist() == ["owl", "cat", None, None, None]
    assert_array_equal(frame["wrong_probability"], [0.875, 0.875, 0.5, 0.25, 1 - 0.9])


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 0, 1, 2], [True, False] * 2 + [True], [(0, 1), (2,), (0, 1), (2,), (3,)], [1, "1", 1, "1", None]],
)
def test_labels_of_any_type_can_be_summarised(labels):
    labels = ["none" if label is None else label for label in labels]
    scores = make(labels=labels, predicted=labels)
    assert scores.mislabeled()["suggested_label"].isna().all()
    assert set(scores.mislabeled()["label"]) == set(labels)
    assert set(scores.class_summary()["label"]) == set(labels)
    assert scores.class_summary()["loo_accuracy"].eq(1.0).all()


def test_repr():
    assert repr(make()) == (
        "Scores of 5 samples in 3 classes\n"
        "  LSI in nats: lowest 0.1, median 0.5, highest 3\n"
        f"  {AUDIT.summary()}"
    )
    assert repr(make(audit=None, manifest={})).endswith(
        "in 3 classes\n" + repr(make(audit=None)).split("\n", 1)[1]
    )
    assert "No audit was run." in repr(make(audit=None))


def test_html_escapes_everything_from_outside():
    evil = "<script>alert('x')</script>&"
    page = make(
        labels=[evil] * 5, predicted=[evil] * 5, ids=[f"<img src={i}>" for i in range(5)]
    )._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;img src=1&gt;" in page
    assert "Highest LSI" in page


def test_a_table_without_its_columns_is_refused():
    frame = make().to_frame().drop(columns=["lsi", "label"])
    with pytest.raises(InputError, match=r"lacks the columns \['label', 'lsi'\]"):
        Scores(frame, MANIFEST)


def test_the_manifest_holds_json_values():
    manifest = {
        "classes": np.array(["a", 1, (2, 3)], dtype=object),
        "timings": {"fit": np.float32(0.5), "refine": np.nan},
        "config": {"path": Path("x"), "sizes": (1, np.int64(2)), "other": complex(1, 2)},
        1: "key",
    }
    stored = make(manifest=manifest).manifest
    assert stored["classes"] == ["a", 1, "(2, 3)"]
    assert stored["timings"] == {"fit": 0.5, "refine": None}
    assert stored["config"] == {"path": "x", "sizes": [1, 2], "other": "(1+2j)"}
    assert stored["1"] == "key"
    assert stored["audit"] == AUDIT.to_dict()
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored


@pytest.mark.parametrize(
    ("label", "expected"),
    [(1, 1), (np.int64(1), 1), (True, True), ("a", "a"), (np.str_("a"), "a"), ((1, 2), "(1, 2)")],
)
def test_labels_in_manifests(label, expected):
    value = json_label(label)
    assert value == expected
    assert type(value) is type(expected)
