"""``raw``: the pixels themselves, for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.encoders.base import Batches, Encoder

LARGEST = 16_384
"""Most values of a raw image: larger ones make a poor probe and a heavy one."""


class RawEncoder(Encoder):
    """Pixels in 0–1, row by row, all channels.

    Args:
        kind: What the items are; only images have pixels.

    Raises:
        InputError: If the items are no images.
    """

    def __init__(self, kind: str) -> None:
        if kind != "image":
            raise InputError(f"--encoder raw is for images, not for {kind}. Name an encoder of {kind}.")
        self.name = "raw"
        self.chunk = 256
        self._shape: tuple[int, ...] | None = None

    def key(self) -> dict[str, Any]:
        """Return everything that determines the features."""
        return {"encoder": "raw", "version": 1}

    def prepare(self, items: Sequence[Any]) -> Batches:
        """Stack the pixels of images of one size.

        Args:
            items: Pictures.

        Returns:
            One batch.

        Raises:
            InputError: If sizes or modes differ, or the images are large.
        """
        arrays = [np.asarray(item) for item in items]
        for array in arrays:
            self._shape = self._shape or array.shape
            if array.shape != self._shape:
                raise InputError(
                    f"--encoder raw needs images of one size, got {self._shape} and {array.shape}. Resize "
                    "them, or name an encoder, which does."
                )
        if arrays and arrays[0].size > LARGEST:
            raise InputError(
                f"--encoder raw would make {arrays[0].size:,} features of each image (at most {LARGEST:,}). "
                "Name an encoder instead."
            )
        return [(list(range(len(arrays))), np.stack(arrays))] if arrays else []

    def forward(self, inputs: Any) -> Tensor:
        """Return the pixels divided by 255, `(b, D)`."""
        return torch.from_numpy(inputs.reshape(len(inputs), -1).astype(np.float32) / np.float32(255))
