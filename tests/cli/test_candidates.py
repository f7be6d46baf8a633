"""`lsi candidates`: new rows asked about from the command line."""

import json

import numpy as np
import pandas as pd
import pytest

import lsi
from lsi.cli.app import DONE, MISUSED, main

RNG = np.random.default_rng(4)
X = RNG.standard_normal((40, 3))
Y = np.where(X[:, 0] + RNG.standard_normal(40) > 0, "up", "down")
NEW = RNG.standard_normal((8, 3))


@pytest.fixture
def places(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=Y, name=[f"r{k}" for k in range(40)])
    frame.to_parquet(tmp_path / "old.parquet")
    words = ["--label-column", "kind", "--id-column", "name", "--weight-decay", "0.01", "-q", "--no-prepare"]
    model = tmp_path / "model"
    assert main(["fit", "-d", str(tmp_path / "old.parquet"), "-o", str(model), *words]) == DONE
    new = pd.DataFrame(NEW[:, ::-1], columns=["c", "b", "a"]).assign(name=list("stuvwxyz"), other=1.5)
    new.to_parquet(tmp_path / "new.parquet")
    new.assign(kind="up").to_csv(tmp_path / "labelled.csv", index=False)
    np.savez(tmp_path / "new.npz", X=NEW)
    np.save(tmp_path / "new.npy", NEW)
    return tmp_path


def test_rows_without_labels_are_read_by_the_columns_of_the_fit(places, capsys):
    out = places / "found.parquet"
    assert main(["candidates", str(places / "model"), str(places / "new.parquet"), "-o", str(out)]) == DONE
    expected = lsi.load_fitted(places / "model").candidates(NEW, ids=list("stuvwxyz")).top(8)
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected.reset_index(drop=True))
    assert "most informative label" in capsys.readouterr().out


