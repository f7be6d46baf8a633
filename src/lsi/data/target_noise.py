"""Errors planted in targets that are no classes: numbers of a regression, labels of a sample with several."""

from __future__ import annotations

import numpy as np

from lsi.data.corruption import Corruption
from lsi.errors import InputError

SHIFT = 3.0
"""Standard deviations of a target by which a corrupted one is moved."""


def corrupt_targets(targets: np.ndarray, rate: float, seed: int = 0, task: str = "regression") -> Corruption:
    """Change targets on purpose.

    Exactly ``round(rate · N)`` samples are drawn without replacement. In a regression every target of theirs
    is moved by 3 standard deviations of that target, up or down with equal chance. Of several labels, one
    drawn evenly is given where it was not, or taken away. The result depends on the arguments only.

    Args:
        targets: ``(N,)`` or ``(N, T)`` numbers; for several labels ``(N, L)`` zeros and ones.
        rate: Share of samples to change, ``0 ≤ rate < 1``.
        seed: Seed of the draw, not negative.
        task: ``"regression"`` or ``"multilabel"``.

    Returns:
        The changed targets beside the originals.

    Raises:
        InputError: If the rate is out of range, or targets are no numbers.

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
        raise InputError(f"targets that are no numbers cannot be changed on purpose ({error}).") from error
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
