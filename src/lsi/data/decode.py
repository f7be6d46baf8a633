"""Payloads decoded: images as RGB pictures, text as text, recordings as waveforms."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsi.data.items import Items, Payload, read_file
from lsi.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


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


def to_rgb(picture: Image) -> Image:
    """Return a picture of any mode as 8-bit RGB; transparent parts become white."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture, dtype=np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float64)
        limit = 255.0 if 0 <= values.min() and values.max() <= 255 else max(float(np.abs(values).max()), 1.0)
        return Image.fromarray((np.clip(values, 0, limit) * (255.0 / limit)).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _image(payload: Payload) -> Image:
    try:
        from PIL import Image, ImageOps
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
            with Image.open(io.BytesIO(content)) as opened:
                return to_rgb(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BrokenItem("it has more pixels than can be safely decoded") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise BrokenItem(f"it is not a readable image ({_brief(error)})") from error


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
        values, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BrokenItem(f"it is not a readable recording ({_brief(error)})") from error
    if not len(values):
        raise BrokenItem("the recording is empty")
    return Audio(np.ascontiguousarray(values.mean(axis=1)), int(rate))


def _content(payload: Payload) -> bytes:
    if isinstance(payload, Path):
        try:
            content = read_file(payload)
        except (OSError, ValueError) as error:
            raise BrokenItem(f"the file cannot be read ({error})") from error
    else:
        content = bytes(payload)
    if not content:
        raise BrokenItem("it has zero bytes")
    return content


def _brief(error: BaseException) -> str:
    # Pillow names the buffer by its address in memory, which tells nobody anything.
    return str(error).partition(" <_io")[0] or type(error).__name__


def _missing(what: str, package: str) -> str:
    return f"reading {what} needs {package}. Install it: pip install 'laplace-sample-information[encoders]'"


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
        except BrokenItem:
            return np.full((8, 8, 3), 128, dtype=np.uint8)
