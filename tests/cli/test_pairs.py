"""`lsi compute` on pairs: arrays, two columns, two views of one column."""

import json

import numpy as np
import pandas as pd
import pytest
from tests import makers
from tests.oracles import info_nce

import lsi
from lsi.cli import main

SMALL = ["--dim", "4", "--no-audit"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def arrays(tmp_path):
    left, right = info_nce.pairs(n=30, left=6, right=5, mismatched=0)
    path = tmp_path / "pairs.npz"
    np.savez(path, left=left, right=right, ids=[f"pair <{i}>" for i in range(30)])
    return path, left, right


def compute(tmp_path, *arguments, code=0):
    where = ["--output", str(tmp_path / "scores"), "-q", "--overwrite", *SMALL]
    assert main(["compute", *map(str, arguments), *where]) == code
    return lsi.load(tmp_path / "scores") if code == 0 else None


def test_two_arrays_score_as_the_library_does(tmp_path, arrays):
    path, left, right = arrays
    scores = compute(tmp_path, "--dataset", path, "--subset", "3,1,20")
    expected = lsi.score_pairs(left, right, probe=lsi.ContrastiveProbe(dim=4), subset=[3, 1, 20], audit=False)
    np.testing.assert_allclose(scores.lsi, expected.lsi)
    assert scores.sample_id.tolist() == ["pair <3>", "pair <1>", "pair <20>"]


def test_mismatched_pairs_are_planted_and_reported(tmp_path, arrays, capsys):
    page = tmp_path / "page.html"
    scores = compute(tmp_path, "--dataset", arrays[0], "--mismatch", "0.2", "--report", page)
    table = scores.to_frame()
    assert table["corrupted"].sum() == 6
    assert (table["corrupted"] == (table["original_label"] != table["label"])).all()
    assert scores.manifest["corruption"] == {
        "kind": "mismatched pairs", "rate": 0.2, "seed": 0, "n_corrupted": 6,
    }  # fmt: skip
    assert "<0>" not in page.read_text(encoding="utf-8")
    assert main(["show", str(tmp_path / "scores")]) == 0
    assert "likely partner" in capsys.readouterr().out
    assert main(["compute", "--dataset", str(arrays[0]), "--json", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["probe"]["kind"] == "contrastive"


@pytest.fixture
def captions(tmp_path):
    pixels, _ = makers.pictures(24, side=8)
    texts = [
        f"a {'bright' if picture.mean() > 120 else 'dark'} picture number {k}"
        for k, picture in enumerate(pixels)
    ]
    frame = pd.DataFrame({"image": [makers.encoded_image(p) for p in pixels], "caption": texts})
    frame.to_parquet(tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_images_and_captions_need_no_label(tmp_path, captions):
    pytest.importorskip("transformers", reason="needs the extra `encoders`")
    words = str(makers.tiny_bert(tmp_path / "words"))
    columns = ["--image-column", "image", "--text-column", "caption"]
    scores = compute(
        tmp_path,
        "--dataset",
        captions,
        *columns,
        "--encoder",
        "raw",
        "--text-encoder",
        words,
        "--tol",
        "none",
    )
    assert len(scores) == 24 and scores.task == "contrastive"
    assert scores.manifest["encoder"]["encoder"] == "raw"
    assert scores.manifest["encoder_right"]["encoder"] == words
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "scores"), "-o", str(page)]) == 0
    assert "data:image/png" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("change", ["crop", "flip", "grey"])
def test_two_views_of_the_same_images(tmp_path, captions, change):
    from lsi.data.options import SourceOptions
    from lsi.data.pairs import augmented, load_pairs
    from lsi.features.encoders.raw import RawEncoder

    pytest.importorskip("PIL", reason="needs the extra `encoders`")
    source = load_pairs(str(captions), SourceOptions(image_column="image"))
    assert source.left is source.right or source.left.items is not None
    before, after = source.left.images[0], augmented(source.left.items, change).take([0])[0]
    expected = {
        "crop": before[1:-1, 1:-1], "flip": before[:, ::-1],
        "grey": np.repeat(before.mean(2, keepdims=True).round().astype(np.uint8), 3, 2),
    }[change]  # fmt: skip
    np.testing.assert_array_equal(after, expected)
    assert RawEncoder("image").name == "raw"
    scores = compute(
        tmp_path, "--dataset", captions, "--image-column", "image", "--encoder", "raw", "--augment", change,
        "--tol", "none",
    )  # fmt: skip
    assert len(scores) == 24


BAD = {
    "labels": (["--corrupt-label", "0.1"], "--mismatch"),
    "decay": (["--weight-decay", "0.5"], "--pull"),
    "share": (["--mismatch", "1.5"], "--mismatch"),
    "encode": (["--encoder", "raw"], "nothing to encode"),
    "dim": (["--dim", "1"], "dim must be at least 2"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_pairs_is_refused(tmp_path, arrays, capsys, arguments, message):
    assert main(["compute", "--dataset", str(arrays[0]), "--no-audit", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_view_needs_a_second(tmp_path, captions, capsys):
    base = ["compute", "--dataset", str(captions), "--image-column", "image", "--encoder", "raw"]
    assert main([*base, "--encoder-2", "raw"]) == 2
    assert "--augment" in capsys.readouterr().err
    assert main([*base, "--text-encoder", "words"]) == 2
    assert "--text-column" in capsys.readouterr().err
