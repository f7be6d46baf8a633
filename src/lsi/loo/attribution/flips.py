r"""The smallest set of training samples that was found whose removal changes a prediction.

Removing row j moves the lead of class a over class b at query q, to first order, by

.. math:: (v \otimes x_q)^\top H_R^{-1} (g_j \otimes x_j), \qquad v = V^\top(e_a - e_b),

so one solve with the curvature :math:`H_R` after the removals R so far prices all rows. Half of the rows that
seem to be needed are removed, the probe is brought to its new optimum, and the others are priced again,
until the prediction has changed there. Greedy: a smaller set may exist, unless a single row does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.attribution.steps import Steps
from lsi.loo.attribution.walks import PRECISION, light
from lsi.loo.edits.batches import batches
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.refit import certified
from lsi.loo.edits.solver import EditSolver
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.newton.secants import dot
from lsi.probes.softmax.math import residuals
from lsi.probes.softmax.model import ROWS


@dataclass
class Flip:
    """What it takes to change one prediction.

    Attributes:
        rows: Positions of the samples that were removed, the first ones first, `(n,)`.
        before: Code of the class predicted from all data.
        after: Code of the class predicted without the rows.
        lead: Log-odds of the class before against the likeliest other one without the rows.
        found: Whether the prediction changed.
    """

    rows: Tensor
    before: int
    after: int
    lead: float
    found: bool


class FlipFinder:
    """Finds sets of samples without which predictions of one trained head are others.

    Args:
        engine: Of the head.
        steps: The first-order steps of all samples.
        limit: Most samples that may be removed.
    """

    def __init__(self, engine: NewtonEngine, steps: Steps, limit: int) -> None:
        self.engine, self.steps, self.limit = light(engine), steps, limit
        self.model = engine.model
        residual = [self.model.residual_at(index)[1] for index in self._index().split(ROWS)]
        self._residual = torch.cat(residual).to(torch.float64)

    def _index(self) -> Tensor:
        return torch.arange(self.model.n_samples, device=self.model.design.device)

    def find(self, x: Tensor) -> list[Flip]:
        """Return what changes the prediction of each of some rows `(M, D)` in the model's coordinates."""
        x = x.to(torch.float64)
        none, still = self._index()[:0], torch.zeros_like(self.model.theta)
        flips = [Flip(none, int(self._logits(row, still).argmax()), 0, 0.0, False) for row in x]
        weights, doubts = [still] * len(x), [0.0] * len(x)
        active = list(range(len(x)))
        while active:
            active = [q for q in active if self._goes_on(flips[q], x[q], weights[q], doubts[q])]
            self._remove(active, flips, x, weights, doubts)
        return flips

    def _goes_on(self, flip: Flip, x: Tensor, delta: Tensor, doubt: float) -> bool:
        """Judge where a search has come to, and add the rows to remove next; return whether there are any."""
        flip.lead, flip.after = self._lead(x, delta, flip.before)
        flip.found = flip.lead + doubt < 0
        more = flip.rows[:0] if flip.found else self._next(x, flip, delta)
        flip.rows = torch.cat([flip.rows, more])
        return len(more) > 0

    def _remove(
        self, active: list[int], flips: list[Flip], x: Tensor, weights: list[Tensor], doubts: list[float]
    ) -> None:
        """Bring the probe to its optimum without each search's rows, and say how far each lead may be off."""
        if not active:
            return
        for part in batches([len(flips[q].rows) for q in active], len(self.model.theta)):
            edits = Edits.leaving(self.model, [flips[active[k]].rows for k in part])
            found = certified(self.engine, edits, PRECISION)
            right = torch.cat([self._right(x[active[k]], flips[active[k]]) for k in part])
            length = dot(right, self.engine.solver.plain(right)).clamp_min(0).sqrt()
            size = dot(found.delta.to(torch.float64), edits.first_gradient()).abs().sqrt()
            doubt = 0.5 * found.certificate * size * length
            for place, k in enumerate(part):
                weights[active[k]] = found.delta[place].to(torch.float64)
                doubts[active[k]] = float(doubt[place])

    def _logits(self, x: Tensor, delta: Tensor) -> Tensor:
        return self.model.contrasts @ ((self.model.theta + delta) @ x)

    def _lead(self, x: Tensor, delta: Tensor, before: int) -> tuple[float, int]:
        """Return how far the class before is ahead of the likeliest other one, and that one."""
        logits = self._logits(x, delta)
        others = logits.clone()
        others[before] = -torch.inf
        rival = int(others.argmax())
        return float(logits[before] - logits[rival]), rival

    def _right(self, x: Tensor, flip: Flip) -> Tensor:
        """Return `v ⊗ x`, the gradient of the lead, `(1, C', D)`."""
        v = self.model.contrasts[flip.before] - self.model.contrasts[flip.after]
        return (v[:, None] * x)[None]

    def _next(self, x: Tensor, flip: Flip, delta: Tensor) -> Tensor:
        """Return the rows to remove next; none where no row helps or the limit is reached."""
        prices = self._prices(self._right(x, flip), flip.rows, delta)
        order = prices.argsort(stable=True)
        helpful = int((prices < 0).sum())
        room = min(helpful, self.limit - len(flip.rows))
        if room <= 0:
            return flip.rows[:0]
        needed = int((-prices[order[:helpful]].cumsum(0) < flip.lead).sum()) + 1
        # Prices change with every removal: half of what seems to be needed does not go too far.
        return order[: min(max(1, needed // 2), room)]

    def _prices(self, right: Tensor, rows: Tensor, delta: Tensor) -> Tensor:
        """Return how the removal of each further row moves the lead, `(N,)`; infinite where it must stay."""
        model, dtype = self.model, self.model.design.dtype
        solver = self.engine.solver
        right = right.to(dtype)
        if len(rows):
            edits = EditSolver(solver)
            adjoint = edits.solve(edits.prepare(Edits.leaving(model, [rows])), right)[0]
        else:
            adjoint = solver.plain(right)[0]
        weights = (model.contrasts @ (model.theta + delta)).to(dtype)
        prices = []
        for part, block in model.design.blocks(ROWS):
            p = torch.softmax((block @ weights.T).to(torch.float64), 1)
            moved = (residuals(p, model.target[part]) @ model.contrasts) * model.weight[part, None]
            # The downdated residual at θ, and how the residual has changed since.
            force = self.steps.m[part].to(torch.float64) + moved - self._residual[part]
            prices.append(((block @ adjoint.T).to(torch.float64) * force).sum(1))
        out = torch.cat(prices)
        out[rows] = torch.inf
        for c in range(model.n_classes):  # every class keeps the row that helps least
            own = ((model.target == c) & out.isfinite()).nonzero()[:, 0]
            if len(own):
                out[own[out[own].argmax()]] = torch.inf
        return out
