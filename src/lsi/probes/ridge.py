"""Settings of the ridge regression probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsi.errors import InputError, nearest

ESTIMATE = "estimate"


@dataclass(frozen=True)
class RidgeProbe:
    r"""A linear head for numbers: least squares with a penalty, for one target or several.

    .. math:: \min_\theta \frac{1}{n} \sum_i \tfrac12 \|y_i - \theta x_i\|^2
              + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2

    The noise precision :math:`\beta_t` (one over the variance of target t around its prediction) is the
    scale of the likelihood, and so of the posterior: sample j's curvature is
    :math:`h_j = \mathrm{diag}(\beta) \otimes x_j x_j^\top`. It does not move the optimum, which
    `weight_decay` alone decides.

    The intercept belongs to :math:`\theta`: it decays too, as in ``torch.optim.SGD``. Targets far from
    zero are better centred first.

    Args:
        weight_decay: Strength of the penalty on the scale of the mean loss; 0 needs more samples than
            features.
        fit_intercept: Whether a column of ones is appended to the features.
        noise_precision: β > 0, one for all targets or one a target; or ``"estimate"``:
            :math:`\beta_t = (n - \mathrm{df}) / \mathrm{RSS}_t` with the effective degrees of freedom of
            the fit, estimated once from all samples and held when one is left out.

    Raises:
        InputError: A negative or non-finite weight decay, or a noise precision that is not positive.
    """

    weight_decay: float = 1e-4
    fit_intercept: bool = True
    noise_precision: float | str | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(
                f"weight_decay must be a finite number ≥ 0, got {self.weight_decay!r}; the default is 1e-4."
            )
        if isinstance(self.noise_precision, str):
            if self.noise_precision != ESTIMATE:
                raise InputError(
                    f"Unknown noise_precision {self.noise_precision!r}. "
                    f"{nearest(self.noise_precision, [ESTIMATE])} Or give a positive number."
                )
            return
        given = np.asarray(self.noise_precision, dtype=np.float64)
        if given.ndim > 1 or given.size == 0 or not np.all(np.isfinite(given) & (given > 0)):
            raise InputError(
                f"noise_precision must be a positive finite number, one for each target, or 'estimate'; "
                f"got {self.noise_precision!r}."
            )

    def noise(self, n_targets: int) -> np.ndarray | None:
        """Return the noise precisions that were given, `(T,)`, or None where they are to be estimated.

        Raises:
            InputError: The number of precisions is not that of the targets.
        """
        if isinstance(self.noise_precision, str):
            return None
        given = np.asarray(self.noise_precision, dtype=np.float64)
        if given.ndim == 1 and len(given) != n_targets:
            raise InputError(
                f"noise_precision has {len(given)} entries but y has {n_targets} targets. Give one for each."
            )
        return np.broadcast_to(given, (n_targets,)).copy()

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        noise = self.noise_precision
        return {
            "kind": "ridge",
            "weight_decay": float(self.weight_decay),
            "fit_intercept": bool(self.fit_intercept),
            "noise_precision": noise if isinstance(noise, str) else np.asarray(noise, dtype=float).tolist(),
        }
