"""The contract of every encoder: raw items of one kind → rows of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Batches = list[tuple[list[int], Any]]


class Encoder(ABC):
    """A frozen map from items to features.

    The contract: every item of a list is in exactly one batch ``(order, inputs)`` of ``prepare(items)``, and
    row k of ``forward(inputs)`` holds the features of item ``order[k]``. The features of an item depend only
    on the encoder's `key` and on the item itself, up to rounding.

    Attributes:
        name: The name that the user gave.
        chunk: Number of items that are prepared together.
        device: Where `forward` computes.
        certain: Whether `key` holds everything that determines the features; otherwise those in the cache are
            compared with new ones before they are used.
        origin: Where it came from, for the manifest, as JSON values.
    """

    name: str
    chunk: int
    device: torch.device = torch.device("cpu")
    certain: bool = True
    origin: dict[str, Any] = {}

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Return everything that determines the features, as JSON values; it is part of the cache's key."""

    @abstractmethod
    def prepare(self, items: Sequence[Any]) -> Batches:
        """Return batches `(order, inputs)` of decoded items; called in a thread, on the processor."""

    @abstractmethod
    def forward(self, inputs: Any) -> Tensor:
        """Return the features of one batch, `(b, D)` float32 on the processor."""
