"""Frozen encoders: raw items → features."""

from __future__ import annotations

import torch

from lsi.features.encoders.base import Encoder
from lsi.features.encoders.loading import DEFAULTS
from lsi.features.encoders.pooling import POOLINGS, pool
from lsi.features.encoders.pretrained import PRECISIONS, PretrainedEncoder
from lsi.features.encoders.raw import RawEncoder

__all__ = [
    "DEFAULTS",
    "POOLINGS",
    "PRECISIONS",
    "Encoder",
    "PretrainedEncoder",
    "RawEncoder",
    "build_encoder",
    "pool",
]


def build_encoder(
    kind: str,
    name: str | None = None,
    *,
    pooling: str = "auto",
    precision: str = "auto",
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> Encoder:
    """Return the encoder of this name.

    Args:
        kind: What it will encode: ``image``, ``text`` or ``audio``.
        name: ``raw``, a name on the Hugging Face hub, or a folder; None: the default for the kind.
        pooling: One of `POOLINGS`.
        precision: One of `PRECISIONS`.
        device: Torch device; None: a GPU where there is one.
        batch_size: Samples in each forward pass; None: 32, and 8 for recordings.

    Returns:
        The encoder.

    Raises:
        InputError: If it cannot be loaded.
    """
    if name == "raw":
        return RawEncoder(kind)
    return PretrainedEncoder(kind, name or DEFAULTS[kind], pooling, precision, device, batch_size)
