"""Labels and targets changed on purpose, to measure how well scores find such errors, and the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.system.door import read_json, read_text
from lsi.system.npy import load_npy
from lsi.validation.settings import check_choice


@dataclass(frozen=True, eq=False)
class Corruption:
    """Labels after corruption, and the truth about them.

    Attributes:
        labels: ``(N,)`` labels to train on.
        mask: ``(N,)`` bool, True where label or data were changed.
        original_labels: ``(N,)`` labels before the change.
        rate: Share of the labels that was to change.
        seed: Seed for the draw.
        kind: Kind of noise.
        details: Anything else about the change, as JSON values.
    """

    labels: np.ndarray
    mask: np.ndarray
    original_labels: np.ndarray
    rate: float
    seed: int
    kind: str = "symmetric"
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_corrupted(self) -> int:
        """Number of changed samples."""
        return int(self.mask.sum())

    def describe(self) -> dict[str, Any]:
        """Return what was changed, as JSON values for the manifest."""
        shared = {"kind": self.kind, "rate": self.rate, "seed": self.seed, "n_corrupted": self.n_corrupted}
        return shared | dict(self.details)

    def select(self, positions: np.ndarray) -> Corruption:
        """Return the same for the samples at `positions`."""
        return replace(
            self,
            labels=self.labels[positions],
            mask=self.mask[positions],
            original_labels=self.original_labels[positions],
        )

    def then(self, other: Corruption) -> Corruption:
        """Return this change and a later one as one: the later labels, the first originals, either's mask.

        The later one may be about further samples, added after those of this one.
        """
        n = len(self.mask)
        originals = other.original_labels.copy()
        originals[:n] = self.original_labels
        mask = other.mask.copy()
        mask[:n] |= self.mask
        steps = [*self.details.get("steps", [self.describe()]), other.describe()]
        kind = f"{self.kind}, then {other.kind}"
        return Corruption(
            other.labels, mask, originals, float(mask.mean()), self.seed, kind, {"steps": steps}
        )


def known_truth(labels: np.ndarray, clean: np.ndarray) -> Corruption:
    """Return the truth about labels whose clean ones are known.

    Args:
        labels: ``(N,)`` labels to train on.
        clean: ``(N,)`` labels known to be right.

    Returns:
        The labels that differ, as if they had been changed on purpose.
    """
    mask = np.asarray(labels != clean, dtype=bool)
    return Corruption(labels, mask, clean, float(mask.mean()), 0, "given clean labels")


def corrupt_labels(
    labels: np.ndarray, rate: float, seed: int = 0, kind: str = "symmetric", transition: Any = None
) -> Corruption:
    r"""Change labels on purpose.

    ``symmetric``: exactly ``round(rate · N)`` labels, drawn without replacement from all samples, change to
    another class with equal probability. ``pairwise``: the same number change to the class that follows
    their own in sorted order (the last one to the first). ``transition``: each label c becomes class k with
    probability :math:`T_{ck}`. The result depends on the arguments only.

    Args:
        labels: ``(N,)`` labels of any hashable type.
        rate: Share of labels to change, ``0 ≤ rate < 1``; a transition matrix needs none.
        seed: Seed for the draw, not negative.
        kind: ``symmetric``, ``pairwise`` or ``transition``.
        transition: `(C, C)` matrix T with rows that sum to 1, classes in sorted order.

    Returns:
        The labels after the change, with the originals.

    Raises:
        InputError: If the rate is out of range, a label is missing, or there is only one class.
    """
    labels = np.asarray(labels)
    _check(rate, seed)
    check_choice("kind", kind, ("symmetric", "pairwise", "transition"))
    codes, classes = _factorize(labels)
    generator = np.random.default_rng(seed)
    if kind == "transition":
        changed = _by_transition(codes, _check_transition(transition, len(classes)), generator)
    else:
        changed = _by_rate(codes, len(classes), rate, kind, generator)
    mask = changed != codes
    corrupted = labels.copy()
    corrupted[mask] = np.asarray(classes)[changed[mask]]
    return Corruption(
        labels=corrupted,
        mask=mask,
        original_labels=labels,
        rate=float(mask.mean()) if kind == "transition" else float(rate),
        seed=int(seed),
        kind=kind,
    )


def read_transition(path: Path) -> np.ndarray:
    """Read a transition matrix.

    Args:
        path: A ``.npy`` file, a ``.json`` list of rows, or text with one row a line.

    Returns:
        The matrix; `corrupt_labels` checks it.

    Raises:
        InputError: If the file cannot be read as numbers.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(load_npy(path, mapped=False), dtype=np.float64)
        if path.suffix.lower() == ".json":
            return np.asarray(read_json(path), dtype=np.float64)
        text = read_text(path).replace(",", " ").replace(";", " ")
        return np.array(
            [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
        )
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"the transition matrix {path} cannot be read ({error}).") from error


