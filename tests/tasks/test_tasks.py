"""Everything around the scores, for every kind of target: result, estimator, command line, pages."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

import lsi
from lsi.cli import main
from lsi.data.corruption.labels import corrupt_targets

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
NUMBER = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=60)
TWO = np.column_stack([NUMBER, X[:, 0] + RNG.normal(size=60)])
SEVERAL = pd.DataFrame({"red": X[:, 0] > 0, "big": X[:, 1] + 0.5 * RNG.normal(size=60) > 0.2})
WORDS = np.where(NUMBER > 0, "high", "low")

TARGETS = {
    "one number": (lsi.RidgeProbe(), NUMBER, "regression"),
    "two numbers": (lsi.RidgeProbe(noise_precision="estimate"), TWO, "regression"),
    "several labels": (lsi.SigmoidProbe(weight_decay=1e-2), SEVERAL, "multilabel"),
    "two classes": (lsi.SigmoidProbe(weight_decay=1e-2), WORDS, "classification"),
}


@pytest.fixture(scope="module", params=TARGETS)
def scored(request):
    probe, y, task = TARGETS[request.param]
    return lsi.score(X, y, probe=probe, audit=3), task


def test_the_table_has_what_every_reader_relies_on(scored):
    scores, task = scored
    frame = scores.to_frame()
    assert scores.task == scores.manifest["task"] == task
    assert frame.notna().all(axis=None)
    assert np.isfinite(frame.select_dtypes("number")).all(axis=None)
    np.testing.assert_allclose(frame["lsi"], frame["mean_term"] + frame["covariance_term"])
    assert (frame[["mean_term", "covariance_term"]] >= 0).all(axis=None)
    assert frame["loo_probability"].between(0, 1).all()
    assert len(scores.audit.positions) == 3
    assert scores.top(2)["lsi"].is_monotonic_decreasing


def test_it_comes_back_from_the_disk(scored, tmp_path):
    scores, _ = scored
    loaded = lsi.load(scores.save(tmp_path / "scores"))
    pd.testing.assert_frame_equal(loaded.to_frame(), scores.to_frame())
    assert loaded.manifest == scores.manifest
    assert loaded.audit == scores.audit


def test_it_can_be_shown_and_reported(scored, tmp_path, capsys):
    from lsi.report import write_report

    scores, _ = scored
    assert "Scores of 60 samples" in repr(scores)
    assert "<table" in scores._repr_html_()
    scores.save(tmp_path / "scores")
    assert main(["show", str(tmp_path / "scores")]) == 0
    out = capsys.readouterr().out
    assert "Most informative" in out and "Audit: 3 samples" in out
    page = write_report(tmp_path / "report.html", scores, None).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")


def test_the_estimator_takes_every_probe():
    for probe, y, task in TARGETS.values():
        estimator = clone(lsi.LaplaceSampleInformation(probe=probe, audit=False)).fit(X, y)
        assert_array_equal(estimator.scores_, lsi.score(X, y, probe=probe, audit=False).lsi)
        assert hasattr(estimator, "classes_") == (task == "classification")


def test_figures_by_label_are_those_of_its_head():
    scores = lsi.score(X, SEVERAL, probe=lsi.SigmoidProbe(weight_decay=1e-2), audit=False)
    frame, summary = scores.to_frame(), scores.class_summary()
    assert summary["label"].tolist() == ["red", "big"]
    assert summary["n"].tolist() == SEVERAL.sum().tolist()
    np.testing.assert_allclose(summary["mean_lsi"], [frame["lsi_red"].mean(), frame["lsi_big"].mean()])
    np.testing.assert_allclose(frame["lsi_red"] + frame["lsi_big"], frame["lsi"])


def test_a_regression_has_no_classes_to_sum_up():
    with pytest.raises(lsi.InputError, match="for classification"):
        lsi.score(X, NUMBER, probe=lsi.RidgeProbe(), audit=False).class_summary()


def test_wrong_targets_come_first():
    change = corrupt_targets(NUMBER, 0.1, seed=3)
    listed = lsi.score(X, change.labels, probe=lsi.RidgeProbe(), audit=False).mislabeled()
    assert set(listed["sample_id"][:6]) == set(np.flatnonzero(change.mask))
    assert listed["wrong_probability"][5] > 0.5 > listed["wrong_probability"][6]
    # What is suggested lies nearer to the truth than what is given.
    truth = NUMBER[listed["sample_id"][:6]]
    assert np.all((listed["suggested_label"][:6] - truth).abs() < (listed["label"][:6] - truth).abs())


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_targets_are_changed_as_it_says(task):
    targets = TWO if task == "regression" else SEVERAL.to_numpy().astype(int)
    change = corrupt_targets(targets, 0.2, seed=1, task=task)
    moved = change.labels - targets
    assert change.n_corrupted == 12
    assert_array_equal((moved != 0).any(axis=1), change.mask)
    if task == "regression":
        np.testing.assert_allclose(np.abs(moved[change.mask]), np.tile(3 * TWO.std(axis=0), (12, 1)))
    else:
        assert_array_equal(np.abs(moved[change.mask]).sum(axis=1), np.ones(12))
    assert_array_equal(corrupt_targets(targets, 0.2, seed=1, task=task).labels, change.labels)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.where(np.arange(60) == 7, np.nan, NUMBER), "NaN or infinite in 1 of 60 rows.*7"),
        (np.where(np.arange(60) == 7, np.inf, NUMBER), "NaN or infinite"),
        (WORDS, "not numbers"),
        (NUMBER + 1j, "complex"),
        (np.zeros((60, 2, 2)), "1-D or 2-D"),
        (None, "y is None"),
        (NUMBER[:9], "X has 60 rows but y has 9"),
        (pd.Series(NUMBER, index=range(60, 120)), None),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(y, message):
    if message is None:  # an index of y alone is no contradiction: X has none
        assert len(lsi.score(X, y, probe=lsi.RidgeProbe(), audit=False)) == 60
        return
    with pytest.raises(lsi.InputError, match=message):
        lsi.score(X, y, probe=lsi.RidgeProbe())


def test_classes_that_look_like_numbers_name_the_probe():
    with pytest.raises(lsi.InputError, match="RidgeProbe.*--task regression"):
        lsi.score(X, NUMBER)


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame["number"], frame["other"] = NUMBER, TWO[:, 1]
    frame[["red", "big"]] = SEVERAL.astype(int)
    frame["tags"] = [[name for name in SEVERAL if row[name]] for _, row in SEVERAL.iterrows()]
    frame.to_parquet(tmp_path / "table.parquet")
    return ["compute", "--dataset", str(tmp_path / "table.parquet"), "--feature-columns", "a", "b", "c"]


def result(capsys, arguments):
    assert main([*arguments, "--no-audit", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("columns", "y", "probe"),
    [
        (["--label-columns", "red", "big"], SEVERAL, lsi.SigmoidProbe()),
        (["--label-columns", "number", "other"], TWO, lsi.RidgeProbe()),
        (["--label-column", "number", "--task", "regression"], NUMBER, lsi.RidgeProbe()),
        (["--label-column", "red", "--task", "binary"], SEVERAL["red"], lsi.SigmoidProbe()),
        (["--label-column", "red", "--task", "regression"], SEVERAL["red"], lsi.RidgeProbe()),
        (
            ["--label-column", "number", "--noise-precision", "estimate", "--task", "regression"],
            NUMBER,
            lsi.RidgeProbe(noise_precision="estimate"),
        ),
    ],
)
def test_the_command_scores_what_the_library_scores(table, tmp_path, columns, y, probe):
    words = [*table, *columns, "--no-prepare", "--no-audit", "-q"]
    assert main([*words, "--output", str(tmp_path / "s")]) == 0
    direct = lsi.score(X, y, probe=probe, audit=False)
    saved = lsi.load(tmp_path / "s")
    np.testing.assert_allclose(saved.lsi, direct.lsi, rtol=1e-9)
    assert saved.task == direct.task
    assert saved.manifest["config"]["probe"] == probe.describe()


def test_lists_of_labels_are_several_labels(table, tmp_path, capsys):
    arguments = [*table, "--label-column", "tags", "--first", "50", "--output", str(tmp_path / "s")]
    assert main([*arguments, "--corrupt-label", "0.1", "--audit", "2"]) == 0
    out, err = capsys.readouterr()
    assert "50 samples, 3 features, 2 labels" in err and "one label flipped" in err
    assert "p(labels)" in out and "Labels" in out
    frame = lsi.load(tmp_path / "s").to_frame()
    assert_array_equal(frame["corrupted"], frame["label"] != frame["original_label"])


def test_corrupted_diabetes_is_found(capsys):
    found = result(capsys, ["compute", "--dataset", "diabetes", "--corrupt-label", "0.1"])
    assert found["detection"]["auroc"] >= 0.85
    assert found["detection"]["n_positive"] == 44


def test_a_plan_says_what_will_be_done(capsys):
    assert main(["compute", "--dataset", "diabetes", "--no-audit", "--subset", "20"]) == 0
    out, err = capsys.readouterr()
    assert "442 samples, 10 features, 1 target" in err and "closed form" in err
    assert "expected" in out and "Classes" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label-column", "number"], "--task regression"),
        (["--label-column", "red", "--task", "multilabel"], "--label-columns"),
        (["--label-columns", "red", "big", "--task", "binary"], "--task multilabel"),
        (["--label-columns", "red", "bigg"], "Did you mean 'big'"),
        (["--label-columns", "red", "tags"], "instead of numbers"),
        (["--label-columns", "red", "--label-column", "big"], "Use one of them"),
        (["--label-column", "red", "--noise-precision", "2", "--task", "binary"], "--noise-precision"),
        (["--label-column", "number", "--task", "regression", "--epochs", "3"], "closed form"),
        (["--label-column", "number", "--task", "regression", "--corrupt-kind", "pairwise"], "for classes"),
        (["--label-column", "number", "--task", "regression", "--corrupt-label", "1"], "less than 1"),
    ],
)
def test_what_does_not_go_together_is_refused(table, arguments, message, capsys):
    assert main([*table, *arguments]) == 2
    assert message in capsys.readouterr().err
