"""Settings of `Newton`: leave-one-out by the optimum itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lsi.errors import InputError, nearest

SOLVERS = ("auto", "dense", "blocks")


@dataclass(frozen=True)
class Newton:
    """Leave-one-out optima by Newton's method from the full-data optimum.

    The regularised linear probe is strictly convex, so that "retrained without sample i" is one
    well-defined point. The first step uses the exact curvature without the sample (a low-rank
    downdate of one factorisation); further steps refine it until the certificate is within `tol`.

    Args:
        tol: Relative error of LSI that every sample is certified to. A sample that cannot be certified has a
            larger `relative_error`. None: no refinement.
        solver: ``"dense"``: one inverse of the whole Hessian, the most accurate. ``"blocks"``: its class
            blocks, for problems whose Hessian does not fit in memory; only the highest scores are refined.
            ``"auto"``: dense if its matrices need at most the run's `memory` (8 GiB if that is not given),
            whatever the machine has free: the two solvers give different values.
        max_passes: Maximum number of refinement passes a sample before the slow, safe solver takes over.
        added_weight_decay: Added to the probe's weight decay; see `from_early_stopping`.

    Raises:
        InputError: A tolerance outside (0, 1), an unknown solver, no passes.
    """

    tol: float | None = 1e-2
    solver: str = "auto"
    max_passes: int = 30
    added_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.tol is not None and not (np.isfinite(self.tol) and 0 < self.tol < 1):
            raise InputError(f"tol must be between 0 and 1, or None for no refinement; got {self.tol!r}.")
        if self.solver not in SOLVERS:
            raise InputError(f"Unknown solver {self.solver!r}. {nearest(self.solver, SOLVERS)}")
        if self.max_passes < 1:
            raise InputError(f"max_passes must be at least 1, got {self.max_passes!r}.")
        if not (np.isfinite(self.added_weight_decay) and self.added_weight_decay >= 0):
            raise InputError(f"added_weight_decay must be finite and ≥ 0, got {self.added_weight_decay!r}.")

    @classmethod
    def from_early_stopping(
        cls, lr: float, momentum: float, epochs: int, *, tol: float | None = 1e-2, solver: str = "auto"
    ) -> Newton:
        r"""Return settings whose optimum ranks samples as stopped gradient descent does.

        Stopping early acts like a ridge: gradient descent with momentum, stopped after `epochs` full-batch
        steps, ends near the optimum with an additional weight decay of

        .. math:: \frac{1 - \mathrm{momentum}}{\mathrm{lr} \cdot \mathrm{epochs}}

        on the scale of the mean loss. Values differ; ranks agree closely.

        Args:
            lr: Learning rate of the stopped training.
            momentum: Its momentum, in [0, 1).
            epochs: Its number of full-batch steps.
            tol: As in `Newton`.
            solver: As in `Newton`.

        Returns:
            The settings.

        Raises:
            InputError: Values outside their range.

        Examples:
            >>> Newton.from_early_stopping(lr=0.004, momentum=0.9, epochs=1000).added_weight_decay
            0.025
        """
        if not (lr > 0 and 0 <= momentum < 1 and epochs >= 1):
            raise InputError(
                f"Need lr > 0, momentum in [0, 1) and epochs ≥ 1; got {lr!r}, {momentum!r} and {epochs!r}."
            )
        added = round((1.0 - momentum) / (lr * epochs), 15)
        return cls(tol=tol, solver=solver, added_weight_decay=added)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {"kind": "newton", **asdict(self)}
