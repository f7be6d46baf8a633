"""`lsi.load_samples` and `lsi.encode` as a library user calls them."""

import numpy as np
import pytest
from tests import makers

import lsi
from lsi.errors import InputError
from lsi.features.encoders.raw import RawEncoder

pytest.importorskip("PIL", reason="needs the extra `encoders`")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    pixels, _ = makers.pictures(6, side=4)
    for k in range(6):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (folder / "ab"[k % 2] / f"{k}.png").write_bytes(makers.encoded_image(pixels[k]))
    return folder


def test_images_become_features_that_can_be_scored(tmp_path, photos):
    said = []
    encoded = lsi.encode(lsi.load_samples(photos), "raw", cache_dir=tmp_path, say=said.append)
    samples = encoded.samples
    assert samples.features.shape == (6, 4 * 4 * 3)
    np.testing.assert_allclose(samples.features[0] * 255, samples.images[0].reshape(-1), atol=1e-3)
    assert (encoded.record["encoder"], encoded.left_out) == ("raw", ())
    assert said == ["encoding 6 image items with raw"]
    scores = lsi.score(samples.features, samples.labels, sample_id=samples.ids, audit=False)
    assert scores.sample_id.tolist() == samples.ids.tolist()


def test_an_encoder_may_be_an_object(tmp_path, photos):
    samples = lsi.load_samples(photos)
    by_name = lsi.encode(samples, "raw", cache_dir=tmp_path / "one")
    by_object = lsi.encode(samples, RawEncoder("image"), cache_dir=tmp_path / "other")
    np.testing.assert_array_equal(by_object.samples.features, by_name.samples.features)


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, photos):
    (photos / "a" / "2.png").write_bytes(b"")
    samples = lsi.load_samples(photos)
    with pytest.raises(InputError, match=r"a/2.png: it has zero bytes.*skip_broken=True"):
        lsi.encode(samples, "raw", cache_dir=tmp_path)
    encoded = lsi.encode(samples, "raw", cache_dir=tmp_path, skip_broken=True)
    assert encoded.left_out == ("a/2.png: it has zero bytes",)
    assert encoded.kept.tolist() == [0, 2, 3, 4, 5]
    assert encoded.samples.ids.tolist() == samples.ids[encoded.kept].tolist()
    assert np.isfinite(encoded.samples.features).all()
    assert "1 items that cannot be read" in encoded.samples.notes[-1]


def test_features_are_not_encoded_again():
    wine = lsi.load_samples("wine")
    encoded = lsi.encode(wine)
    assert encoded.samples is wine
    assert (encoded.record, len(encoded.kept)) == ({}, 178)
    with pytest.raises(InputError, match="nothing to encode"):
        lsi.encode(wine, "raw")


def test_settings_of_a_source_are_keywords(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,z,mood\n1,2,good\n3,4,bad\n")
    samples = lsi.load_samples(path, label_column="mood", feature_columns="z", prepare=False)
    assert samples.labels.tolist() == ["good", "bad"]
    assert samples.features.tolist() == [[2.0], [4.0]]
    both = lsi.load_samples(path, lsi.data.SourceOptions(label_column="x"), label_column="mood")
    assert both.labels.tolist() == ["good", "bad"]
    with pytest.raises(InputError, match="Did you mean 'label_column'"):
        lsi.load_samples(path, label_colum="mood")
