"""Explanations of single predictions against training again."""

import numpy as np
import pandas as pd
import pytest
from tests.fitted.data import CASES, Asked, blobs, one
from tests.oracles.refits import SigmoidRefits

import lsi

NAMED = ["three classes", "two classes", "twins", "more features than samples"]


@pytest.mark.parametrize("name", NAMED)
def test_changes_are_those_of_training_again(name):
    case = CASES[name]
    table = case.fitted.explain(case.new_x[:4], case.new_y[:4], k=3)
    for row in table.itertuples():
        query = slice(row.query, row.query + 1)
        asked = one(case.new_x)[query], case.new_y[query]
        exact = case.refits.loss_change([row.sample_id], *asked)[0]
        assert abs(row.loss_change - exact) <= row.relative_error * abs(row.loss_change) + 1e-9
        logit = case.refits.logit_change([row.sample_id], *asked)[0]
        assert row.logit_change == pytest.approx(logit, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_the_rows_of_the_largest_changes_are_found_in_order(name):
    case = CASES[name]
    table = case.fitted.explain(case.new_x[:6], case.new_y[:6], k=3)
    for query, part in table.groupby("query"):
        exact = case.exact[:, query]
        raised = part[part["rank"] > 0].sort_values("rank")["sample_id"].to_numpy()
        lowered = part[part["rank"] < 0].sort_values("rank", ascending=False)["sample_id"].to_numpy()
        np.testing.assert_allclose(exact[raised], np.sort(exact)[::-1][:3], rtol=1e-3)
        np.testing.assert_allclose(exact[lowered], np.sort(exact)[:3], rtol=1e-3)


def test_without_labels_the_models_own_predictions_are_explained():
    case = CASES["three classes"]
    predicted = case.refits.prediction(one(case.new_x))
    assert (predicted != case.new_y).any()
    own = case.fitted.explain(case.new_x, k=2)
    pd.testing.assert_frame_equal(own, case.fitted.explain(case.new_x, predicted, k=2))


def test_a_changed_prediction_is_that_of_training_again():
    case = CASES["three classes"]
    table = case.fitted.explain(case.new_x, case.new_y, k=5)
    before = case.refits.prediction(one(case.new_x))
    assert table["changes_prediction"].any()
    for row in table.itertuples():
        after = case.refits.prediction(one(case.new_x)[row.query : row.query + 1], [row.sample_id])[0]
        assert row.changes_prediction == (after != before[row.query])


def test_many_queries_are_asked_in_parts(monkeypatch):
    case = CASES["three classes"]
    whole = case.fitted.explain(case.new_x, k=2)
    monkeypatch.setattr("lsi.fitted.explain.TOGETHER", 7)
    pd.testing.assert_frame_equal(case.fitted.explain(case.new_x, k=2), whole)


def test_queries_keep_their_names():
    case = CASES["two classes"]
    frame = pd.DataFrame(case.new_x[:2], index=["left", "right"])
    assert case.fitted.explain(frame, k=1)["query"].tolist() == ["left", "left", "right", "right"]


@pytest.mark.parametrize("labels", [1, 2])
def test_sigmoid_heads_add_up(labels):
    x, _, new_x, _ = blobs(40, 5, seed=11)
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(4, labels))
    y, new_y = ((rows @ plane + rng.normal(size=(len(rows), labels)) > 0).astype(int) for rows in (x, new_x))
    given = (y[:, 0], new_y[:, 0]) if labels == 1 else (y, new_y)
    table = lsi.fit(x, given[0], probe=lsi.SigmoidProbe(1e-2)).explain(new_x, given[1], k=2)
    heads = [SigmoidRefits(one(x), y[:, k], 1e-2) for k in range(labels)]
    for row in table.iloc[::3].itertuples():
        query = slice(row.query, row.query + 1)
        exact = sum(
            head.loss_change([row.sample_id], one(new_x)[query], new_y[query, k])[0]
            for k, head in enumerate(heads)
        )
        assert abs(row.loss_change - exact) <= row.relative_error * abs(row.loss_change) + 1e-9


