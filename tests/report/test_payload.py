import base64
import json

import numpy as np
import pandas as pd
import pytest

from lsi.report import faces, payload
from lsi.report.encode import pack, pack_ids, script_json
from lsi.scores import Scores

TYPES = {"i1": "<i1", "i2": "<i2", "i4": "<i4", "f4": "<f4"}


def unpack(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), TYPES[packed["type"]])


def unpack_ids(ids, n):
    """Follow the description in `pack_ids`, independently of the page's program."""
    if ids["kind"] == "range":
        return list(range(ids["start"], ids["start"] + n))
    if ids["kind"] == "number":
        return unpack(ids).tolist()
    found = []
    for shared, rest in zip(unpack(ids["shared"]), ids["rest"], strict=True):
        found.append((found[-1][:shared] if found else "") + rest)
    return found


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 127], "i1"), ([-1, 128], "i2"), ([0, 40000], "i4"), ([True, False], "i1"), ([0.5, np.nan], "f4")],
)
def test_columns_survive_in_the_smallest_type(values, kind):
    packed = pack(np.array(values))
    assert packed["type"] == kind
    np.testing.assert_array_equal(unpack(packed), values)


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ([0, 1, 2], "range"),
        ([5], "range"),
        ([3, 1, -2], "number"),
        ([2**40, 7], "text"),
        (["a/img1.png", "a/img2.png", "a/img2.png!", ""], "text"),
        (["😀x", "😀y", "\u202egnp", "\ud800"], "text"),
        ([True, False], "text"),
        (["x" * 300 + "1", "x" * 300 + "2"], "text"),
    ],
)
def test_ids_survive_exactly(ids, kind):
    packed = json.loads(script_json(pack_ids(ids)))
    assert packed["kind"] == kind
    assert [str(i) for i in unpack_ids(packed, len(ids))] == [str(i) for i in ids]


def test_prefixes_end_where_a_browser_counts_differently():
    shared = unpack(pack_ids(["ab😀1", "ab😀2"])["shared"])
    assert shared.tolist() == [0, 2]


def test_no_text_ends_the_element():
    text = script_json(["</script><!--", "&amp;", "\u2028\u2029\u202e\x00\x1b\x7f", "\ud800"])
    assert not set("<>&\u2028\u2029\u202e\x00\x1b\x7f") & set(text)
    assert text.isascii()
    assert json.loads(text) == ["</script><!--", "&amp;", "\u2028\u2029\u202e\x00\x1b\x7f", "\ud800"]


def test_rows_are_those_of_the_table(make_scores, make_samples):
    scores = make_scores(planted=6)
    frame = scores.to_frame()
    data = payload.page_data(scores, make_samples(scores))
    columns = {name: unpack(column) for name, column in data["columns"].items()}
    np.testing.assert_allclose(columns["lsi"], scores.lsi, rtol=1e-6)
    for name, column in (
        ("label", "label"),
        ("prediction", "loo_prediction"),
        ("original", "original_label"),
    ):
        assert [data["labels"]["values"][code] for code in columns[name]] == list(frame[column])
    np.testing.assert_array_equal(columns["planted"], frame["corrupted"])
    agrees = (frame["label"] == frame["loo_prediction"]).to_numpy()
    np.testing.assert_array_equal(columns["suggested"] == -1, agrees)
    assert len(data["faces"]["items"]) == len(set(unpack(data["faces"]["rows"]))) == 60


def test_estimates_of_the_run_go_before_the_left_out_model(make_scores):
    frame = make_scores().to_frame()
    frame["wrong_probability"] = np.linspace(0, 1, 60)
    frame["suggested_label"] = [None] * 30 + ["dog"] * 30
    data = payload.page_data(Scores(frame, make_scores().manifest))
    columns = {name: unpack(column) for name, column in data["columns"].items()}
    np.testing.assert_allclose(columns["wrong_probability"], frame["wrong_probability"], rtol=1e-6)
    expected = [None if k < 30 or frame["label"][k] == "dog" else "dog" for k in range(60)]
    values = [*data["labels"]["values"], None]
    assert [values[code] for code in columns["suggested"]] == expected


