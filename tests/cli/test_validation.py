"""`lsi report --validation`: errors and their causes, from the folder of scores and a file of rows."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from tests import makers
from tests.fitted.data import CASES

import lsi
from lsi.cli import main

QUIET = ["--no-audit", "--no-label-noise", "-q"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def section(page="report.html"):
    with open(page, encoding="utf-8") as file:
        text = file.read()
    return text[text.index('<section id="errors"') :].partition("</section>")[0]


def table(x, y, name):
    pd.DataFrame(x, columns=list("abcd")).assign(kind=[f"kind {k}" for k in y]).to_csv(name, index=False)


@pytest.fixture
def tables():
    """Return the rows of a validation file, whose training rows are scored already."""
    case = CASES["three classes"]
    table(case.x, case.y, "train.csv")
    table(case.new_x, case.new_y, "val.csv")
    words = ["--label-column", "kind", "--no-prepare", "--weight-decay", "0.01"]
    assert main(["compute", "-d", "train.csv", "-o", "scores", *words, *QUIET]) == 0
    return case


def test_the_page_holds_the_errors_and_causes_of_the_probe(tables, capsys):
    assert main(["report", "scores", "--validation", "val.csv"]) == 0
    fitted = lsi.fit(tables.x, tables.y, probe=lsi.LinearProbe(0.01))
    errors = fitted.errors(tables.new_x, tables.new_y)
    shown = section()
    assert f"{len(errors)} of 20 validation rows are predicted wrongly" in shown
    told = re.findall(r'title="Validation row (\d+)"', shown)
    assert told == errors["position"].astype(str).tolist()[:12]
    worst = errors["position"].iloc[0]
    causes = fitted.explain(tables.new_x[[worst]], tables.new_y[[worst]], k=4)
    first = shown.partition('title="Validation row ' + told[1])[0]
    against = causes[causes["rank"] < 0]["sample_id"].astype(str).tolist()
    assert re.findall(r'title="Sample id (\d+)"', first)[: len(against)] == against


def test_images_stand_side_by_side(folder):
    pixels, codes = makers.pictures(60, side=4)
    for k in range(60):
        place = folder / ("train" if k < 40 else "val") / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k:02}.png").write_bytes(makers.encoded_image(pixels[k]))
    raw = ["--encoder", "raw", "--cache-dir"]
    assert main(["compute", "-d", "train", "-o", "scores", *raw, "first", *QUIET]) == 0
    shutil.rmtree("first")
    assert main(["report", "scores", "--validation", "val", *raw, "second"]) == 0
    assert not (
        folder / "first"
    ).exists()  # scores may come from anyone, and say nothing of places to write to
    shown = section()
    assert shown.count("data:image/") == shown.count('class="card"') > 4


def test_texts_stand_side_by_side(folder):
    random = np.random.default_rng(0)
    for name, n in (("train.csv", 40), ("val.csv", 12)):
        said = [" ".join(random.choice(["good", "bad", "film", "plot"], 4)) for _ in range(n)]
        pd.DataFrame({"review": said, "mood": np.arange(n) % 2}).to_csv(name, index=False)
    bert = ["--encoder", str(makers.tiny_bert(folder / "encoder")), "--cache-dir", "cache"]
    columns = ["--text-column", "review", "--label-column", "mood"]
    assert main(["compute", "-d", "train.csv", "-o", "scores", *columns, *bert, *QUIET]) == 0
    assert main(["report", "scores", "--validation", "val.csv", "--cache-dir", "cache"]) == 0
    shown = section()
    assert shown.count('<p class="text">') == shown.count('class="card"') > 2


def test_several_labels_and_regressions(capsys):
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 4))
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["red"], frame["big"] = (x[:, :2] + random.standard_normal((60, 2)) > 0).astype(int).T
    frame[:40].to_csv("train.csv", index=False)
    frame[40:].to_csv("val.csv", index=False)
    words = ["-d", "train.csv", "--no-prepare", *QUIET]
    assert main(["compute", *words, "-o", "scores", "--label-columns", "red", "big"]) == 0
    assert main(["report", "scores", "--validation", "val.csv"]) == 0
    assert re.search("<dt>predicted</dt><dd><bdi>(red, big|red|big|\\(none\\))</bdi>", section())
    assert main(["compute", *words, "-o", "numbers", "--label-column", "d", "--task", "regression"]) == 0
    capsys.readouterr()
    assert main(["report", "numbers", "--validation", "val.csv"]) == 2
    assert "Ask explain(X, y) for the changes of its predictions" in capsys.readouterr().err
    assert main(["explain", "numbers", "val.csv"]) == 0
    assert "prediction without it" in " ".join(capsys.readouterr().out.split())
    assert main(["candidates", "numbers", "val.csv"]) == 0
    assert "relative error" in " ".join(capsys.readouterr().out.split())


def test_what_cannot_be_shown_is_refused_and_no_page_is_written(tables, folder, capsys):
    case = tables
    lsi.score(case.x, case.y, audit=False, label_noise=False).save("python")
    pd.read_csv("val.csv").drop(columns="kind").to_csv("bare.csv", index=False)
    pd.read_csv("val.csv").drop(columns="a").to_csv("lacks.csv", index=False)
    pd.read_csv("val.csv").assign(kind="kind 9").to_csv("other.csv", index=False)
    said = {
        "python --validation val.csv": "Train one with `lsi fit`",
        "scores --validation bare.csv": "20 of 20 rows of bare have no label",
        "scores --validation lacks.csv": "has no column 'a'",
        "scores --validation other.csv": "never trained on: 'kind 9'",
        "scores --validation none.csv": "none.csv does not exist",
        "scores --encoder raw": "for the rows of --validation",
        "scores --validation val.csv -o val.csv": "same as --validation",
    }
    for words, message in said.items():
        assert main(["report", *words.split()]) == 2, words
        assert message in capsys.readouterr().err, words
    assert not (folder / "report.html").exists()
