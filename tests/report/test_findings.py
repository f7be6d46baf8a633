import numpy as np
import pytest

from lsi.report import build_page, charts, summarize, wording
from lsi.report.findings import curation
from lsi.scores import Scores

EVIDENCE = {
    "metric": "accuracy",
    "shares": [0.25, 0.5, 1.0],
    "n_seeds": 5,
    "curves": {
        "lsi": {"mean": [0.7, 0.8, 0.82], "low": [0.68, 0.79, 0.81], "high": [0.72, 0.81, 0.83]},
        "<b>random</b>": {"mean": [0.6, 0.7, 0.82], "low": [0.58, 0.69, 0.81], "high": [0.62, 0.71, 0.83]},
    },
}


def with_table(scores, manifest=None, **columns):
    return Scores(scores.to_frame().assign(**columns), {**scores.manifest, **(manifest or {})}, scores.audit)


def test_suspects_are_counted_against_a_plain_loop(make_scores):
    scores = make_scores(planted=6)
    found = summarize(scores)["suspects"]
    expected = {}
    for row in scores.to_frame().itertuples():
        if row.loo_prediction != row.label and row.loo_probability <= 0.5:
            expected[row.label, row.loo_prediction] = expected.get((row.label, row.loo_prediction), 0) + 1
    assert found["n"] == sum(expected.values()) > 0
    assert {(p["given"], p["suggested"]): p["n"] for p in found["pairs"]} == expected
    names = found["matrix"]["classes"]
    matrix = found["matrix"]["counts"]
    assert {
        (a, b): matrix[i][j] for i, a in enumerate(names) for j, b in enumerate(names) if matrix[i][j]
    } == expected
    probabilities = [row["wrong_probability"] for row in found["rows"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_run_s_own_estimate_is_told(make_scores):
    noise = {"label_noise": {"n_wrong": 12.4, "top": [{"n": 10, "wrong": 8.2}]}}
    scores = with_table(make_scores(), noise, wrong_probability=0.9, suggested_label="dog")
    summary = summarize(scores)
    assert "About 12 labels are estimated to be wrong" in wording.suspects(summary)
    assert wording.top(summary["suspects"]) == ["About 8 of the top 10 are wrong."]
    assert summary["suspects"]["n"] == 40


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_the_estimated_noise_is_shown_as_shares_of_a_true_class(make_scores, scale):
    matrix = [[0.8, 0.15, 0.05], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]]
    noise = {"label_noise": {"noise_matrix": (scale * np.array(matrix)).tolist()}}
    found = summarize(with_table(make_scores(), noise))["suspects"]["noise"]
    assert found["classes"] == ["cat", "dog", "eel"]
    np.testing.assert_allclose(found["shares"], matrix)
    page = build_page(with_table(make_scores(), noise))
    assert "Estimated label noise" in page
    assert ">15.0</td>" in page


@pytest.mark.parametrize(
    "matrix",
    [
        None,
        "x",
        [[1.0]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, -1, 2], [0, 0, 1]],
        [[1], [2, 3]],
    ],
)
def test_noise_that_cannot_be_shown_is_left_out(make_scores, matrix):
    noise = {"label_noise": {"noise_matrix": matrix}}
    assert summarize(with_table(make_scores(), noise))["suspects"]["noise"] is None


def test_groups_are_counted(make_scores):
    groups = np.full(60, -1)
    groups[[3, 4, 5]] = 0
    groups[[10, 11]] = 7
    summary = summarize(with_table(make_scores(), redundancy_group=groups))
    assert summary["redundancy"] == {"n_groups": 2, "n_samples": 5, "largest": 3}
    assert "5 of 60 samples" in wording.redundancy(summary)
    assert 'id="redundancy"' in build_page(with_table(make_scores(), redundancy_group=groups))
    assert summarize(make_scores())["redundancy"] is None
    empty = summarize(with_table(make_scores(), redundancy_group=np.full(60, -1)))
    assert wording.redundancy(empty) == "No two samples carry the same information."


def group(name, n, lsi, interaction, relative_error=1e-3):
    terms = {"mean_term": 0.9 * lsi, "covariance_term": 0.1 * lsi}
    figures = {"interaction": interaction, "relative_error": relative_error, **terms}
    return {"group": name, "n": n, "lsi": lsi, "lsi_per_row": lsi / n, **figures}


LEFT_OUT = [
    group("</script><b>first</b>", 10, 9.0, 4.0),
    group("plain", 10, 8.0, 1.0),
    group("alike", 10, 8.0, 7.0),  # its rows alone: 1 of 8
    group("opposed", 10, 5.0, -6.0),  # its rows alone: 11, of which 5 are left
    group("echo", 10, 3.9, 3.0),  # less than half of the median, 8
    group("unsure", 10, 3.9, 3.0, 0.6),
    group(7, 1, 8.0, 0.0),
]


