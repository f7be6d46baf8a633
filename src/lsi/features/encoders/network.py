"""What opening an encoder gives, whatever its format: a network, its preprocessing, and how it is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Network:
    """A network that was opened.

    Attributes:
        module: The network, in evaluation mode; it holds all the weights.
        processor: What turns pictures, texts or waveforms into the network's inputs.
        call: ``call(inputs, pooling)`` returns the output that is pooled.
        pooling: What ``auto`` stands for.
        key: What determines the features apart from the module's weights, as JSON values.
        longest: Most tokens of a text; None: not for texts.
        precise: Whether it computes in its own precision, so that none can be asked for.
        batch: Samples that it takes at a time, where it takes no other number.
        certain: Whether the key holds everything that determines the features.
        origin: Where it came from, for the manifest.
    """

    module: nn.Module
    processor: Any
    call: Callable[[dict[str, Any], str], Any]
    pooling: str
    key: dict[str, Any]
    longest: int | None = None
    precise: bool = False
    batch: int | None = None
    certain: bool = True
    origin: dict[str, Any] = field(default_factory=dict)


def digest_of(value: Any) -> str:
    """Return a digest of JSON values."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def weights_digest(module: torch.nn.Module) -> str:
    """Return a digest of a module's parameters and buffers, by name, type and content."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()