def test_the_smallest_change_changes_the_prediction_of_a_probe_trained_again():
    case = CASES["three classes"]
    table = case.fitted.smallest_change(case.new_x, limit=20)
    before = case.refits.prediction(one(case.new_x))
    assert table["found"].any()
    assert (table["prediction"] == before).all()
    for place, row in enumerate(table.itertuples()):
        assert row.n == len(row.sample_ids) == len(set(row.sample_ids)) <= 20
        if row.found:
            after = case.refits.prediction(one(case.new_x)[place : place + 1], row.sample_ids)[0]
            assert after == row.changes_to != before[place]


def test_one_row_is_found_wherever_one_row_is_enough():
    case = CASES["three classes"]
    before = case.refits.prediction(one(case.new_x))
    alone = np.array([case.refits.prediction(one(case.new_x), [i]) != before for i in range(48)]).any(0)
    table = case.fitted.smallest_change(case.new_x, limit=5)
    assert alone.any()
    assert ((table["n"] == 1).to_numpy() == alone).all()


def test_a_prediction_that_no_small_set_changes_is_said_to_be_so():
    case = CASES["separable"]
    table = case.fitted.smallest_change(case.new_x, limit=1)
    lost = table[~table["found"]]
    assert len(lost)
    assert (lost["n"] == 0).all() and lost["changes_to"].isna().all()


def test_every_class_keeps_a_row():
    x, y, new_x, _ = blobs(12, 6, classes=2, spread=4.0, seed=21, flipped=0.0)
    table = lsi.fit(x, y, probe=lsi.LinearProbe(1e-2)).smallest_change(new_x, limit=12)
    for removed in table["sample_ids"]:
        assert set(np.delete(y, removed)) == {0, 1}


def test_any_of_several_labels_may_change():
    x, _, new_x, _ = blobs(40, 5, seed=11)
    y = np.column_stack([x[:, 0] > 0, x[:, 1] + 0.5 * x[:, 2] > 0]).astype(int)
    table = lsi.fit(x, y, probe=lsi.SigmoidProbe(1e-2)).smallest_change(new_x, limit=20)
    heads = [SigmoidRefits(one(x), y[:, k], 1e-2) for k in range(2)]
    for place, row in enumerate(table.itertuples()):
        if row.found:
            keep = np.delete(np.arange(40), row.sample_ids)
            after = [SigmoidRefits(one(x)[keep], y[keep, k], 1e-2).theta for k in range(2)]
            old, new = (
                [float(one(new_x)[place] @ theta) > 0 for theta in thetas]
                for thetas in ([head.theta for head in heads], after)
            )
            assert old != new
    assert table["found"].any()


@pytest.mark.parametrize("name", ["three classes", "weights", "twins"])
def test_errors_are_those_of_a_probe_trained_again(name):
    case = CASES[name]
    found = case.fitted.errors(
        pd.DataFrame(case.new_x, index=[f"q{k}" for k in range(len(case.new_x))]), case.new_y
    )
    log_p = case.refits.log_p(case.refits.theta, one(case.new_x))
    loss = -log_p[np.arange(len(log_p)), case.new_y]
    wrong = np.flatnonzero(log_p.argmax(1) != case.new_y)
    assert len(wrong)
    assert found["position"].tolist() == sorted(wrong, key=lambda row: -loss[row])
    assert found["query"].tolist() == [f"q{row}" for row in found["position"]]
    np.testing.assert_allclose(found["loss"], loss[found["position"]], rtol=1e-5)
    assert found["label"].tolist() == case.new_y[found["position"]].tolist()
    assert found["prediction"].tolist() == log_p.argmax(1)[found["position"]].tolist()


