"""`lsi show` and `lsi report`: scores that were saved, built by hand here."""

import json

import numpy as np
import pytest
from tests.makers import encoded_image, pictures

from lsi.cli import main
from lsi.data import load_samples
from lsi.scores import Scores


@pytest.fixture
def saved(tmp_path):
    """Scores of wine, by hand: half a nat each, a little more further down."""
    import pandas as pd

    wine = load_samples("wine")
    n = len(wine)
    table = pd.DataFrame({"sample_id": wine.ids, "position": np.arange(n), "label": wine.labels})
    table = table.assign(lsi=0.5 + np.arange(n) / n, mean_term=0.5, covariance_term=0.0)
    table = table.assign(loo_probability=0.75, loo_prediction=wine.labels)
    manifest = {
        "source": {**wine.source, "description": wine.description},
        "class_names": {str(code): name for code, name in wine.class_names.items()},
        "data": {"n_samples": n},
    }
    Scores(table, manifest, None).save(tmp_path / "scores")
    return tmp_path / "scores"


def test_show_prints_both_ends(saved, capsys):
    assert main(["show", str(saved), "--rows", "2"]) == 0
    out = capsys.readouterr().out
    for sample in ("177", "176", "0", "1"):
        assert sample in out.split()
    assert "175" not in out.split()
    assert "class_2" in out


def test_show_as_json(saved, capsys):
    assert main(["show", str(saved), "-n", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [card["sample_id"] for card in result["highest"]] == ["177", "176", "175"]
    assert result["detection"] is None
    assert result["audit"] is None


def test_report_finds_the_data_again(saved, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(saved), "-o", str(page)]) == 0
    assert 'class="profile"' in page.read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


def test_report_without_the_data_warns_and_goes_on(saved, tmp_path, capsys):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["source"] = {"kind": "file", "name": "gone.npz", "path": str(tmp_path / "gone.npz")}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    assert main(["report", str(saved), "-o", str(tmp_path / "page.html")]) == 0
    assert "no pictures" in capsys.readouterr().err
    assert 'class="profile"' not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_report_refuses_other_data(saved, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(saved), "-o", str(page), "--dataset", "breast_cancer"]) == 2
    assert "not the ones that were scored" in capsys.readouterr().err
    assert not page.exists()


def test_report_stays_out_of_the_folder_of_scores(saved, capsys):
    assert main(["report", str(saved), "-o", str(saved / "report.html")]) == 2
    assert "lies inside the scores" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "report"])
def test_scores_that_are_not_there(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_rows_must_be_positive(saved, capsys):
    assert main(["show", str(saved), "--rows", "0"]) == 2
    assert "--rows" in capsys.readouterr().err


@pytest.fixture
def own_features(tmp_path):
    """Scores of features that somebody made of pictures, and a table of these pictures in another order."""
    import pandas as pd

    pixels, codes = pictures(30)
    ids = [f"p{k}" for k in range(30)]
    np.savez(tmp_path / "own.npz", X=pixels.mean(axis=(1, 2)), y=codes % 2, ids=ids)
    assert (
        main(["compute", "-d", str(tmp_path / "own.npz"), "-o", str(tmp_path / "s"), "-q", "--no-audit"]) == 0
    )
    frame = pd.DataFrame(
        {"name": ids, "picture": [encoded_image(each) for each in pixels], "kind": codes % 2}
    )
    frame.iloc[::-1].to_parquet(tmp_path / "pictures.parquet")
    return tmp_path


COLUMNS = ["--id-column", "name", "--image-column", "picture", "--label-column", "kind"]


def test_pictures_of_own_features_are_found_by_id(own_features, capsys):
    page = own_features / "page.html"
    words = ["report", str(own_features / "s"), str(own_features / "pictures.parquet"), *COLUMNS]
    assert main([*words, "-o", str(page)]) == 2  # what was scored were the features
    assert "--ids-only" in capsys.readouterr().err
    assert main([*words, "--ids-only", "-o", str(page)]) == 0
    assert "data:image/" in page.read_text(encoding="utf-8")
    told = capsys.readouterr().out
    assert f"pictures.parquet {' '.join(COLUMNS[:2])}" in told  # the next command takes the same options
    assert "--ids-only -o pictures-cleaned.parquet" in told


def test_report_and_apply_take_the_same_options_for_the_same_data(own_features, capsys):
    changes = own_features / "changes.csv"
    changes.write_text("sample_id,decision\np3,remove\n")
    words = ["apply", str(changes), str(own_features / "pictures.parquet"), *COLUMNS, "--ids-only"]
    assert main([*words, "--as", "decisions", "-o", str(own_features / "clean.parquet")]) == 0
    assert "1 removed" in capsys.readouterr().out


def test_pictures_that_lack_an_id_are_refused(own_features, capsys):
    import pandas as pd

    path = own_features / "pictures.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    words = ["report", str(own_features / "s"), "--dataset", str(path), *COLUMNS, "--ids-only"]
    assert main([*words, "-o", str(own_features / "page.html")]) == 2
    assert "'p29'" in capsys.readouterr().err
