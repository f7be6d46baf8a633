"""Frozen encoders: raw items → features."""

from __future__ import annotations

import torch

from lsi.errors import InputError, nearest
from lsi.features.encoders.base import Encoder
from lsi.features.encoders.functions import FunctionEncoder, build_function, is_function, network_of
from lsi.features.encoders.opening import DEFAULTS, open_network
from lsi.features.encoders.pooling import POOLINGS, pool
from lsi.features.encoders.pretrained import BATCH, PRECISIONS, PretrainedEncoder
from lsi.features.encoders.raw import RawEncoder

__all__ = [
    "DEFAULTS",
    "POOLINGS",
    "PRECISIONS",
    "Encoder",
    "FunctionEncoder",
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
        name: ``raw``; a folder that `save_pretrained` or timm wrote; an ONNX file;
            ``ARCHITECTURE:weights.pt``; ``module:function``; or a name on the Hugging Face hub. None: the
            default for the kind.
        pooling: One of `POOLINGS`.
        precision: One of `PRECISIONS`.
        device: Torch device; None: a GPU where there is one.
        batch_size: Samples in each forward pass; None: 32, and 8 for recordings.

    Returns:
        The encoder.

    Raises:
        InputError: If it cannot be loaded, does not encode such items, or a setting is not known.
    """
    for flag, value, known in (("--pooling", pooling, POOLINGS), ("--precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"{flag} {value!r} is not known. {nearest(value, known)}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}.")
    if name == "raw":
        return RawEncoder(kind)
    if name is None:
        name = DEFAULTS[kind]
        try:
            network = open_network(kind, name)
        except InputError as error:
            raise InputError(f"without --encoder, the default for {kind} items is taken: {error}") from error
    elif not is_function(name):
        network = open_network(kind, name)
    else:
        made, code = build_function(name)
        if isinstance(made, Encoder):
            return made
        if not isinstance(made, torch.nn.Module):
            return FunctionEncoder(kind, name, made, code, pooling, batch_size or BATCH[kind])
        network = network_of(kind, name, made, code)
    return PretrainedEncoder(kind, name, network, pooling, precision, device, batch_size)
