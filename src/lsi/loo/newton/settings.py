"""Settings of the `Newton` engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lsi.errors import InputError, nearest

SOLVERS = ("auto", "dense")


@dataclass(frozen=True)
class Newton:
    """Leave-one-out optima by Newton's method from the full-data optimum.

    The regularised linear probe is strictly convex, so that "retrained without sample i" is one
    well-defined point. The first step uses the exact curvature without the sample (a low-rank
    downdate of one factorisation); further steps refine it until the certificate is within `tol`.

    Args:
        tol: Relative error of the LSI that every sample is certified to; samples that cannot be
            are flagged by a larger `relative_error`. None: no refinement.
        solver: ``"dense"`` or ``"auto"``.
        max_passes: Limit of refinement passes a sample before the slow, safe solver takes over.

    Raises:
        InputError: A tolerance outside (0, 1), an unknown solver, no passes.
    """

    tol: float | None = 1e-2
    solver: str = "auto"
    max_passes: int = 8

    def __post_init__(self) -> None:
        if self.tol is not None and not (np.isfinite(self.tol) and 0 < self.tol < 1):
            raise InputError(f"tol must be between 0 and 1, or None for no refinement; got {self.tol!r}.")
        if self.solver not in SOLVERS:
            raise InputError(f"Unknown solver {self.solver!r}. {nearest(self.solver, SOLVERS)}")
        if self.max_passes < 1:
            raise InputError(f"max_passes must be at least 1, got {self.max_passes!r}.")

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {"kind": "newton", **asdict(self)}