def test_an_error_of_several_labels_is_a_wrong_set():
    x, _, new_x, _ = blobs(40, 9, seed=11)
    y, new_y = ((rows[:, :2] + 0.5 * rows[:, 2:4] > 0).astype(int) for rows in (x, new_x))
    found = lsi.fit(x, y, probe=lsi.SigmoidProbe(1.0)).errors(new_x, new_y)
    heads = [SigmoidRefits(one(x), y[:, k], 1.0) for k in range(2)]
    z = np.column_stack([one(new_x) @ head.theta for head in heads])
    loss = np.logaddexp(0, np.where(new_y == 1, -z, z)).sum(1)
    wrong = ((z > 0) != new_y).any(1)
    assert set(found["position"]) == set(np.flatnonzero(wrong)) != set()
    np.testing.assert_allclose(found["loss"], np.sort(loss[wrong])[::-1], rtol=1e-5)
    names = [", ".join(np.array(["0", "1"])[row]) or "(none)" for row in z > 0]
    assert found["prediction"].tolist() == [names[row] for row in found["position"]]


REFUSED = [
    (lambda f, x: f.errors(x, None), "y_val is None"),
    (lambda f, x: f.errors(x, ["zebra"] * len(x)), "never trained on: 'zebra'"),
    (lambda f, x: f.explain(x[:, :2]), "has 2 columns"),
    (lambda f, x: f.explain(x, [9] * len(x)), "never trained on: 9"),
    (lambda f, x: f.explain(x, [0]), "but y has 1 labels"),
    (lambda f, x: f.explain(x[:0]), "X is empty"),
    (lambda f, x: f.explain(np.full_like(x, np.nan)), "NaN"),
    (lambda f, x: f.explain([["a", "b", "c", "d"]]), "numbers"),
    (lambda f, x: f.explain(x, k=0), "k must be"),
    (lambda f, x: f.explain(x, k=2.5), "k must be"),
    (lambda f, x: f.smallest_change(x, limit=0), "limit must be"),
    (lambda f, x: f.values(x, None), "y_val is None"),
    (lambda f, x: f.values(x[:0], []), "X is empty"),
    (lambda f, x: f.values(x, ["zebra"] * len(x)), "never trained on: 'zebra'"),
    (lambda f, x: f.values(x, [0] * len(x), groups=[0]), "groups has 1 entries"),
    (lambda f, x: f.leaks(x[:, :3]), "has 3 columns"),
]


@pytest.mark.parametrize(("ask", "message"), REFUSED)
def test_bad_questions_are_refused_with_a_cure(ask, message):
    case = CASES["two classes"]
    with pytest.raises(lsi.InputError, match=message):
        ask(case.fitted, case.new_x)


def test_labels_of_several_are_matched_by_name():
    x, _, new_x, _ = blobs(30, 3, seed=12)
    given = [[name for name, on in zip("ab", row > 0, strict=False) if on] for row in x[:, :2]]
    fitted = lsi.fit(x, given, probe=lsi.SigmoidProbe(1e-2))
    by_name = fitted.explain(new_x, [["b"], ["b"], ["b"]], k=1)
    pd.testing.assert_frame_equal(by_name, fitted.explain(new_x, np.array([[0, 1]] * 3), k=1))
    with pytest.raises(lsi.InputError, match="never trained on: 'c'"):
        fitted.explain(new_x, [["c"], ["b"], []])
    with pytest.raises(lsi.InputError, match="1 columns of labels"):
        fitted.explain(new_x, np.array([[0]] * 3))


def test_a_weighted_probe_is_explained_as_it_was_trained():
    case = Asked(*blobs(40, 4, seed=14), 1e-2, "balanced")
    table = case.fitted.explain(case.new_x, case.new_y, k=2)
    for row in table.itertuples():
        query = slice(row.query, row.query + 1)
        exact = case.refits.loss_change([row.sample_id], one(case.new_x)[query], case.new_y[query])[0]
        assert abs(row.loss_change - exact) <= row.relative_error * abs(row.loss_change) + 1e-9
