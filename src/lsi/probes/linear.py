"""Settings of the linear softmax probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lsi.errors import InputError, nearest
from lsi.validation.settings import check_weight_decay, described_decay


@dataclass(frozen=True)
class LinearProbe:
    r"""A linear softmax head, trained to the unique optimum of its regularised loss.

    .. math:: \min_\theta \frac{1}{n} \sum_i w_i\, \mathrm{CE}(\theta x_i, y_i)
              + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2

    The intercept belongs to :math:`\theta`: it decays too, as in ``torch.optim.SGD``.

    Args:
        weight_decay: Strength of the penalty on the scale of the mean loss; ``"auto"``: that of the highest
            leave-one-out likelihood.
        fit_intercept: Whether a column of ones is appended to the features.
        class_weight: None (every :math:`w_i = 1`), ``"balanced"``
            (:math:`w_i = n / (C\, n_{y_i})`), or a mapping from label to weight. The weights are
            those of the full data also when a sample is left out.

    Raises:
        InputError: A negative or non-finite weight decay, or an unknown class weight.
    """

    weight_decay: float | Literal["auto"] = 1e-4
    fit_intercept: bool = True
    class_weight: str | Mapping[Any, float] | None = None

    def __post_init__(self) -> None:
        check_weight_decay(self.weight_decay)
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise InputError(
                f"Unknown class_weight {self.class_weight!r}. {nearest(self.class_weight, ['balanced'])}"
            )

    def sample_weights(self, target: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the `(N,)` weights `w_i` of the samples.

        Raises:
            InputError: A class without a weight, or a weight that is not positive and finite.
        """
        if self.class_weight is None:
            return np.ones(len(target))
        if isinstance(self.class_weight, str):
            counts = np.bincount(target, minlength=len(classes))
            return (len(target) / (len(classes) * np.maximum(counts, 1)))[target]
        missing = [label for label in classes if label not in self.class_weight]
        if missing:
            raise InputError(
                f"class_weight has no entry for {missing[:5]}; give every one of the {len(classes)} classes."
            )
        weights = np.array([float(self.class_weight[label]) for label in classes])
        if not np.all(np.isfinite(weights) & (weights > 0)):
            raise InputError("class_weight must be positive and finite for every class.")
        return weights[target]

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        weight = self.class_weight
        if isinstance(weight, Mapping):
            weight = {str(label): float(value) for label, value in weight.items()}
        return {
            "kind": "linear",
            "weight_decay": described_decay(self.weight_decay),
            "fit_intercept": bool(self.fit_intercept),
            "class_weight": weight,
        }
