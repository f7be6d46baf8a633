"""What every encoder gives: raw items of one kind → rows of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Batches = list[tuple[list[int], Any]]


class Encoder(ABC):
    """A frozen map from items to features.

    The contract: for any list of decoded items, ``forward(inputs)`` over ``prepare(items)`` gives row k
    of each batch the features of item ``order[k]``, and every item stands in exactly one batch. The
    features of an item depend on the encoder's `key` and on the item alone, up to rounding.

    Attributes:
        name: How the user called it.
        chunk: How many items are prepared together.
        device: Where `forward` computes.
    """

    name: str
    chunk: int
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Return everything that determines the features, as JSON values: the cache's key."""

    @abstractmethod
    def prepare(self, items: Sequence[Any]) -> Batches:
        """Return `(order, inputs)` batches of decoded items; runs on the processor, in a thread."""

    @abstractmethod
    def forward(self, inputs: Any) -> Tensor:
        """Return the features of one batch, `(b, D)` float32 on the processor."""
