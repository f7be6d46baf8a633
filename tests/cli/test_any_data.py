"""`lsi compute` on folders, tables, texts; and `lsi cache`."""

import json

import numpy as np
import pandas as pd
import pytest
from tests import makers

import lsi
from lsi.cli import main

pytest.importorskip("transformers", reason="needs the extra `encoders`")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compute(tmp_path, *arguments, code=0):
    where = ["--output", str(tmp_path / "scores"), "--no-audit", "-q", "--overwrite"]
    assert main(["compute", *arguments, *where]) == code
    return lsi.load(tmp_path / "scores") if code == 0 else None


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    pixels, _ = makers.pictures(24, side=8)
    for k in range(24):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[k % 2] / f"{k:02}.png").write_bytes(makers.encoded_image(pixels[k]))
    return folder


def test_a_folder_of_images_with_an_encoder(tmp_path, photos):
    encoder = str(makers.tiny_resnet(tmp_path / "encoder"))
    scores = compute(tmp_path, "--dataset", str(photos), "--encoder", encoder)
    assert scores.sample_id[0] == "a/00.png"
    assert scores.manifest["encoder"]["encoder"] == encoder
    assert scores.manifest["timings"]["encode"] > 0
    raw = compute(tmp_path, "--dataset", str(photos), "--encoder", "raw")
    assert raw.manifest["data"]["n_features"] == 8 * 8 * 3


def test_broken_images_are_named_or_counted(tmp_path, photos, capsys):
    (photos / "a" / "02.png").write_bytes(b"")
    (photos / "b" / "03.png").write_bytes(b"junk")
    arguments = ["--dataset", str(photos), "--encoder", "raw"]
    compute(tmp_path, *arguments, code=2)
    assert "a/02.png: it has zero bytes" in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()
    scores = compute(tmp_path, *arguments, "--skip-broken")
    assert scores.manifest["left_out"]["n"] == 2
    assert "a/02.png: it has zero bytes" in scores.manifest["left_out"]["items"]
    assert len(scores) == 22
    assert "a/02.png" not in scores.sample_id.tolist()
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "scores"), "-o", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("data:image/") > 5
    assert "warning" not in capsys.readouterr().err


@pytest.fixture
def reviews(tmp_path):
    words = np.array(["good", "bad"])
    rng = np.random.default_rng(0)
    codes = np.arange(40) % 2
    texts = [" ".join([words[c], *rng.choice(["film", "a", "the", "very", "plot"], 4)]) for c in codes]
    path = tmp_path / "reviews.csv"
    pd.DataFrame({"id": [f"r{k}" for k in range(40)], "review": texts, "mood": codes}).to_csv(
        path, index=False
    )
    return path


def columns(path):
    return ["--dataset", str(path), "--text-column", "review", "--label-column", "mood", "--id-column", "id"]


def test_a_table_of_texts(tmp_path, reviews, capsys):
    encoder = ["--encoder", str(makers.tiny_bert(tmp_path / "encoder"))]
    scores = compute(tmp_path, *columns(reviews), *encoder)
    assert scores.sample_id[39] == "r39"
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "scores"), "-o", str(page)]) == 0
    assert 'class="text"><bdi>good ' in page.read_text(encoding="utf-8")
    noisy = compute(tmp_path, *columns(reviews), *encoder, "--corrupt-data", "0.25")
    frame = noisy.to_frame()
    assert (len(frame), frame["corrupted"].sum()) == (50, 10)
    assert noisy.manifest["corruption"]["kind"] == "text noise"
    compute(tmp_path, *columns(reviews)[:2], "--text-column", "revue", "--label-column", "mood", code=2)
    assert "Did you mean 'review'" in capsys.readouterr().err


def test_rows_without_label_or_text(tmp_path, reviews, capsys):
    frame = pd.read_csv(reviews)
    frame.loc[3, "mood"] = np.nan
    frame.loc[5, "review"] = " "
    frame.to_csv(reviews, index=False)
    arguments = [*columns(reviews), "--encoder", str(makers.tiny_bert(tmp_path / "encoder"))]
    compute(tmp_path, *arguments, code=2)
    assert "1 of 40 rows have no label (first: 3)" in capsys.readouterr().err
    scores = compute(tmp_path, *arguments, "--skip-broken")
    assert len(scores) == 38
    assert {"r3", "r5"}.isdisjoint(scores.sample_id.tolist())
    assert scores.manifest["classes"] == [0, 1]


def test_clean_labels_of_a_table_are_the_truth(tmp_path):
    rng = np.random.default_rng(0)
    clean = np.arange(60) % 3
    given = clean.copy()
    given[:6] = (given[:6] + 1) % 3
    table = pd.DataFrame(rng.normal(size=(60, 4)) + clean[:, None], columns=list("abcd"))
    table.assign(given=given, clean=clean).to_parquet(tmp_path / "t.parquet")
    frame = compute(
        tmp_path, "--dataset", str(tmp_path / "t.parquet"), "--label-column", "given",
        "--clean-label-column", "clean", "--standardise",
    ).to_frame()  # fmt: skip
    np.testing.assert_array_equal(frame["corrupted"], given != clean)
    np.testing.assert_array_equal(frame["original_label"], clean)


def test_a_transition_matrix_from_a_file(tmp_path):
    (tmp_path / "t.csv").write_text("1,0,0\n0,1,0\n0,0.5,0.5\n")
    frame = compute(tmp_path, "--dataset", "wine", "--transition", str(tmp_path / "t.csv")).to_frame()
    assert set(frame.loc[frame["corrupted"], "original_label"]) == {2}
    pairs = compute(tmp_path, "--dataset", "wine", "--corrupt-label", "0.1", "--corrupt-kind", "pairwise")
    assert pairs.manifest["corruption"]["kind"] == "pairwise"


def test_features_need_no_encoder(tmp_path, capsys):
    compute(tmp_path, "--dataset", "wine", "--encoder", "raw", code=2)
    assert "nothing to encode" in capsys.readouterr().err


def test_labels_are_checked_before_the_encoding(tmp_path, photos, capsys):
    import shutil

    shutil.rmtree(photos / "b")
    compute(tmp_path, "--dataset", str(photos), "--encoder", "raw", code=2)
    assert "one class only" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "features").exists()


def test_cache_ls_and_rm(tmp_path, photos, capsys):
    assert main(["cache", "ls"]) == 0
    assert "0 entries" in capsys.readouterr().out
    compute(tmp_path, "--dataset", str(photos), "--encoder", "raw")
    capsys.readouterr()
    assert main(["cache", "ls"]) == 0
    out = capsys.readouterr().out
    assert "photos" in out
    assert "raw" in out
    assert main(["cache", "ls", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["rows"], entry["dim"]) == (24, 192)
    assert main(["cache", "rm"]) == 2
    assert main(["cache", "rm", "nope"]) == 2
    assert main(["cache", "rm", "--incomplete"]) == 0
    assert main(["cache", "rm", entry["key"][:10]]) == 0
    assert "1 entries removed" in capsys.readouterr().out
    assert main(["cache", "rm", "--all"]) == 0
