"""From a dataset to its cleaned version and back to scores, by the commands that each step prints."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsi.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table_without_ids():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 3)) + 3 * np.eye(3)[y]
    y = np.where(np.arange(60) % 12 == 3, (y + 1) % 3, y)  # every twelfth label is wrong
    rows = [",".join(f"{value:.3f}" for value in row) for row in X]
    lines = [f"{row},class {label}" for row, label in zip(rows, y, strict=True)]
    Path("data.csv").write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    return "data.csv --label-column kind --standardise"


def folder_of_pictures():
    rng = np.random.default_rng(0)
    for k in range(48):
        pixels = np.clip(rng.normal(60 + 60 * (k % 3), 30, (4, 4, 3)), 0, 255).astype(np.uint8)
        folder = Path("photos", str((k + (k % 12 == 5)) % 3))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return "photos --encoder raw"


def next_of(out):
    """Return the commands that a step printed."""
    return [shlex.split(line)[1:] for line in re.findall(r"^(?:Next|Then): (.*)$", out, re.M)]


def decide(path):
    """Accept, reject and remove, as somebody would in a spreadsheet; the rest is left open."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    column, suggested = rows[0].index("decision"), rows[0].index("suggested_label")
    with_suggestion = [row for row in rows[1:] if row[suggested]]
    with_suggestion[0][column], with_suggestion[1][column], rows[-1][column] = "accept", "reject", "remove"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize("make", [table_without_ids, folder_of_pictures])
def test_every_step_prints_the_next(make, capsys):
    def run(command):
        assert main(command) == 0
        out, err = capsys.readouterr()
        return next_of(out), out + err

    given = [*shlex.split(make()), "--weight-decay", "1e-2", "--no-audit", "--corrupt-seed", "1"]
    (mislabeled,), _ = run(["compute", "--dataset", *given, "--output", "scores"])
    (apply,), _ = run(mislabeled)
    decide("suspects.csv")
    (compute, compare), _ = run(apply)
    # The same settings, without what was planted on purpose.
    assert compute[-2:] == ["--output", "scores-cleaned"]
    assert set(given[1:-2]) <= set(compute) | {"1e-2"}
    assert compute[compute.index("--weight-decay") + 1] == "0.01"
    assert "--corrupt-seed" not in compute
    run(compute)
    _, told = run(compare)
    assert re.search(r"0 added, 1 removed, 1 relabelled", told)
    assert "matched by the receipt" in told
    assert "setting" not in told


def test_the_report_prints_how_its_decisions_are_applied(capsys):
    given = shlex.split(table_without_ids())
    assert main(["compute", "--dataset", *given, "--no-audit", "-q", "--output", "scores"]) == 0
    assert main(["report", "scores"]) == 0
    out = capsys.readouterr().out
    assert next_of(out) == [["apply", "decisions.csv", "data.csv", "-o", "data-cleaned.csv"]]


def test_a_dataset_that_changed_since_is_not_matched_by_its_receipt(capsys):
    given = [*shlex.split(table_without_ids()), "--no-audit", "-q", "--output"]
    assert main(["compute", "--dataset", *given, "scores"]) == 0
    assert main(["mislabeled", "scores", "-o", "suspects.csv"]) == 0
    decide("suspects.csv")
    assert main(["apply", "suspects.csv", "data.csv", "-o", "data-cleaned.csv"]) == 0
    receipt = Path("data-cleaned.csv.receipt/receipt.json")
    good = receipt.read_text()
    score = ["compute", "--dataset", "data-cleaned.csv", *given[1:], "new", "--overwrite"]
    assert main(score) == 0
    receipt.write_text(re.sub(r'"dataset_fingerprint": "....', '"dataset_fingerprint": "0000', good))
    assert main(["compare", "scores", "new"]) == 2
    assert "--by-row" in capsys.readouterr().err
    receipt.write_text(good)
    assert main(["compare", "scores", "new"]) == 0
    lines = Path("data-cleaned.csv").read_text().splitlines()
    Path("data-cleaned.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")  # in another order
    assert main(["compare", "scores", "new"]) == 2  # the file is not the one that was scored
    assert main(score) == 0
    assert main(["compare", "scores", "new"]) == 2  # nor the one that the receipt is of
