"""Small pictures of samples, as text that can stand inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from lsi.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

LARGEST_SIDE = 96
"""Longest side of a thumbnail in pixels; larger images are reduced to it."""
EXACT_SIDE = 24
"""Up to this longest side every pixel is kept: the page shows them as squares."""
JPEG_QUALITY = 85
"""Quality of larger pictures, where JPEG is smaller than PNG."""


def thumbnail(image: np.ndarray) -> str:
    """Return an image as a data URI, reduced to `LARGEST_SIDE`.

    Tiny images keep their pixels: the page enlarges them without blurring.

    Shapes: image `(H, W)`.
    """
    from PIL import Image

    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise InputError(
            f"a thumbnail needs an image of shape (H, W) or (H, W, 3), got {image.shape}. "
            "Reshape the images or leave them out."
        )
    picture = Image.fromarray(_as_uint8(image))
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return _uri(picture)


def _uri(picture: Image.Image) -> str:
    """Return a picture as a data URI: exact where it is tiny, else in the smaller of two formats."""
    exact = _encoded(picture, "PNG", optimize=True)
    if max(picture.size) <= EXACT_SIDE:
        return exact
    return min(exact, _encoded(picture, "JPEG", quality=JPEG_QUALITY, optimize=True), key=len)


def _encoded(picture: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{data}"


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = values.min(), values.max()
    span = high - low if high > low else 1.0
    return np.round((values - low) * (255.0 / span)).astype(np.uint8)