def test_integer_suggestions_that_a_table_stored_as_floats_are_the_same_labels(make_scores):
    scores = make_scores(labels=(0, 1, 2))
    frame = scores.to_frame().assign(wrong_probability=0.9)
    frame["suggested_label"] = np.where(np.arange(60) % 2, 2.0, np.nan)
    data = payload.page_data(Scores(frame, scores.manifest))
    assert data["labels"]["values"] == [0, 1, 2]


@pytest.mark.parametrize("task", ["regression", "multilabel", "contrastive"])
def test_other_tasks_have_no_classes(make_scores, task):
    scores = make_scores()
    frame = scores.to_frame()
    if task == "regression":
        frame["label"], frame["loo_prediction"] = np.linspace(0, 5, 60), np.linspace(0.1, 5.1, 60)
    data = payload.page_data(Scores(frame, {**scores.manifest, "task": task}))
    assert data["task"] == task
    assert "suggested" not in data["columns"]
    assert "wrong_probability" not in data["columns"]
    if task == "regression":
        np.testing.assert_allclose(unpack(data["columns"]["label"]), frame["label"], rtol=1e-6)


def test_a_long_run_keeps_both_ends_and_says_so(make_scores):
    scores = make_scores(n=100, audited=0)
    data = payload.page_data(scores, most_rows=50)
    kept = unpack(data["columns"]["lsi"])
    assert len(kept) == data["n"] == 50
    np.testing.assert_allclose(np.sort(kept)[:10], np.sort(scores.lsi)[:10], rtol=1e-6)
    np.testing.assert_allclose(np.sort(kept)[-10:], np.sort(scores.lsi)[-10:], rtol=1e-6)
    assert "50 of 100" in payload.describes(data)
    assert payload.describes(payload.page_data(make_scores(n=20))) == ""


def test_faces_cover_ends_suspects_classes_and_the_whole_range():
    rng = np.random.default_rng(0)
    lsi, codes = rng.random(5000), np.arange(5000) % 50
    rows = faces.choose_faces(lsi, codes, np.arange(100, 300), None)
    order = np.argsort(-lsi)
    assert len(rows) == len(set(rows)) == faces.MOST_FACES
    assert set(order[:60]) | set(order[-60:]) | set(range(100, 260)) <= set(rows)
    assert np.bincount(codes[rows]).min() >= 4
    # What is left of the budget is spread evenly: no stretch of 100 ranks is without a face.
    ranks = np.sort(np.argsort(order)[rows])
    assert np.diff(ranks).max() < 100


def test_the_largest_groups_have_faces_and_the_highest_members_first():
    rng = np.random.default_rng(1)
    n = 20_000
    lsi, groups = rng.permutation(n) + 1.0, np.full(n, -1)
    where = rng.permutation(np.arange(n))
    groups[where[:12]], groups[where[12:20]], groups[where[20:23]] = 7, 3, 5
    groups[where[100:4100]] = 10 + np.arange(4000) // 2
    rows = set(faces.choose_faces(lsi, None, np.zeros(0, dtype=np.int64), groups))
    for group, size in ((7, 6), (3, 6), (5, 3)):
        members = np.flatnonzero(groups == group)
        assert set(members[np.argsort(-lsi[members])][:size]) <= rows


def test_faces_stay_within_their_budget(make_scores, make_samples):
    assert faces.face_budget(10**9, 3000) <= faces.face_budget(0, 3000) == 3000
    assert faces.face_budget(10**9) < faces.face_budget(0) == faces.FACE_BYTES
    scores = make_scores()
    data = payload.page_data(scores, make_samples(scores), face_bytes=3000)
    assert 0 < len(data["faces"]["items"]) < 60
    assert len(script_json(data["faces"]["items"])) < 3000 + 100


def test_redundancy_groups_travel_with_the_rows(make_scores):
    frame = make_scores().to_frame().assign(redundancy_group=np.where(np.arange(60) < 6, 2, -1))
    data = payload.page_data(Scores(pd.DataFrame(frame), make_scores().manifest))
    assert unpack(data["columns"]["group"]).tolist() == [2] * 6 + [-1] * 54
