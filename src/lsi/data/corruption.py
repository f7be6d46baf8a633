"""Label errors planted on purpose, so that a score's power to find them can be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError


@dataclass(frozen=True, eq=False)
class Corruption:
    """Labels after corruption, and the truth about them.

    Attributes:
        labels: ``(N,)`` labels to train on.
        mask: ``(N,)`` bool, True where the label was changed.
        original_labels: ``(N,)`` labels before.
        rate: Share of labels that was asked for.
        seed: Seed of the draw.
        kind: What kind of noise this is.
    """

    labels: np.ndarray
    mask: np.ndarray
    original_labels: np.ndarray
    rate: float
    seed: int
    kind: str = "symmetric"

    @property
    def n_corrupted(self) -> int:
        """Number of changed labels."""
        return int(self.mask.sum())

    def describe(self) -> dict[str, Any]:
        """Return how the labels were changed as JSON values, for the manifest."""
        return {"kind": self.kind, "rate": self.rate, "seed": self.seed, "n_corrupted": self.n_corrupted}


def corrupt_labels(labels: np.ndarray, rate: float, seed: int = 0) -> Corruption:
    """Flip a share of the labels, each to another class drawn evenly (symmetric noise).

    Exactly ``round(rate · N)`` labels change, chosen without replacement over all samples; a changed
    label always differs from the original. The result depends on `labels`, `rate` and `seed` only.

    Args:
        labels: ``(N,)`` labels of any hashable type.
        rate: Share of labels to change, ``0 ≤ rate < 1``.
        seed: Seed of the draw, not negative.

    Returns:
        The corrupted labels beside the originals.

    Raises:
        InputError: If the rate is out of range, a label is missing, or there is one class only.
    """
    labels = np.asarray(labels)
    _check(rate, seed)
    codes, classes = pd.factorize(labels)
    if (codes < 0).any():
        missing = int((codes < 0).sum())
        raise InputError(f"{missing} labels are missing (NaN or None). Remove those samples first.")
    count = round(rate * len(labels))
    if count and len(classes) < 2:
        raise InputError("labels cannot be flipped to another class: there is one class only.")
    generator = np.random.default_rng(seed)
    positions = generator.permutation(len(labels))[:count]
    mask = np.zeros(len(labels), dtype=bool)
    mask[positions] = True
    # A shift of 1 … C−1 around the circle of classes reaches every other class with equal probability.
    shift = generator.integers(1, max(len(classes), 2), size=count)
    corrupted = labels.copy()
    corrupted[positions] = np.asarray(classes)[(codes[positions] + shift) % max(len(classes), 1)]
    return Corruption(labels=corrupted, mask=mask, original_labels=labels, rate=float(rate), seed=int(seed))


def _check(rate: float, seed: int) -> None:
    if not (math.isfinite(rate) and 0 <= rate < 1):
        raise InputError(f"the share of corrupted labels must be at least 0 and less than 1, got {rate}.")
    if seed < 0:
        raise InputError(f"the corruption seed must not be negative, got {seed}.")
