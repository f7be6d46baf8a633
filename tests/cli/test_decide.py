"""`lsi select`, `lsi apply`, `lsi compare` and `lsi difficulty`, on scores built by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.analysis.tables import random_table

from lsi.cli import main
from lsi.data import load_samples
from lsi.scores import Scores


@pytest.fixture
def saved(tmp_path):
    """Scores of forty samples in a folder, and their data in a .npz."""
    table = random_table(40, 2)
    X, ids = np.arange(40.0)[:, None], table["sample_id"].to_numpy(str)
    np.savez(tmp_path / "data.npz", X=X, y=table["label"].to_numpy(), ids=ids)
    source = {"kind": "file", "path": str(tmp_path / "data.npz")}
    source["fingerprint"] = load_samples(tmp_path / "data.npz").fingerprint()
    manifest = {"classes": [0, 1], "data": {"fingerprint": "f", "n_samples": 40}, "source": source}
    Scores(table, manifest).save(tmp_path / "scores")
    return tmp_path


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def decisions(folder, records, **more):
    """Write decisions about the fixture's data, as the report exports them."""
    found = load_samples(folder / "data.npz").fingerprint()
    content = {"format": "lsi-decisions", "version": 1, "dataset_fingerprint": found, "decisions": records}
    (folder / "decisions.json").write_text(json.dumps({**content, **more}))
    return folder / "decisions.json"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "txt", "npy"])
def test_every_kind_of_selection_cleans_the_dataset(saved, capsys, suffix):
    kept = saved / f"kept.{suffix}"
    code, out, err = run(capsys, "select", saved / "scores", "--keep", "0.5", "-o", kept)
    assert (code, err) == (0, "")
    assert "20 of 40 samples are kept (50.0 %)" in out
    code, out, err = run(capsys, "apply", kept, saved / "data.npz", "-o", saved / "clean.npz", "-y")
    assert (code, err) == (0, "")
    assert "20 removed, 0 relabelled, 20 left" in out
    table = Scores(random_table(40, 2), {})
    with np.load(saved / "clean.npz") as found:
        np.testing.assert_array_equal(found["X"][:, 0], table.select(0.5))


