"""`lsi explain`: the table of `Fitted.explain`, with the ids of both files."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.fitted.data import CASES

import lsi
from lsi.cli import main


@pytest.fixture
def files(tmp_path):
    case = CASES["three classes"]
    np.savez(tmp_path / "train.npz", X=case.x, y=case.y)
    np.savez(tmp_path / "test.npz", X=case.new_x[:3], y=case.new_y[:3], ids=np.array(["a", "b", "c"]))
    return tmp_path


def run(files, *more):
    return main(
        ["explain", "--dataset", f"{files}/train.npz", "--queries", f"{files}/test.npz", "-k", "2", *more]
    )


@pytest.mark.parametrize("predicted", [False, True])
def test_the_table_is_that_of_the_fitted_object(files, capsys, predicted):
    case = CASES["three classes"]
    out = files / "explained.csv"
    assert run(files, "-o", str(out), *(["--predicted"] if predicted else [])) == 0
    table = pd.read_csv(out)
    labels = None if predicted else case.new_y[:3]
    expected = lsi.fit(case.x, case.y).explain(case.new_x[:3], labels, k=2)
    assert table["query"].tolist() == [["a", "b", "c"][q] for q in expected["query"]]
    assert table["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_allclose(table["loss_change"], expected["loss_change"], rtol=1e-6)
    shown = capsys.readouterr().out
    assert "Written:" in shown and "+1" in shown


def test_json_is_one_object(files, capsys):
    assert run(files, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["n_queries"] == 3 and len(out["rows"]) == 12


def test_nothing_is_overwritten(files, capsys):
    out = files / "explained.csv"
    out.write_text("mine")
    assert run(files, "-o", str(out)) == 2
    assert out.read_text() == "mine"
    assert "already there" in capsys.readouterr().err


def test_scaling_the_queries_by_themselves_is_refused(files, capsys):
    assert run(files, "--standardise") == 2
    assert "--standardise" in capsys.readouterr().err


def test_queries_with_other_columns_are_refused(files, capsys):
    np.savez(files / "test.npz", X=np.ones((2, 9)), y=[0, 1])
    assert run(files) == 2
    assert "has 9 columns" in capsys.readouterr().err


def test_queries_are_prepared_as_the_dataset_was(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.standard_normal((40, 2)), columns=["a", "b"]).assign(plan=list("xxyz") * 10)
    frame["kind"] = np.where(frame["a"] + random.standard_normal(40) > 0, "up", "down")
    frame.to_csv(tmp_path / "old.csv", index=False)
    frame.tail(2).assign(a=5.0).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "explained.csv"
    words = ["--dataset", f"{tmp_path}/old.csv", "--queries", f"{tmp_path}/new.csv", "--label-column", "kind"]
    assert main(["explain", *words, "-k", "1", "-o", str(out)]) == 0
    old = lsi.load_samples(tmp_path / "old.csv", label_column="kind")
    features = old.preparation.transform(pd.read_csv(tmp_path / "new.csv"))
    expected = lsi.fit(old.features, old.labels).explain(features, frame["kind"].tail(2).to_numpy(), k=1)
    np.testing.assert_allclose(pd.read_csv(out)["loss_change"], expected["loss_change"], rtol=1e-6)