def test_what_stands_out_about_groups_is_said_in_words(make_scores):
    scores = with_table(
        make_scores(), {"groups": LEFT_OUT, "source": {"options": {"group_column": "<i>who"}}}
    )
    summary = summarize(scores)
    found = {row["group"]: row["finding"] for row in summary["groups"]["rows"]}
    expected = {"alike": "together", "opposed": "single", "echo": "others"}
    assert {name: finding for name, finding in found.items() if finding} == expected
    assert list(found)[:2] == ["7", "</script><b>first</b>"]
    assert "1 of 7 says what others say: echo." in wording.groups(summary["groups"])
    page = build_page(scores)
    assert "<i>who" not in page and "<b>first</b>" not in page
    assert "&lt;b&gt;first" in page and "these samples say what others say" in page
    assert summarize(make_scores())["groups"] is None and 'id="worth"' not in build_page(make_scores())


def test_of_many_groups_the_page_holds_both_ends(make_scores):
    many = [group(f"g{k:03}", 2, 1.0 + k, 0.0) for k in range(300)]
    page = build_page(with_table(make_scores(), {"groups": many}))
    assert [f"<bdi>g{k:03}</bdi>" in page for k in (299, 200, 199, 100, 99, 0)] == [1, 1, 0, 0, 1, 1]
    assert "The 100 groups of either end of 300." in page


def test_curation_curves_are_drawn_inside_their_box_and_told(make_scores):
    page = build_page(with_table(make_scores(), {"curation": EVIDENCE}))
    assert "Does keeping less help?" in page
    assert "&lt;b&gt;random&lt;/b&gt;" in page
    drawn = charts.curves(curation({"curation": EVIDENCE}))
    for curve in drawn["curves"]:
        points = [pair.split() for pair in curve["band"].strip("MZ").split(" L")]
        assert all(0 <= float(value) <= 100 for pair in points for value in pair)
    assert [tick["x"] for tick in drawn["across"]] == [0, pytest.approx(100 / 3), 100]
    assert len({tick["text"] for tick in drawn["up"]}) == len(drawn["up"]) >= 3


@pytest.mark.parametrize(
    "broken",
    [None, [], {"curves": None}, {"shares": [1], "curves": {"a": {"mean": [1], "low": [1], "high": [1]}}}]
    + [{"shares": [0.5, 1], "curves": {"a": {"mean": [1], "low": [1, 2], "high": [1, 2]}}}],
)
def test_evidence_that_cannot_be_drawn_is_left_out(broken):
    assert curation({"curation": broken}) is None


def test_equal_curves_still_have_an_axis():
    flat = {"mean": [0.5, 0.5], "low": [0.5, 0.5], "high": [0.5, 0.5]}
    drawn = charts.curves(curation({"curation": {"shares": [0.5, 1.0], "curves": {"a": flat}}}))
    assert len(drawn["up"]) >= 2


def test_boxes_are_ordered_and_inside(make_scores):
    drawn = charts.boxes(summarize(make_scores())["classes"])
    for box in drawn["rows"]:
        places = list(box.values())
        assert places == sorted(places)
        assert places[0] >= 0
        assert places[-1] <= 100
    nothing = charts.boxes([{"quantiles": [0.0] * 5}])
    assert nothing == {"rows": [None], "ticks": []}


@pytest.mark.parametrize("task", ["regression", "multilabel", "contrastive"])
def test_other_tasks_have_no_sections_about_classes(make_scores, task):
    scores = make_scores()
    columns = {}
    if task == "regression":
        columns = {"label": np.linspace(0, 5, 60), "loo_prediction": np.linspace(0.123456, 5, 60)}
        columns["loo_probability"] = np.full(60, np.nan)
    page = build_page(with_table(scores, {"task": task}, **columns))
    for section in ("distribution", "gallery", "table", "audit", "run"):
        assert f'id="{section}"' in page
    for section in ("classes", "suspects"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
    assert "Likely wrong" not in page
    assert "in 3 classes" not in page
    if task == "regression":
        assert "0.123456" not in page


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("regression", "About 20 of 400 targets are estimated to be wrong (between 11 and 29)."),
        ("multilabel", "About 20 of 400 samples are estimated to have a wrong label (between 11 and 29)."),
    ],
)
def test_wrong_targets_and_label_sets_are_counted_in_words(task, said):
    found = {"n_wrong": 20.0, "n": 400, "interval": [11.0, 29.0]}
    assert wording.noise({"task": task, "noise": found}) == said
    found["interval"] = [0.0, 90.0]
    assert "There may be none" in wording.noise({"task": task, "noise": found})
    assert wording.noise({"task": task, "noise": None}) == ""