def test_select_says_what_it_did_as_json(saved, capsys):
    words = ("--order", "largest=0.5,smallest=0.5", "--no-balanced", "--drop-mislabeled", "all", "--json")
    code, out, _ = run(capsys, "select", saved / "scores", "-k", "30%", *words)
    assert code == 0
    told = json.loads(out)
    assert told["n_kept"] == 12
    assert told["settings"]["order"] == {"largest": 0.5, "smallest": 0.5}
    assert told["settings"]["balanced"] is False
    assert told["n_suspected"] > told["n_suspected_kept"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep", "half"], "--keep 'half'"),
        (["--keep", "41"], "whole number from 1 to 40"),
        ([], "keep is missing"),
        (["--keep", "0.5", "--order", "largst"], "Did you mean 'largest'"),
        (["--keep", "0.5", "--order", "largest=x"], "write a mixed budget"),
        (["--keep", "0.5", "-o", "kept.xlsx"], ".parquet, .csv"),
        (["--keep", "0.5", "--drop-redundant"], "no redundancy groups"),
    ],
)
def test_select_refuses(saved, capsys, words, message):
    code, out, err = run(capsys, "select", saved / "scores", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_nothing_is_overwritten(saved, capsys):
    (saved / "kept.json").write_text("precious")
    code, _, err = run(capsys, "select", saved / "scores", "-k", "0.5", "-o", saved / "kept.json")
    assert code == 2
    assert "never overwritten" in err
    assert (saved / "kept.json").read_text() == "precious"


def test_decisions_of_the_report_are_applied(saved, capsys):
    label = int(random_table(40, 2)["label"][0])
    records = [
        {"sample_id": "s0", "decision": "accept", "label": str(label), "suggested_label": str(1 - label)},
        {"sample_id": "s7", "decision": "remove", "label": None, "suggested_label": None},
    ]
    decided = decisions(saved, records)
    words = ("apply", saved / "data.npz", "--decisions", decided, "-o", saved / "clean.npz")
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "1 removed, 1 relabelled, 39 left" in out
    with np.load(saved / "clean.npz") as found:
        assert found["y"][0] == 1 - label
        assert "s7" not in found["ids"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "never overwritten" in err


def test_a_folder_of_scores_and_decisions_together(saved, capsys):
    records = [{"sample_id": "s3", "decision": "remove"}]
    decided = decisions(saved, records)
    words = ("--decisions", decided, "--drop-mislabeled", "all", "-o", saved / "clean.npz", "--yes")
    assert run(capsys, "apply", saved / "scores", saved / "data.npz", *words)[0] == 0
    kept = Scores(random_table(40, 2), {}).select(drop_mislabeled=True)
    with np.load(saved / "clean.npz") as found:
        assert set(found["X"][:, 0].astype(int)) == set(kept.tolist()) - {3}


def test_apply_refuses_another_dataset(saved, capsys):
    np.savez(saved / "other.npz", X=np.ones((3, 1)), y=np.array([0, 1, 1]))
    run(capsys, "select", saved / "scores", "-k", "0.5", "-o", saved / "kept.json")
    code, _, err = run(capsys, "apply", saved / "kept.json", saved / "other.npz", "-o", saved / "x.npz")
    assert code == 2
    assert "speaks of other data" in err
    words = ("apply", saved / "kept.json", saved / "other.npz", "-o", saved / "x.npz", "--ids-only")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "20 ids are not in the dataset" in err
    assert not (saved / "x.npz").exists()
    code, _, err = run(capsys, "apply", saved / "data.npz", "-o", saved / "x.npz")
    assert code == 2
    assert "name the changes and the dataset" in err


def test_text_in_a_csv_is_no_formula(tmp_path, capsys):
    table = random_table(10, 2).assign(sample_id=[f"=cmd{i}" for i in range(10)])
    Scores(table, {}).save(tmp_path / "scores")
    assert run(capsys, "select", tmp_path / "scores", "-k", "10", "-o", tmp_path / "kept.csv")[0] == 0
    cells = pd.read_csv(tmp_path / "kept.csv")["sample_id"]
    assert cells.tolist() == [f"'=cmd{i}" for i in range(10)]
    np.savez(
        tmp_path / "data.npz", X=np.ones((10, 1)), y=table["label"], ids=table["sample_id"].to_numpy(str)
    )
    words = (
        "apply",
        tmp_path / "kept.csv",
        tmp_path / "data.npz",
        "-o",
        tmp_path / "clean.npz",
        "--ids-only",
    )
    assert run(capsys, *words)[0] == 0


def test_compare_gates_on_the_rank_correlation(saved, capsys):
    changed = random_table(40, 2)
    changed["lsi"] = changed["lsi"].to_numpy()[::-1].copy()
    changed.loc[0, "label"] = 1 - changed.loc[0, "label"]
    Scores(changed, {"data": {"fingerprint": "g"}}).save(saved / "new")
    code, out, err = run(capsys, "compare", saved / "scores", saved / "new")
    assert (code, err) == (0, "")
    assert "1 relabelled" in out
    code, _, err = run(capsys, "compare", saved / "scores", saved / "new", "--min-rank-correlation", "0.9")
    assert code == 1
    assert "below 0.9" in err
    words = ("--min-rank-correlation", "0.999", "--json")
    code, out, _ = run(capsys, "compare", saved / "scores", saved / "scores", *words)
    assert code == 0
    assert json.loads(out)["passed"] is True
    assert run(capsys, "compare", saved / "scores", saved / "new", "--min-rank-correlation", "9")[0] == 2


def test_difficulty_of_several_runs(saved, capsys):
    easy = random_table(40, 2).assign(loo_probability=0.99)
    Scores(easy, {}).save(saved / "easy")
    code, out, _ = run(capsys, "difficulty", saved / "easy", saved / "scores", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["dataset"].rsplit("/", 1)[-1] for row in rows] == ["scores", "easy"]
    code, out, _ = run(capsys, "difficulty", saved / "easy")
    assert code == 0
    assert "easy" in out
    assert run(capsys, "difficulty")[0] == 2


def test_redundancy_groups_come_with_the_scores(tmp_path, capsys):
    import lsi

    words = ("compute", "-d", "wine", "--first", "60", "--no-audit", "-q", "-o", tmp_path / "scores")
    assert run(capsys, *words, "--redundancy")[0] == 0
    scores = lsi.load(tmp_path / "scores")
    groups = scores.to_frame()["redundancy_group"]
    assert groups.max() >= 0
    code, out, _ = run(capsys, "select", tmp_path / "scores", "--drop-redundant", "--json")
    assert code == 0
    assert json.loads(out)["n_kept"] == (groups < 0).sum() + groups[groups >= 0].nunique()


def test_ids_of_every_kind_are_compared_or_refused(tmp_path, capsys):
    days = pd.date_range("2020-01-01", periods=10)
    kinds = {"naive": days, "utc": days.tz_localize("UTC"), "text": days.astype(str), "n": np.arange(10)}
    for name, ids in kinds.items():
        Scores(random_table(10, 2).assign(sample_id=ids), {}).save(tmp_path / name)
    for one in kinds:
        for other in kinds:
            code, _, err = run(capsys, "compare", tmp_path / one, tmp_path / other, "--json")
            assert code == (0 if one == other else 2), err
            assert one == other or "Name the same column" in err or "no sample in common" in err


def test_runs_of_two_tasks_are_not_compared(saved, capsys):
    Scores(random_table(40, 2), {"task": "multilabel"}).save(saved / "several")
    code, _, err = run(capsys, "compare", saved / "scores", saved / "several")
    assert code == 2
    assert "is of classification and" in err


def test_a_manifest_that_is_nested_too_deep_is_no_scores(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "manifest.json").write_text("[" * 200_000)
    words = (
        "compute",
        "-d",
        "wine",
        "--first",
        "60",
        "--no-audit",
        "-q",
        "-o",
        tmp_path / "s",
        "--overwrite",
    )
    assert run(capsys, *words)[0] == 2
    assert run(capsys, "show", tmp_path / "s")[0] == 2
