"""`lsi mislabeled`: the list on the screen, as JSON and as a file."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
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


@pytest.fixture
def dataset(tmp_path):
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300].astype(str)
    y[::10] = np.where(y[::10] == "3", "5", "3")
    table = pd.DataFrame(X, columns=[f"x{k}" for k in range(64)]).assign(
        name=y, key=[f"d{k}" for k in range(300)]
    )
    table.to_csv(tmp_path / "digits.csv", index=False)
    return tmp_path / "digits.csv"


READ = ["--label-column", "name", "--id-column", "key", "--no-prepare"]


def test_a_dataset_is_answered_without_scores_and_the_list_can_be_applied(dataset, tmp_path, capsys):
    listed = tmp_path / "suspects.csv"
    assert main(["mislabeled", str(dataset), *READ, "-o", str(listed)]) == 0
    said = capsys.readouterr().out
    assert "of 300 labels are estimated to be wrong (between" in said
    assert f"lsi apply {listed}" in said
    assert "--label-column name --id-column key --no-prepare --output scores --report report.html" in said
    frame = pd.read_csv(listed)
    assert set(frame["sample_id"].head(8)) <= {f"d{k}" for k in range(0, 300, 10)}
    assert list(frame.columns[:4]) == ["sample_id", "label", "suggested_label", "wrong_probability"]
    assert "decision" in frame
    suggested = frame.index[frame["suggested_label"].notna()]
    frame["decision"] = ""
    frame["decision"] = frame["decision"].astype(object)
    frame.loc[suggested[:2], "decision"] = ["accept", "remove"]
    frame.to_csv(listed, index=False)
    cleaned = tmp_path / "cleaned.csv"
    assert main(["apply", str(listed), str(dataset), "-o", str(cleaned), *READ[:-1], "--yes"]) == 0
    assert len(pd.read_csv(cleaned)) == 299


def test_the_list_of_a_dataset_is_that_of_its_scores(dataset, tmp_path, capsys):
    assert main(["mislabeled", str(dataset), *READ, "--json", "--top", "12"]) == 0
    direct = json.loads(capsys.readouterr().out)
    words = ["compute", "-d", str(dataset), *READ, "--label-noise", "--no-audit", "--tol", "none", "--quiet"]
    assert main([*words, "-o", str(tmp_path / "scores")]) == 0
    assert main(["mislabeled", str(tmp_path / "scores"), "--json", "--top", "12"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert direct["n_wrong"] == pytest.approx(scored["n_wrong"])
    assert direct["interval"] == pytest.approx(scored["interval"])
    one, other = (
        {row["sample_id"]: row["suggested_label"] for row in each["rows"]} for each in (direct, scored)
    )
    assert one == other


def test_a_dataset_without_a_file_leads_to_one(capsys):
    assert main(["mislabeled", "wine", "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "Next: lsi mislabeled wine -o suspects.csv" in said
    assert "Or: lsi compute --dataset wine --output scores --report report.html" in said


def test_other_probabilities_judge_a_dataset_too(dataset, tmp_path, capsys):
    p = np.full((300, 10), 0.01)
    y = pd.read_csv(dataset)["name"].to_numpy()
    p[np.arange(300), (y + (np.arange(300) == 7)) % 10] = 0.91
    np.save(tmp_path / "p.npy", p)
    assert main(["mislabeled", str(dataset), *READ, "--pred-probs", str(tmp_path / "p.npy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["sample_id"] == "d7"


def test_what_is_neither_scores_nor_classes_is_refused(folder, tmp_path, capsys):
    assert main(["mislabeled", str(folder), "--label-column", "y"]) == 2
    assert "scores say themselves" in capsys.readouterr().err
    assert main(["mislabeled", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["mislabeled", "diabetes"]) == 2
    assert "regression" in capsys.readouterr().err
    assert main(["mislabeled", "digits", "--memory", "1MiB"]) == 2
    assert "label noise needs about" in capsys.readouterr().err
    np.savez(tmp_path / "data.npz", X=np.eye(3), y=[0, 1, 1])
    assert main(["mislabeled", str(tmp_path / "data.npz"), "-o", str(tmp_path / "data.npz" / "a.csv")]) == 2
