"""`lsi explain`: the table of `Fitted.explain`, with the ids of both files."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.fitted.data import CASES

import lsi
from lsi.cli import main
from lsi.results.marks import EXPLANATION, read_mark


@pytest.fixture
def files(tmp_path):
    case = CASES["three classes"]
    np.savez(tmp_path / "train.npz", X=case.x, y=case.y)
    np.savez(tmp_path / "test.npz", X=case.new_x[:3], y=case.new_y[:3], ids=np.array(["a", "b", "c"]))
    return tmp_path


@pytest.fixture(params=["fit", "compute"])
def model(files, request):
    """Return the folder of a trained probe, or of scores, whose probe is trained again."""
    words = ["--no-audit", "--no-label-noise"] if request.param == "compute" else []
    command = [request.param, "-d", f"{files}/train.npz", "-o", str(files / request.param), "-q", *words]
    assert main(command) == 0
    return files / request.param


def run(files, model, *more):
    return main(["explain", str(model), f"{files}/test.npz", "-k", "2", *more])


@pytest.mark.parametrize("predicted", [False, True])
def test_the_table_is_that_of_the_fitted_object(files, model, capsys, predicted):
    case = CASES["three classes"]
    out = files / "explained.csv"
    assert run(files, model, "-o", str(out), *(["--predicted"] if predicted else [])) == 0
    table = pd.read_csv(out)
    labels = None if predicted else case.new_y[:3]
    expected = lsi.fit(case.x, case.y).explain(case.new_x[:3], labels, k=2)
    assert table["query"].tolist() == [["a", "b", "c"][q] for q in expected["query"]]
    assert table["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_allclose(table["loss_change"], expected["loss_change"], rtol=1e-6)
    shown = capsys.readouterr().out
    assert "Written:" in shown and "+1" in shown
    told = f"Next: lsi report {model} --validation {files}/test.npz -o report.html"
    if model.name == "fit":
        told = f"Next: lsi mislabeled {files}/train.npz -o suspects.csv"
    assert told in shown
    mark, of_model = read_mark(out), read_mark(model)
    assert (mark.kind, mark.fingerprint) == (EXPLANATION, of_model.fingerprint)
    assert mark.scores == (str(model) if model.name == "compute" else None)


def test_json_is_one_object(files, model, capsys):
    assert run(files, model, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["n_queries"] == 3 and len(out["rows"]) == 12


def test_nothing_is_overwritten(files, model, capsys):
    out = files / "explained.csv"
    out.write_text("mine")
    assert run(files, model, "-o", str(out)) == 2
    assert out.read_text() == "mine"
    assert "already there" in capsys.readouterr().err


def test_queries_with_other_columns_are_refused(files, model, capsys):
    np.savez(files / "test.npz", X=np.ones((2, 9)), y=[0, 1])
    assert run(files, model) == 2
    assert "has 9 columns" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "compute"])
def test_queries_are_prepared_as_the_dataset_was(tmp_path, command):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.standard_normal((40, 2)), columns=["a", "b"]).assign(plan=list("xxyz") * 10)
    frame["kind"] = np.where(frame["a"] + random.standard_normal(40) > 0, "up", "down")
    frame.to_csv(tmp_path / "old.csv", index=False)
    frame.tail(2).assign(a=5.0).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "explained.csv"
    made = ["-d", f"{tmp_path}/old.csv", "--label-column", "kind", "-o", f"{tmp_path}/model", "-q"]
    more = ["--no-audit", "--no-label-noise"] if command == "compute" else []
    assert main([command, *made, *more]) == 0
    assert main(["explain", f"{tmp_path}/model", f"{tmp_path}/new.csv", "-k", "1", "-o", str(out)]) == 0
    old = lsi.load_samples(tmp_path / "old.csv", label_column="kind")
    features = old.preparation.transform(pd.read_csv(tmp_path / "new.csv"))
    expected = lsi.fit(old.features, old.labels).explain(features, frame["kind"].tail(2).to_numpy(), k=1)
    np.testing.assert_allclose(pd.read_csv(out)["loss_change"], expected["loss_change"], rtol=1e-6)


def test_queries_without_labels_are_explained_as_predicted_or_refused(files, model, capsys):
    case = CASES["three classes"]
    np.save(files / "bare.npy", case.new_x[:3])
    words = ["explain", str(model), f"{files}/bare.npy", "-k", "1"]
    assert main(words) == 2
    assert "3 of 3 rows of bare have no label. Fill them in, or add --predicted" in capsys.readouterr().err
    assert main([*words, "--predicted", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    expected = lsi.fit(case.x, case.y).explain(case.new_x[:3], k=1)
    assert [row["loss_change"] for row in rows] == pytest.approx(expected["loss_change"].tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--standardise"], "--standardise, --pca: new rows would need the same scale"),
        (["--method", "retrain", "--epochs", "3"], "keeps no factorised curvature"),
    ],
)
def test_scores_whose_probe_answers_no_questions(files, capsys, words, said):
    made = ["compute", "-d", f"{files}/train.npz", "-o", f"{files}/s", "-q", "--no-audit", "--no-label-noise"]
    assert main([*made, *words]) == 0
    assert run(files, files / "s") == 2
    assert said in capsys.readouterr().err


def test_scores_that_do_not_say_how_their_probe_is_trained(files, capsys):
    case = CASES["three classes"]
    lsi.score(case.x, case.y, audit=False, label_noise=False).save(files / "python")
    assert run(files, files / "python") == 2
    assert "Train one with `lsi fit`" in capsys.readouterr().err
    made = ["compute", "-d", f"{files}/train.npz", "-o", f"{files}/s", "-q", "--no-audit", "--no-label-noise"]
    assert main(made) == 0
    np.savez(files / "train.npz", X=case.x[1:], y=case.y[1:])
    assert run(files, files / "s") == 2
    assert "train has changed since it was scored" in capsys.readouterr().err
    manifest = json.loads((files / "s" / "manifest.json").read_text())
    manifest["command"]["encoder"] = "evil.py:run"
    (files / "s" / "manifest.json").write_text(json.dumps(manifest))
    assert run(files, files / "s") == 2  # scores may come from anyone, and run no code
    assert "to a function, which would run code" in capsys.readouterr().err
    assert run(files, files / "nowhere") == 2
    assert "does not exist: pass a folder with a fitted object" in capsys.readouterr().err


def test_the_folder_remembers_planted_errors_and_chosen_rows(files, capsys):
    """The probe of scores is that of the run: trained on the rows and labels that the run had."""
    words = ["-d", f"{files}/train.npz", "--corrupt-label", "0.2", "--first", "30", "--weight-decay", "0.1"]
    assert main(["compute", *words, "-o", f"{files}/s", "-q", "--no-audit", "--no-label-noise"]) == 0
    assert main(["fit", *words, "-o", f"{files}/m", "-q"]) == 0
    found = []
    for place in ("s", "m"):
        assert run(files, files / place, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
