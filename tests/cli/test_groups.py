"""`lsi compute --group-column`: whole groups are left out, told, kept, resumed and refused."""

import json
import shlex

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import lsi
from lsi.cli import main
from lsi.results.marks import GROUPS, read_mark

N = 60
READ = "--dataset visits.csv --label-column ill --group-column patient"
COMPUTE = f"compute {READ} --weight-decay 0.01 --no-label-noise --no-audit"


def visits():
    """Return visits by patients: those of patient 7 are copies of one visit, and two are nobody's."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((N, 2)).round(3), columns=["dose", "age"])
    frame["patient"] = np.arange(N) % 8
    copies = frame["patient"] == 7
    frame.loc[copies, ["dose", "age"]] = frame.loc[copies, ["dose", "age"]].iloc[0].to_numpy()
    frame["ill"] = np.where(frame["dose"] + 0.5 * rng.standard_normal(N) > 0, "yes", "no")
    frame.loc[copies, "ill"] = "yes"
    frame["patient"] = frame["patient"].astype("Int64")
    frame.loc[[3, 11], "patient"] = pd.NA
    return frame


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    visits().to_csv("visits.csv", index=False)
    return tmp_path


def run(capsys, line, code=0):
    found = main(shlex.split(line))
    out, err = capsys.readouterr()
    assert found == code, err
    return out, " ".join(err.split())


def expected(frame=None):
    """Return the table of the fitted object, which has nothing to do with files."""
    frame = visits() if frame is None else frame
    samples = lsi.load_samples("visits.csv", label_column="ill", group_column="patient")
    assert samples.feature_names == ("dose", "age")
    fitted = lsi.fit(samples.features, samples.labels, probe=lsi.LinearProbe(0.01))
    return fitted.groups(frame["patient"].astype(object).where(frame["patient"].notna(), None)).to_frame()


def test_groups_are_scored_told_kept_and_loaded(capsys):
    out, err = run(capsys, f"{COMPUTE} -o scores")
    assert (
        "note: 8 groups in 'patient', the largest of 8 samples; 2 samples without a value belong to none."
        in err
    )
    assert "expected cost: about" in err
    table = expected()
    assert "Each of 8 groups of the column patient was left out as a whole." in " ".join(out.split())
    best = table.sort_values("lsi_per_row")["group"].iloc[-1]
    assert f"A sample of group {best} is worth the most" in " ".join(out.split())
    loaded = lsi.load("scores")
    pd.testing.assert_frame_equal(loaded.groups, table, rtol=1e-6)
    assert "patient" not in str(loaded.manifest["preparation"])
    told, _ = run(capsys, "show scores --json")
    groups = json.loads(told)["groups"]
    assert groups["column"] == "patient"
    assert [row["lsi_per_row"] for row in groups["rows"]] == sorted(
        table["lsi_per_row"].tolist(), reverse=True
    )


def test_the_table_of_groups_says_what_it_is_and_guards_itself(capsys, folder):
    run(capsys, f"{COMPUTE} -q -o scores")
    kept = folder / "scores" / "groups.parquet"
    mark, of_scores = read_mark(kept), read_mark(folder / "scores")
    assert (mark.kind, mark.version) == (GROUPS, 1)
    assert (mark.run, mark.fingerprint) == (of_scores.run, of_scores.fingerprint)
    assert mark.columns["group_column"] == "patient"
    whole = kept.read_bytes()
    table = pq.read_table(kept)
    pq.write_table(table.slice(1), kept)
    _, err = run(capsys, "show scores", 2)
    assert "damaged: groups.parquet does not match the checksum" in err
    kept.unlink()
    _, err = run(capsys, "show scores", 2)
    assert "has no groups.parquet" in err
    kept.write_bytes(whole)
    run(capsys, f"{COMPUTE} -q -o scores --overwrite")


def test_rows_that_are_alike_are_worth_more_together(capsys):
    """Copies stand in for each other: leaving out one of them shows little of what they are worth."""
    out, _ = run(capsys, f"{COMPUTE} --json")
    finding = {row["group"]: row["finding"] for row in json.loads(out)["groups"]["rows"]}
    assert finding["7"] == "together"


@pytest.mark.parametrize("kind", ["npz", "safetensors", "images"])
def test_other_kinds_of_data(capsys, folder, kind):
    rng = np.random.default_rng(1)
    X, y, group = rng.standard_normal((24, 3)), np.arange(24) % 2, np.arange(24) // 4
    if kind == "npz":
        np.savez("data.npz", X=X, y=y, site=np.array(list("abcdef"))[group])
        words = "--dataset data.npz --group-column site"
    elif kind == "safetensors":
        save = pytest.importorskip("safetensors.numpy").save_file
        save({"X": X, "y": y, "site": group}, "data.safetensors")
        words = "--dataset data.safetensors --group-column site"
    else:
        image = pytest.importorskip("PIL.Image")
        for k in range(24):
            pixels = rng.integers(0, 99, (4, 4), dtype=np.uint8) + np.uint8(100 * y[k])
            image.fromarray(pixels).save(f"{k}.png")
        pd.DataFrame({"file": [f"{k}.png" for k in range(24)], "label": y, "site": group}).to_csv("t.csv")
        words = "--dataset t.csv --image-column file --group-column site --encoder raw --cache-dir cache"
    out, _ = run(capsys, f"compute {words} --no-audit --no-label-noise --json")
    rows = json.loads(out)["groups"]["rows"]
    assert sorted(row["group"] for row in rows) == sorted("abcdef" if kind == "npz" else "012345")
    assert {row["n"] for row in rows} == {4}


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"patient": range(N)}, "", "names samples rather than groups"),
        ({"patient": "one"}, "", "group 'one' is all of the data"),
        ({"patient": None}, "", "names no group: every entry is missing"),
        ({"patient": lambda f: f["ill"]}, "", "holds every sample of class 'no', which could not be learned"),
        ({}, "--feature-columns dose patient", "both --group-column and one of --feature-columns"),
        ({}, "--method retrain", "groups need --method newton"),
        ({}, "--hidden 4", "a probe without hidden layers"),
        ({}, "--shard 1/2", "in a run of their own, without --shard"),
    ],
)
def test_groups_that_cannot_be_left_out_are_refused_before_any_work(
    capsys, folder, monkeypatch, change, words, said
):
    monkeypatch.setattr("lsi.cli.job.encode", None)  # the first long stage
    visits().assign(**change).to_csv("visits.csv", index=False)
    _, err = run(capsys, f"{COMPUTE} -o scores {words}", 2)
    assert said in err
    assert not (folder / "scores").exists()


def test_a_column_that_is_not_there(capsys):
    _, err = run(capsys, COMPUTE.replace("patient", "pateint"), 2)
    assert "has no column 'pateint' (--group-column). Did you mean 'patient'" in err


def test_a_folder_of_images_names_no_groups(capsys, folder):
    image = pytest.importorskip("PIL.Image")
    for k in range(6):
        place = folder / "photos" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.new("L", (4, 4), 40 * k).save(place / f"{k}.png")
    _, err = run(capsys, "compute --dataset photos --encoder raw --group-column who", 2)
    assert "--dataset table.csv --image-column file --label-column label --group-column who" in err
    _, err = run(capsys, "compute --dataset wine --group-column who", 2)
    assert "--group-column who finds no groups" in err


def test_an_interrupted_run_goes_on_with_its_groups(capsys, monkeypatch):
    from lsi.execution.checkpoint import Checkpoint

    put = Checkpoint.put

    def stop(self, name, arrays):
        put(self, name, arrays)
        if name.startswith("groups"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "put", stop)
        run(capsys, f"{COMPUTE} -q -o scores", 130)
    visits().assign(patient=lambda f: f["patient"].fillna(1)).to_csv("visits.csv", index=False)
    _, err = run(capsys, f"{COMPUTE} -q -o scores", 2)  # other groups are another run
    assert "scores.unfinished" in err
    visits().to_csv("visits.csv", index=False)
    run(capsys, f"{COMPUTE} -q -o scores")
    pd.testing.assert_frame_equal(lsi.load("scores").groups, expected(), rtol=1e-6)


def test_the_column_is_kept_in_a_file_of_options_and_by_new_rows(capsys, folder):
    run(capsys, f"{COMPUTE} -q -o scores")
    run(capsys, "init --from scores -o again.toml")
    assert 'group_column = "patient"' in (folder / "again.toml").read_text() or (
        'group-column = "patient"' in (folder / "again.toml").read_text()
    )
    out, _ = run(capsys, "compute --config again.toml --json")
    assert json.loads(out)["groups"]["column"] == "patient"
    run(capsys, f"fit {READ} --no-prepare -q -o model")
    visits()[["age", "dose", "patient"]].head(3).to_csv("new.csv", index=False)
    run(capsys, "candidates model new.csv -q")  # with the column that is no feature
    visits()[["age", "dose"]].head(3).to_csv("new.csv", index=False)
    run(capsys, "candidates model new.csv -q")  # and without


def test_help_shows_the_column(capsys):
    out, _ = run(capsys, "compute --help")
    assert "--group-column" in out