def test_labels_are_used_where_there_are_any(places, capsys):
    assert main(["candidates", str(places / "model"), str(places / "labelled.csv"), "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)["rows"]
    expected = lsi.load_fitted(places / "model").candidates(NEW, ["up"] * 8).top(8)
    assert [row["lsi"] for row in rows] == pytest.approx(expected["lsi"].tolist(), rel=1e-7)
    assert {row["label"] for row in rows} == {"up"}


@pytest.mark.parametrize("name", ["new.npz", "new.npy", "new.parquet"])
def test_a_budget_is_spent(places, name, capsys):
    words = ["--budget", "3", "-o", str(places / "chosen.csv")]
    assert main(["candidates", str(places / "model"), str(places / name), *words]) == DONE
    expected = lsi.load_fitted(places / "model").choose(NEW, 3)
    found = pd.read_csv(places / "chosen.csv")
    assert found["position"].tolist() == expected["position"].tolist()
    assert "decision" not in found


def test_new_rows_need_no_ids(places, capsys):
    pd.read_parquet(places / "new.parquet").drop(columns="name").to_parquet(places / "bare.parquet")
    assert main(["candidates", str(places / "model"), str(places / "bare.parquet"), "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert sorted(row["candidate"] for row in rows) == list(range(8))


def test_a_probe_of_scores_is_trained_again(places, monkeypatch, capsys):
    monkeypatch.chdir(places)
    words = (
        "--label-column kind --id-column name --weight-decay 0.01 --no-prepare --no-audit --no-label-noise"
    )
    assert main(["compute", "-d", "old.parquet", "-o", "scores", "-q", *words.split()]) == DONE
    assert main(["candidates", "scores", "new.parquet", "--budget", "3", "--json"]) == DONE
    told = [row["candidate"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert told == lsi.load_fitted("model").choose(NEW, 3, list("stuvwxyz"))["candidate"].tolist()


def test_the_next_command_is_told(places, monkeypatch, capsys):
    monkeypatch.chdir(places)
    assert main(["candidates", "model", "new.parquet"]) == DONE
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "Next: lsi candidates model new.parquet --budget 1 -o chosen.csv"
    assert main(said.removeprefix("Next: lsi ").split()) == DONE
    said = capsys.readouterr().out.splitlines()[-1]
    told = "Label these rows, add them to the dataset, and train again: lsi fit --dataset old.parquet "
    assert said.startswith(told) and said.endswith("--weight-decay 0.01 -o model --overwrite")
    assert main(said.partition(": lsi ")[2].split()) == DONE
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said == ["Next: lsi explain model NEW-ROWS-WITH-LABELS", "Or: lsi candidates model NEW-ROWS"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["old.parquet", "new.parquet"], "not a folder with a fitted object"),
        (["model", "other.csv"], "other.csv"),
        (["model", "half.csv"], "4 of 8 rows have no label"),
        (["model", "new.parquet", "--budget", "9"], "budget must lie between 1 and the 8 rows"),
        (["model", "new.parquet", "-o", "model/x.csv"], "lies inside the trained probe"),
        (["model", "new.parquet", "-o", "x.txt"], "--output must end in .csv"),
    ],
)
def test_what_does_not_fit_is_refused(places, monkeypatch, capsys, words, said):
    monkeypatch.chdir(places)
    pd.DataFrame(NEW, columns=["a", "b", "d"]).assign(name=list("stuvwxyz")).to_csv("other.csv", index=False)
    half = pd.read_csv("labelled.csv")
    half.loc[:3, "kind"] = None
    half.to_csv("half.csv", index=False)
    assert main(["candidates", *words]) == MISUSED
    assert said in capsys.readouterr().err


@pytest.fixture
def prepared(tmp_path):
    """Return a probe of a table with categories and gaps, and a table of other rows."""
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=Y, plan=list("xxyz") * 10)
    frame.loc[:3, "a"] = np.nan
    frame.to_csv(tmp_path / "old.csv", index=False)
    words = ["--label-column", "kind", "-o", str(tmp_path / "model"), "-q"]
    assert main(["fit", "-d", str(tmp_path / "old.csv"), *words]) == DONE
    # Alone these rows would be scaled by themselves, and have other categories.
    new = pd.DataFrame(10 * NEW, columns=["a", "b", "c"]).assign(plan=list("zzzzzzzw"))
    new.to_csv(tmp_path / "new.csv", index=False)
    return tmp_path


def test_rows_are_prepared_as_the_table_of_the_probe_was(prepared):
    out = prepared / "found.parquet"
    assert main(["candidates", str(prepared / "model"), str(prepared / "new.csv"), "-o", str(out)]) == DONE
    old = lsi.load_samples(prepared / "old.csv", label_column="kind")
    features = old.preparation.transform(pd.read_csv(prepared / "new.csv"))
    expected = lsi.load_fitted(prepared / "model").candidates(features).top(8)
    np.testing.assert_allclose(pd.read_parquet(out)["lsi"], expected["lsi"], rtol=1e-6)


def test_rows_that_cannot_be_prepared_alike_are_refused(prepared, capsys):
    np.save(prepared / "new.npy", np.zeros((3, 6)))
    said = {"new.npy": "is none. Give a table", "lacks.csv": "has no column 'plan'"}
    pd.read_csv(prepared / "new.csv").drop(columns="plan").to_csv(prepared / "lacks.csv", index=False)
    for name, message in said.items():
        assert main(["candidates", str(prepared / "model"), str(prepared / name)]) == MISUSED
        assert message in capsys.readouterr().err
    pd.read_csv(prepared / "old.csv").iloc[:-1].to_csv(prepared / "old.csv", index=False)
    assert main(["candidates", str(prepared / "model"), str(prepared / "new.csv")]) == MISUSED
    assert "has changed since" in capsys.readouterr().err
    (prepared / "old.csv").unlink()
    assert main(["candidates", str(prepared / "model"), str(prepared / "new.csv")]) == MISUSED
    assert "--no-prepare" in capsys.readouterr().err
