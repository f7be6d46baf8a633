"""Tables of mixed columns through the commands: prepared, said, kept, applied to the original, refused."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lsi
from lsi.cli import main

N = 60
LABEL = "--label-column churn"


def customers(n=N):
    """Return a table with an id, a gap, a category, a date, and three wrong labels."""
    rng = np.random.default_rng(0)
    churn = np.arange(n) % 2
    frame = pd.DataFrame(
        {
            "customer_id": [f"C{k:03}" for k in rng.permutation(n)],
            "age": (rng.normal(40, 4, n) + 16 * churn).round(1),
            "plan": np.where(rng.random(n) < 0.2 + 0.6 * churn, "basic", "pro"),
            "since": pd.date_range("2020-01-31", periods=n, freq="31D").strftime("%Y-%m-%d"),
            "visits": rng.poisson(3, n),
            "remark": [f"asked about invoice {k} by phone" for k in range(n)],
            "churn": np.where(churn ^ np.isin(np.arange(n), [20, 31, 42]), "yes", "no"),
        }
    )
    frame.loc[5:9, "age"] = np.nan
    return frame


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(frame, kind="csv", name="customers"):
    path = Path(f"{name}.{kind}")
    WRITERS[kind](frame, path)
    return path


def run(capsys, line, code=0):
    found = main(shlex.split(line))
    out, err = capsys.readouterr()
    assert found == code, err
    return out, " ".join(err.split())


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_of_mixed_columns_just_works(capsys, kind):
    path = write(customers(), kind)
    _, err = run(capsys, f"compute --dataset {path} {LABEL} -o scores --no-audit")
    assert "60 samples, 9 features, 2 classes" in err
    said = "9 features from 4 of 6 columns: 2 numbers (1 with missing values), 1 category, 1 date."
    assert f"note: {said} --no-prepare takes the numbers as they are." in err
    assert "note: not used: 'customer_id' (looks like an id; " in err
    assert "'remark' (free text; to use it: --text-column)." in err
    told = {entry["column"]: entry for entry in lsi.load("scores").manifest["preparation"]}
    assert told["age"]["missing"] == 5
    assert told["plan"] == {"column": "plan", "kind": "category", "did": "zeros and ones", "features": 1}
    assert told["remark"]["kind"] == "left out"
    _, err = run(capsys, "report scores -o page.html")
    assert "warning" not in err


def test_every_format_gives_the_same_features_and_the_same_fingerprint():
    read = [lsi.load_samples(write(customers(), kind), label_column="churn") for kind in WRITERS]
    for samples in read[1:]:
        np.testing.assert_array_equal(samples.features, read[0].features)
    # Arrow reads 2020-01-31 in a CSV as a date; in the other two formats it is the text that was written.
    assert read[0].fingerprint() == read[1].fingerprint()
    assert read[2].fingerprint() == read[3].fingerprint()


def decide(listed):
    """Give the first sample of a list of suspects the other label, and remove the second."""
    frame = pd.read_csv(listed, dtype=str, keep_default_na=False)
    frame.loc[0, ["suggested_label", "decision"]] = ["no" if frame["label"][0] == "yes" else "yes", "accept"]
    frame.loc[1, "decision"] = "remove"
    frame.to_csv(listed, index=False)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("how", ["", "--no-prepare"])
def test_decisions_are_applied_to_the_original_columns_and_undone(capsys, kind, how):
    frame = customers().fillna({"age": 44.0})
    path = write(frame, kind)
    run(capsys, f"compute --dataset {path} {LABEL} --id-column customer_id {how} -o scores --no-audit -q")
    run(capsys, "mislabeled scores -o suspects.csv")
    decide("suspects.csv")
    out, _ = run(capsys, f"apply suspects.csv {path} --as decisions -o cleaned.{kind}")
    assert ("--no-prepare" in out) == bool(how)
    before = path.read_text(encoding="utf-8").splitlines()
    after = Path(f"cleaned.{kind}").read_text(encoding="utf-8").splitlines()
    assert len(after) == len(before) - 1
    assert (
        len(set(after) - set(before)) == 1
    )  # the row with another label: all others, cell by cell, as before
    run(capsys, f"apply --undo cleaned.{kind}.receipt -o again.{kind}")
    assert Path(f"again.{kind}").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    frame.loc[3, "plan"] = "other plan"
    if not how:  # what was scored has changed, though ids and labels are the same
        WRITERS[kind](frame, path)
        _, err = run(capsys, f"apply suspects.csv {path} --as decisions -o third.{kind}", code=2)
        assert "speaks of other data" in err


def test_without_preparation_missing_values_are_named_by_column(capsys):
    path = write(customers())
    _, err = run(capsys, f"compute --dataset {path} {LABEL} --no-prepare --no-audit", code=2)
    assert "5 of 60 rows (first: 5, 6, 7, 8, 9): 'age' in 5" in err
    assert "without --no-prepare" in err
    write(customers().drop(columns="age"))
    _, err = run(capsys, f"compute --dataset {path} {LABEL} --no-prepare -o scores --no-audit")
    assert "columns that hold no numbers were left out: 'customer_id', 'plan', 'since', 'remark'" in err
    manifest = lsi.load("scores").manifest
    assert "preparation" not in manifest
    assert manifest["source"]["options"]["prepare"] == "no"


def test_parts_of_a_run_are_prepared_alike(capsys):
    path = write(customers(400))
    run(capsys, f"compute --dataset {path} {LABEL} -o whole --no-audit -q")
    for part in (1, 2):
        run(capsys, f"compute --dataset {path} {LABEL} -o part{part} --shard {part}/2 --no-audit -q")
    run(capsys, "merge part1 part2 -o merged")
    np.testing.assert_array_equal(lsi.load("merged").lsi, lsi.load("whole").lsi)
    assert lsi.load("merged").manifest["preparation"] == lsi.load("whole").manifest["preparation"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, "--label-column customer_id", "holds 60 different values in 60 rows.*Likely: 'churn' (2 val"),
        ({}, "", "which column holds the labels.*Likely: 'churn' (2 values), 'plan' (2 values)"),
        ({"churn": "yes"}, LABEL, "one class only"),
        ({"churn": ["yes", "no", None] * 20}, LABEL, "20 of 60 rows have no label (first: 2, 5, 8, 11, 14)"),
        ({"age": 1, "plan": "a", "since": None, "visits": 1}, LABEL, "no column can be learnt from"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_right_are_met_with_likely_ones(capsys, change, options, message):
    path = write(customers().assign(**change))
    _, err = run(capsys, f"compute --dataset {path} {options} --no-audit", code=2)
    for part in message.split(".*"):
        assert part in err


def test_distinct_numbers_are_a_target_if_the_task_says_so(capsys):
    path = write(customers().assign(price=np.random.default_rng(1).choice(10**6, N, replace=False)))
    _, err = run(capsys, f"compute --dataset {path} --label-column price --no-audit", code=2)
    assert "--task regression" in err
    run(capsys, f"compute --dataset {path} --label-column price --task regression --no-audit -q")


def test_pictures_beside_other_columns_are_noticed(capsys):
    path = write(customers().assign(photo=[f"img/{k}.jpg" for k in range(N)]))
    _, err = run(capsys, f"compute --dataset {path} {LABEL} --no-audit --subset 5")
    assert "'photo' (paths of pictures; to use them: --image-column)" in err
    write(pd.DataFrame({"photo": [f"img/{k}.jpg" for k in range(N)], "churn": ["yes", "no"] * 30}))
    _, err = run(capsys, f"compute --dataset {path} {LABEL} --no-audit", code=2)
    assert "'photo' (paths of pictures; to use them: --image-column)" in err


def test_a_file_with_semicolons_says_so(capsys):
    customers().to_csv("customers.csv", index=False, sep=";")
    _, err = run(capsys, "compute --dataset customers.csv", code=2)
    assert "Its cells seem to be separated by ';'" in err


def test_texts_and_numbers_in_one_column_of_json(capsys):
    rows = customers().to_dict("records")
    for k, row in enumerate(rows):
        row["mixed"] = [str(k % 7), k % 7, None][k % 3]
        row["age"] = None if row["age"] != row["age"] else row["age"]
    path = Path("customers.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run(capsys, f"compute --dataset {path} {LABEL} -o scores --no-audit -q")
    told = {entry["column"]: entry for entry in lsi.load("scores").manifest["preparation"]}
    assert (told["mixed"]["kind"], told["mixed"]["missing"]) == ("number", 20)
    for row in rows[::2]:
        row["churn"] = 1
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    _, err = run(capsys, f"compute --dataset {path} {LABEL} --no-audit", code=2)
    assert "'churn' mixes texts and numbers" in err


def test_types_that_change_far_down_a_json_file(capsys):
    """The first batches of rows hold numbers alone, and a later one texts."""
    rows = [{"x": k % 5, "y": k % 2} for k in range(600)] + [{"x": "4", "y": 1}, {"x": True, "y": 0}]
    path = Path("t.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    samples = lsi.load_samples(path)
    assert samples.preparation.columns[0].kind == "category"
    assert "x=4" in samples.feature_names
    path.write_text(path.read_text() + '\n{"x": 1, "y": "one"}', encoding="utf-8")
    with pytest.raises(lsi.InputError, match="'y' mixes texts and numbers"):
        lsi.load_samples(path)


def test_named_features_are_taken_even_if_they_look_like_ids(capsys):
    path = write(customers().assign(rank=np.arange(N)))
    _, err = run(
        capsys, f"compute --dataset {path} {LABEL} --feature-columns rank plan --no-audit --subset 5"
    )
    assert "2 features from 2 of 2 columns: 1 number, 1 category" in err
