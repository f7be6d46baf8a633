"""Optima and divergences after changes of the data, each until it is certified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.solver import EditSolver, Prepared
from lsi.loo.newton.refine import Refined, Refiner
from lsi.loo.newton.secants import dot
from lsi.loo.newton.sweep import Sweep
from lsi.posterior.base import Posterior
from lsi.probes.softmax.model import SoftmaxModel

TINY = torch.finfo(torch.float64).tiny
# A row that joins starts where its own equations are solved, and what is left for the first steps says less
# of those that follow. On data that can nearly be separated, steps of 1.6 and 0.14 % came before ones of 1 %.
JOINED_UNSEEN = 40.0
# Sweeps of a change before the probe is trained again, which costs about as much. Groups of a tenth of the
# data took 5 to 30 (1,500 × 64 to 3,000 × 256, weight decay 1e-2 to 1e-4); of half, walks hardly ever ended.
PASSES = 24


class EditRefiner(Refiner):
    """The walk of a `Refiner` for changes of the data.

    Args:
        model: The model of the data as they are; its design has the precision of sweeps and steps.
        solver: Preconditions the steps.
        posterior: The posterior whose divergence is the score.
        tol: Relative error to reach.
        joined: Whether the divergence is that of rows that belong to the data after the change.
    """

    def __init__(
        self, model: SoftmaxModel, solver: EditSolver, posterior: Posterior, tol: float, joined: bool = False
    ) -> None:
        super().__init__(model, solver, posterior, tol, PASSES)
        self.joined, self.wary = joined, True
        if joined:
            self.unseen = JOINED_UNSEEN

    def _seen(self, removal: Any) -> tuple[Tensor, ...]:
        """Return nothing: a change carries its own rows."""
        return ()

    def _continue(self, first: Any, result: Refined, which: Tensor) -> None:
        """Leave the certificate as it is: the safe solver knows of single rows only."""

    def _sweep(self, removal: Prepared, seen: tuple[Tensor, ...], delta: Tensor) -> tuple[Edits, Sweep]:
        return removal.edits.swept(delta, self.posterior)

    def _precondition(self, removal: Prepared, right: Tensor) -> Tensor:
        return self.solver.solve(removal, right)

    def _energy(self, removal: Prepared) -> Tensor:
        """Return `δᵀ H_b δ` of the first-order steps: δ times the gradient that they are against."""
        return -dot(removal.delta.to(torch.float64), removal.edits.first_gradient()).clamp_max(-TINY)

    def _terms(self, part: Edits, delta: Tensor, shift: Any, which: Any = slice(None)) -> Terms:
        edits, moved = part.select(which), None if shift is None else shift[which]
        if moved is not None and self.posterior.shift_is_current:
            edits = replace(edits, moved=edits.probabilities(delta[which]))
        edit = edits.for_posterior(delta[which], moved)
        if shift is None and self.joined and not self.posterior.shift_is_current:
            return self.posterior.divergence_of(edit, False)  # only the metric of the steps
        return self.posterior.divergence_of(edit, self.joined and shift is not None)

    def _shift_alone(self, part: Edits, shift: Any, which: Tensor) -> Tensor:
        count = int(which.sum())
        no_rows = {name: getattr(part, name)[:0] for name in ("x", "target", "weight", "index")}
        nobody = replace(part, sizes=(0,) * count, **no_rows, moved=None)
        still = torch.zeros((count, *self.model.theta.shape), dtype=torch.float64, device=part.x.device)
        return self.posterior.divergence_of(nobody.for_posterior(still, shift[which])).covariance
