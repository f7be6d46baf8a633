"""The one class of table: what it knows of classes and labels, and what it makes of itself."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from tests.score_cases import LABELS, PREDICTED, make

from lsi.analysis.view import view
from lsi.report.summary import summarize
from lsi.results.table import ScoreTable, json_value
from lsi.scores import Scores

DISAGREE = [given != likely for given, likely in zip(LABELS, PREDICTED, strict=True)]


def test_every_reader_counts_the_same_disagreements():
    scores = make()
    assert scores.disagrees.tolist() == DISAGREE
    assert view(scores).disagrees.tolist() == DISAGREE
    summary = summarize(scores)
    assert summary["overview"]["n_disagree"] == sum(DISAGREE)
    assert sum(row["n_disagree"] for row in summary["classes"]) == sum(DISAGREE)
    assert sum(card["disagrees"] for card in summary["gallery"]["highest"]) == sum(
        DISAGREE[k] for k in (0, 1, 3)
    )
    shares = scores.class_summary().set_index("label")["loo_accuracy"]
    assert_frame_equal(
        scores.by_class().set_index("label").loc[shares.index, ["loo_accuracy"]], shares.to_frame()
    )


@pytest.mark.parametrize("task", ["regression", "multilabel", "contrastive"])
def test_without_classes_nothing_disagrees(task):
    scores = make(manifest={"task": task, "classes": ["cat"]})
    assert scores.task == task
    assert not scores.has_classes
    assert scores.classes == []
    assert not scores.disagrees.any()


def test_classes_are_those_of_the_manifest_or_else_of_the_table():
    assert make(manifest={"classes": ["ant", "cat", "dog", "owl"]}).classes == ["ant", "cat", "dog", "owl"]
    assert make(manifest={}).classes == ["cat", "dog", "owl"]


@pytest.mark.parametrize("kind", [ScoreTable, Scores])
def test_a_table_makes_tables_of_its_own_kind(kind, tmp_path):
    scores = make()
    given = kind(scores.to_frame(), scores.manifest, scores.audit)
    loaded = kind.load(given.save(tmp_path / "scores"))
    assert type(loaded) is kind
    highest = given.with_table(given.to_frame().iloc[[3, 1]])
    assert type(highest) is kind
    assert highest.sample_id.tolist() == ["id-3", "id-1"]
    assert highest.manifest == given.manifest
    assert highest.audit is given.audit
    highest.manifest["note"] = "only here"
    assert "note" not in given.manifest
    assert len(given) == 5


def test_json_values():
    value = {"a": np.float32(0.5), 1: (np.int64(2), np.nan), "t": pd.Timestamp("2020-01-02"), "x": {1, 2}}
    assert json_value(value) == {"a": 0.5, "1": [2, None], "t": "2020-01-02 00:00:00", "x": "{1, 2}"}
