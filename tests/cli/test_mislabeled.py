"""`lsi mislabeled`: the list on the screen, as JSON and as a file."""

import json

import pandas as pd
import pytest
from tests.score_cases import make

from lsi.cli import main


@pytest.fixture
def folder(tmp_path):
    extra = {"wrong_probability": [0.1, 0.9, 0.2, 0.5, 0.5]}
    extra["suggested_label"] = ["cat", "owl", "dog", "dog", "cat"]
    scores = make(**extra)
    scores.manifest["label_noise"] = {"n_wrong": 2.2, "noise_matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    return scores.save(tmp_path / "scores")


def test_screen_and_json(folder, capsys):
    assert main(["mislabeled", str(folder), "--top", "2"]) == 0
    text = capsys.readouterr().out
    assert "90.0%" in text
    assert "About 2 of 5 labels" in text
    assert main(["mislabeled", str(folder), "--fdr", "0.3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_listed"] == 2
    assert found["rows"][0]["sample_id"] == "id-1"


def rows_of(path):
    return pd.DataFrame(json.loads(path.read_text())["rows"])


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_files(folder, tmp_path, ending, capsys):
    path = tmp_path / f"list.{ending}"
    assert main(["mislabeled", str(folder), "-o", str(path)]) == 0
    read = {"csv": pd.read_csv, "json": rows_of, "parquet": pd.read_parquet}[ending](path)
    assert read["sample_id"].iloc[0] == "id-1"
    assert len(read) == 5
    assert main(["mislabeled", str(folder), "-o", str(path)]) == 2
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [["--fdr", "2"], ["--top", "0"], ["-o", "list.txt"]])
def test_misuse(folder, bad, capsys):
    assert main(["mislabeled", str(folder), *bad]) == 2
    assert "error:" in capsys.readouterr().err


def test_scores_without_the_estimate_say_so(tmp_path, capsys):
    folder = make().save(tmp_path / "scores")
    assert main(["mislabeled", str(folder)]) == 0
    assert "did not estimate label noise" in capsys.readouterr().out
