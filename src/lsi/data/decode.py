"""Payloads decoded: images as RGB pictures, text as text, recordings as waveforms."""

from __future__ import annotations

import functools
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsi.data.items import Items, Payload, read_file
from lsi.errors import InputError
from lsi.system.door import LIMITS, Refused, charge
from lsi.system.versions import install_hint

if TYPE_CHECKING:
    from PIL.Image import Image


FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
"""Formats of pictures that are decoded. Pillow knows others, some of which start other programs."""
_PIXEL = {"WEBP": 16, "AVIF": 16}
_USUAL = 10
"""Bytes that decoding takes for each pixel, by format and usually: measured were 4 (PNG in colour) to 9.3
(TIFF of numbers), and 15.3 for WebP."""
_BAND = 1 << 20
"""Pixels that are converted at a time."""
_FRAME = 16
"""Bytes that decoding takes for each value of a recording: as read, as one channel, and contiguous."""
_large = threading.Lock()


class BrokenItem(InputError):
    """An item that cannot be decoded, for example a truncated image."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording.

    Attributes:
        waveform: ``(T,)`` float32, channels averaged.
        rate: Samples a second.
    """

    waveform: np.ndarray
    rate: int


def decode(kind: str, payload: Payload) -> Any:
    """Decode a payload."""
    if payload is None:
        raise BrokenItem("it is missing")
    return {"image": _image, "text": _text, "audio": _audio}[kind](payload)


def decoded_bytes(item: Any) -> int:
    """Return what a decoded item takes."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, Audio):
        return item.waveform.nbytes
    return 4 * item.width * item.height  # Pillow keeps four bytes for a pixel in colour


def to_rgb(picture: Image) -> Image:
    """Return a picture of any mode as 8-bit RGB; transparent parts become white."""
    from PIL import Image

    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    top = _brightest(picture) if picture.mode in ("I", "F") else 0.0
    width, height = picture.size
    rows = max(1, _BAND // max(width, 1))
    if rows >= height:
        return _band_to_rgb(picture, top)
    whole = Image.new("RGB", picture.size)
    for start in range(0, height, rows):  # in bands: conversions make up to five copies
        band = picture.crop((0, start, width, min(start + rows, height)))
        whole.paste(_band_to_rgb(band, top), (0, start))
    return whole


def _brightest(picture: Image) -> float:
    """Return the value that becomes white in a picture of numbers."""
    low, high = (float(np.nan_to_num(value)) for value in picture.getextrema())
    return 255.0 if 0 <= low and high <= 255 else max(abs(low), abs(high), 1.0)


def _band_to_rgb(picture: Image, top: float) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture, dtype=np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        return Image.fromarray((np.clip(values, 0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _image(payload: Payload) -> Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(_missing("images", "pillow")) from error
    if isinstance(payload, np.ndarray):
        # Grey arrays stay grey: the encoder `raw` then has one value for each pixel; others convert them.
        return Image.fromarray(np.ascontiguousarray(payload))
    content = _content(payload)
    try:
        with warnings.catch_warnings():
            # Pillow warns about metadata that it cannot read, but only the pixels matter here.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_formats()) as opened:
                width, height = opened.size
                if width * height > LIMITS["pixels"].value:
                    raise BrokenItem(f"it has more pixels than can be safely decoded ({width:,}×{height:,})")
                with _one_of_many(_PIXEL.get(opened.format or "", _USUAL) * width * height, "decoded, it"):
                    return to_rgb(_upright(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BrokenItem("it has more pixels than can be safely decoded") from error
    except (
        OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError,
        MemoryError, RuntimeError,
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise BrokenItem(f"it is not a readable image ({_brief(error)})") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this installation of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(picture: Image) -> Image:
    """Turn a picture as its metadata say, without a copy where they say nothing."""
    from PIL import ImageOps

    ImageOps.exif_transpose(picture, in_place=True)
    picture.load()
    return picture


@contextmanager
def _one_of_many(needed: int, what: str) -> Iterator[None]:
    """Count an item before it is decoded; large ones are decoded one at a time."""
    try:
        charge(needed, what, "item")
    except Refused as error:
        raise BrokenItem(str(error)) from error
    if needed <= LIMITS["chunk"].bytes():
        yield
        return
    with _large:
        yield


def _text(payload: Payload) -> str:
    text = payload if isinstance(payload, str) else str(payload)
    if not text.strip():
        raise BrokenItem("the text is empty")
    return text


def _audio(payload: Payload) -> Audio:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise InputError(_missing("recordings", "soundfile")) from error
    content = _content(payload)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            needed = _FRAME * max(file.frames, 0) * file.channels
            with _one_of_many(needed, "decoded, it"):
                values, rate = file.read(dtype="float32", always_2d=True), file.samplerate
                if not len(values):
                    raise BrokenItem("the recording is empty")
                return Audio(np.ascontiguousarray(values.mean(axis=1)), int(rate))
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, OSError, MemoryError, OverflowError) as error:
        raise BrokenItem(f"it is not a readable recording ({_brief(error)})") from error


def _content(payload: Payload) -> bytes:
    if isinstance(payload, Path):
        try:
            content = read_file(payload)
        except (OSError, ValueError) as error:
            raise BrokenItem(f"the file cannot be read ({error})") from error
    else:
        content = bytes(payload)  # a table's values, counted when they were read
    if not content:
        raise BrokenItem("it has zero bytes")
    return content


def _brief(error: BaseException) -> str:
    # Pillow names the buffer by its address in memory, which tells nobody anything.
    return str(error).partition(" <_io")[0] or type(error).__name__


def _missing(what: str, package: str) -> str:
    return f"reading {what} needs {package}. Install it: {install_hint('encoders')}."


class ItemImages:
    """Pictures of image items for thumbnails: ``images[k]`` is decoded when it is asked for."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, position: int) -> np.ndarray:
        """Return the pixels `(H, W, 3)` of one item, uint8; a grey square where it is broken."""
        try:
            return np.asarray(decode("image", self._items.take([position])[0]))
        except InputError:
            return np.full((8, 8, 3), 128, dtype=np.uint8)
