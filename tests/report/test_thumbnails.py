import base64
import io

import numpy as np
import pytest
from PIL import Image

from lsi.errors import InputError
from lsi.report.thumbnails import LARGEST_SIDE, thumbnail


def decode(uri):
    header, data = uri.split(",", 1)
    assert header in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("shape", [(8, 8), (8, 5, 3)])
def test_small_images_keep_every_pixel(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode(thumbnail(image)), image)


def test_large_images_are_reduced_in_proportion():
    image = np.zeros((400, 200, 3), dtype=np.uint8)
    assert decode(thumbnail(image)).shape == (LARGEST_SIDE, LARGEST_SIDE // 2, 3)


def test_pictures_of_many_colours_are_kept_small_and_close():
    steps = np.linspace(0, 255, 96)
    noise = np.random.default_rng(0).normal(scale=8, size=(96, 96, 3))
    image = np.clip((steps[:, None] + steps[None, :])[..., None] / 2 + noise, 0, 255).astype(np.uint8)
    uri = thumbnail(image)
    assert len(uri) < image.size / 2
    assert np.abs(decode(uri).astype(float) - image).mean() < 8


def test_other_types_are_stretched():
    pixels = decode(thumbnail(np.array([[-1.0, 0.0], [1.0, np.nan]])))
    np.testing.assert_array_equal(pixels, [[0, 128], [255, 128]])
    np.testing.assert_array_equal(decode(thumbnail(np.full((2, 2), 7.0))), np.zeros((2, 2)))


@pytest.mark.parametrize("shape", [(8,), (8, 8, 4), (0, 8), (2, 8, 8, 3)])
def test_what_is_no_image(shape):
    with pytest.raises(InputError, match="shape"):
        thumbnail(np.zeros(shape, dtype=np.uint8))
