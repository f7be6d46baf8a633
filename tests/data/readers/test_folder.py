import shutil

import numpy as np
import pytest
from PIL import Image
from tests.makers import encoded_image, pictures

from lsi.data import load_samples
from lsi.data.decode import BrokenItem, decode
from lsi.errors import InputError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    pixels, _ = pictures(6)
    for k in range(6):
        place = folder / ("cat" if k % 2 else "dog") / ("deep" if k == 5 else ".")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.png").write_bytes(encoded_image(pixels[k]))
    return folder


def test_a_sub_folder_is_a_class(photos):
    samples = load_samples(photos)
    assert samples.ids.tolist() == [
        "cat/1.png",
        "cat/3.png",
        "cat/deep/5.png",
        "dog/0.png",
        "dog/2.png",
        "dog/4.png",
    ]
    assert samples.labels.tolist() == ["cat"] * 3 + ["dog"] * 3
    assert samples.name == "photos"
    np.testing.assert_array_equal(samples.images[3], pictures(6)[0][0])


def test_what_does_not_belong_is_counted(photos):
    (photos / "loose.png").write_bytes(b"")
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / "cat" / ".hidden.png").write_text("x")
    samples = load_samples(photos)
    assert len(samples) == 6
    assert len(samples.notes) == 2
    assert "1 images outside" in samples.notes[0]
    assert "1 files that are not images" in samples.notes[1]


def test_a_folder_without_classes_says_what_to_do(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"1 images lie directly in it.*one sub-folder.*--dataset labels.csv"
    ):
        load_samples(tmp_path)


def test_splits_are_not_taken_for_classes(photos, tmp_path):
    for name in ("Train", "val"):
        shutil.copytree(photos, tmp_path / "whole" / name)
    with pytest.raises(InputError, match=r"divided into Train, val.*--dataset .*whole/Train"):
        load_samples(tmp_path / "whole")
    assert len(load_samples(tmp_path / "whole" / "val")) == 6
    for name in ("train", "test"):  # classes of one level are what they are
        shutil.copytree(photos / "dog", tmp_path / "flat" / name)
    assert set(load_samples(tmp_path / "flat").labels) == {"train", "test"}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in ("CMYK", "I;16", "I", "F") else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 4), 40000, dtype=np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 5), (200, 200, 200)).convert(mode).save(path)
    picture = decode("image", path)
    assert (picture.mode, picture.size) == ("RGB", (4, 5))
    value = np.asarray(picture)[0, 0]
    assert value.min() >= 150


def test_transparent_parts_become_white(tmp_path):
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert np.asarray(decode("image", tmp_path / "x.png")).min() == 255


def test_the_camera_s_rotation_is_followed(tmp_path):
    picture = Image.new("RGB", (4, 2))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert decode("image", tmp_path / "x.jpg").size == (2, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "zero bytes"), (b"no image", "not a readable image"), (None, "missing")],
)
def test_broken_images_say_why(content, reason):
    with pytest.raises(BrokenItem, match=reason):
        decode("image", content)


def test_a_truncated_image_is_broken(tmp_path):
    content = encoded_image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "JPEG")
    with pytest.raises(BrokenItem, match="not a readable image"):
        decode("image", content[: len(content) // 2])
    with pytest.raises(BrokenItem, match="cannot be read"):
        decode("image", tmp_path / "gone.png")


def test_an_image_bomb_is_broken(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BrokenItem, match="more pixels"):
        decode("image", encoded_image(np.zeros((8, 8, 3), dtype=np.uint8)))
