"""`lsi consensus` and `lsi compute --annotators`: from a table of annotators' columns to labels."""

import json

import numpy as np
import pandas as pd
import pytest

import lsi
from lsi.cli import main
from lsi.results.marks import CONSENSUS, read_mark

COLUMNS = ["--label-columns", "ann", "bob", "cat", "--feature-columns", "f0", "f1", "f2"]


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    z = random.integers(0, 3, 300)
    X = 2 * np.eye(3)[z] + random.normal(size=(300, 3))
    names, columns = np.array(["owl", "fox", "elk"]), {f"f{k}": X[:, k] for k in range(3)}
    for name, quality in (("ann", 0.9), ("bob", 0.8), ("cat", 0.6)):
        answer = np.where(random.random(300) < quality, z, random.integers(0, 3, 300))
        columns[name] = np.where(random.random(300) < 0.2, "", names[answer])
    columns["truth"] = names[z]
    path = tmp_path / "crowd.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_screen_json_and_file(table, tmp_path, capsys):
    out = tmp_path / "labels.csv"
    words = ["consensus", "--dataset", str(table), *COLUMNS, "--clean-label-column", "truth", "-o", str(out)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "3 annotators, 300 samples" in text
    assert text.index("\ncat ") < text.index("\nann ")  # the least reliable first
    assert "of the consensus are right" in text
    written = pd.read_csv(out)
    truth = pd.read_csv(table)["truth"]
    assert (written["label"] == truth).mean() > (written["majority"] == truth).mean()
    assert read_mark(out).kind == CONSENSUS
    assert main([*words[:-2], "--json", "--ask", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["ask"]) == 4
    assert found["right"] > found["majority_right"]
    assert [row["annotator"] for row in found["annotators"]] == ["ann", "bob", "cat"]
    assert main(words) == 2
    assert "already there" in capsys.readouterr().err


def test_probabilities_in_place_of_features(table, tmp_path, capsys):
    np.save(tmp_path / "p.npy", np.full((300, 3), 1 / 3))
    words = ["consensus", "--dataset", str(table), *COLUMNS, "--pred-probs", str(tmp_path / "p.npy")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_samples"] == 300


def test_scores_of_the_consensus(table, tmp_path, capsys):
    words = ["compute", "--dataset", str(table), *COLUMNS, "--annotators", "--skip-broken", "--no-audit"]
    assert main([*words, "--output", str(tmp_path / "scores")]) == 0
    assert "3 annotators" in capsys.readouterr().err
    scores = lsi.load(tmp_path / "scores")
    assert 0.7 < scores.manifest["annotators"]["expected_right"] < 1
    truth = pd.read_csv(table)["truth"].to_numpy()
    frame = scores.to_frame()
    assert (frame["label"] == truth[frame["sample_id"]]).mean() > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["consensus", "--ask", "0"], "positive integer"),
        (["consensus", "-o", "labels.txt"], "must end in"),
        (["compute", "--annotators", "--corrupt-label", "0.1"], "label is not known before"),
        (["compute", "--annotators", "--task", "multilabel"], "several labels a sample"),
    ],
)
def test_misuse(table, words, message, capsys):
    assert main([words[0], "--dataset", str(table), *COLUMNS, "--skip-broken", *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_one_annotator_or_arrays(table, tmp_path, capsys):
    assert main(["consensus", "--dataset", str(table), "--label-columns", "ann"]) == 2
    assert "two or more annotators" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", X=np.ones((3, 2)), y=np.arange(3))
    assert main(["consensus", "--dataset", str(tmp_path / "a.npz")]) == 2
    assert "reads tables" in capsys.readouterr().err
