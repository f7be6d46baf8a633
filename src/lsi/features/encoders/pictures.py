"""Pictures → tensors as most networks for images take them, by Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Means and standard deviations of ImageNet's channels, by which most networks for images are trained."""
SIDE = 224
"""Height and width where a network does not say: ImageNet's custom since 2012."""
_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_LARGEST_SIDE = 8_192
"""Most pixels of a side: networks see at most 1,024, and a line of settings could ask for any number."""

_LONGEST = 16
"""Times that the longer side may exceed the shorter one; a square crop keeps a sixteenth of that."""


@dataclass(frozen=True)
class Pictures:
    r"""Resizes, crops from the middle, scales to 0–1 and normalises: :math:`(x / 255 - \mu_c) / \sigma_c`.

    Attributes:
        size: Height and width of the result.
        mean: Mean μ of each channel; empty: pixels stay whole numbers from 0 to 255.
        std: Standard deviation σ of each channel.
        crop: Share of the resized picture's side that is kept.
        squash: Whether height and width are resized each on its own, instead of at one scale.
        interpolation: Pillow's name of the filter.
        channels_last: Whether the result is `(b, H, W, 3)`.
    """

    size: tuple[int, int] = (SIDE, SIDE)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0
    squash: bool = False
    interpolation: str = "bicubic"
    channels_last: bool = False

    def __post_init__(self) -> None:
        sides_fit = all(0 < side <= _LARGEST_SIDE for side in self.size)
        scales_fit = (len(self.mean), len(self.std)) in ((0, 0), (3, 3)) and all(sd > 0 for sd in self.std)
        if not (sides_fit and scales_fit and 0 < self.crop <= 1 and self.interpolation in _FILTERS):
            raise InputError(
                f"an encoder of images cannot prepare them like this: {asdict(self)}. Save it again, or name "
                "another one."
            )

    def __call__(self, images: Sequence[Any], **_: Any) -> dict[str, Tensor]:
        """Return `(b, 3, H, W)` under the name that transformers gives it."""
        pixels = torch.from_numpy(np.stack([np.asarray(self._cut(image)) for image in images]))
        if self.mean:
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            pixels = (pixels.float() / 255 - mean) / std
        return {"pixel_values": pixels if self.channels_last else pixels.permute(0, 3, 1, 2).contiguous()}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"pictures": 1, **asdict(self)}

    def _cut(self, image: Any) -> Any:
        """Return one picture of the right size, as torchvision's Resize and CenterCrop make it."""
        from PIL import Image

        height, width = (math.floor(side / self.crop) for side in self.size)
        if not self.squash:
            image = _shortened(image)
            if height * image.width >= width * image.height:
                width = height * image.width // image.height
            else:
                height = width * image.height // image.width
        resized = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        return resized.crop((left, top, left + self.size[1], top + self.size[0]))


def _shortened(image: Any) -> Any:
    """Return the middle of a very long picture: whole, a strip of pixels would become gigabytes."""
    most = _LONGEST * min(image.size)
    width, height = min(image.width, most), min(image.height, most)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))