def _by_rate(
    codes: np.ndarray, n_classes: int, rate: float, kind: str, generator: np.random.Generator
) -> np.ndarray:
    count = round(rate * len(codes))
    if count and n_classes < 2:
        raise InputError("labels cannot change to another class: there is only one class.")
    positions = generator.permutation(len(codes))[:count]
    changed = codes.copy()
    # A shift of 1 … C−1, drawn evenly and taken modulo C, reaches every other class with equal probability.
    shift = generator.integers(1, max(n_classes, 2), size=count) if kind == "symmetric" else 1
    changed[positions] = (codes[positions] + shift) % max(n_classes, 1)
    return changed


def _by_transition(codes: np.ndarray, matrix: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    limits = np.cumsum(matrix, axis=1)[codes]
    limits[:, -1] = 1.0
    drawn = generator.random(len(codes))
    return np.asarray((drawn[:, None] >= limits).sum(axis=1))


def _check_transition(matrix: Any, n_classes: int) -> np.ndarray:
    values = np.asarray(matrix, dtype=np.float64)
    if values.shape != (n_classes, n_classes):
        raise InputError(
            f"the transition matrix must be {n_classes}×{n_classes}, with a row and a column for each class "
            f"in sorted order, got shape {values.shape}."
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(axis=1), 1)):
        raise InputError("the rows of the transition matrix must be probabilities that sum to 1.")
    return values


def _factorize(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and classes: sorted where they can be, else in order of appearance."""
    missing = int(pd.isna(labels).sum())
    if missing:
        raise InputError(f"{missing} labels are missing (NaN or None). Remove those samples first.")
    try:
        codes, classes = pd.factorize(labels, sort=True)
    except TypeError:
        codes, classes = pd.factorize(labels)
    return codes, np.asarray(classes)


def _check(rate: float, seed: int) -> None:
    if not (math.isfinite(rate) and 0 <= rate < 1):
        raise InputError(f"the share of corrupted labels must be at least 0 and less than 1, got {rate}.")
    if seed < 0:
        raise InputError(f"the corruption seed must not be negative, got {seed}.")


SHIFT = 3.0
"""How far a corrupted target is moved, in standard deviations of that target."""


def corrupt_targets(targets: np.ndarray, rate: float, seed: int = 0, task: str = "regression") -> Corruption:
    """Change targets on purpose.

    Exactly ``round(rate · N)`` samples are drawn without replacement. In a regression, each of their targets
    `(N,)` or `(N, T)` is moved by 3 standard deviations of that target, up or down with equal probability.
    Of several labels `(N, L)`, one is drawn evenly and flipped. The result depends on the arguments only.

    Examples:
        >>> change = corrupt_targets(np.arange(10.0), 0.2)
        >>> change.n_corrupted, float(np.abs(change.labels - change.original_labels).max().round(3))
        (2, 8.617)
    """
    if not 0 <= rate < 1:
        raise InputError(f"the share of targets to change must be at least 0 and less than 1, got {rate!r}.")
    try:
        values = np.array(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"targets must be numbers to be changed on purpose ({error}).") from error
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(values), size=round(rate * len(values)), replace=False)
    mask = np.zeros(len(values), dtype=bool)
    mask[rows] = True
    if task == "multilabel":
        columns = generator.integers(values.shape[1], size=len(rows))
        values[rows, columns] = 1.0 - values[rows, columns]
        return Corruption(values.astype(np.int64), mask, np.asarray(targets), rate, seed, "one label flipped")
    signs = generator.choice([-1.0, 1.0], size=values[rows].shape)
    values[rows] += SHIFT * values.std(axis=0) * signs
    kind = f"target moved by {SHIFT:g} standard deviations"
    return Corruption(values, mask, np.asarray(targets), rate, seed, kind)
