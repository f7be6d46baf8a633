"""The encoder ``raw``: the pixels themselves, for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.encoders.base import Batches, Encoder

LARGEST = 16_384
"""Most values of a raw image: with more, the probe becomes slow and poor."""


class RawEncoder(Encoder):
    """All channels of all pixels, row by row, scaled to 0–1."""

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
        """Stack the pixels of small images of one size as one batch."""
        arrays = [np.asarray(item) for item in items]
        for array in arrays:
            self._shape = self._shape or array.shape
            if array.shape != self._shape:
                raise InputError(
                    f"--encoder raw needs images of one size, got {self._shape} and {array.shape}. Resize "
                    "them, or name an encoder that does so."
                )
        if arrays and arrays[0].size > LARGEST:
            raise InputError(
                f"--encoder raw would make {arrays[0].size:,} features of each image, but at most "
                f"{LARGEST:,} are allowed. Name an encoder instead."
            )
        return [(list(range(len(arrays))), np.stack(arrays))] if arrays else []

    def forward(self, inputs: Any) -> Tensor:
        """Return the pixels divided by 255, `(b, D)`."""
        return torch.from_numpy(inputs.reshape(len(inputs), -1).astype(np.float32) / np.float32(255))
