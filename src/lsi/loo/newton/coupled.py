r"""Leave-one-out steps that know how classes are coupled, for many samples at once, from few sweeps.

Class blocks leave out that the probabilities of a row add up to one: where two classes share a row, moving
one moves the other. A sweep over the entries that matter (`BlockCurvature.change`) has the gradient with all
of it, at all orders. Steps are those of L-BFGS (`Secants`), with the class blocks without the sample as the
rough inverse, so that each sweep makes up for what the blocks leave out along the steps so far. A sample
drops out when its steps are short.

Everything is in all C classes here, with sum zero over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.blocks import BlockRemoval, BlockSolver
from lsi.loo.newton.refine import Walk
from lsi.loo.newton.secants import dot
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.entries import GATHERED

# Length of a step, beside that of δ, at which a walk ends. Values are then off by a third of that or less: at
# 0.072 and 0.033 the median error is 1.4 and 0.8 % (10,000 × 256 features in 100 classes), at 0.039 and
# 0.010 it is 0.9 and 0.3 % (480 × 9 in 12).
GOAL, MOST = 0.05, 12  # and sweeps at most
TYPICAL_SWEEPS = 5.0  # before the last one
LARGEST = 64  # samples walked together at most
TINY = torch.finfo(torch.float64).tiny


@dataclass
class Coupled:
    """Removals after some sweeps.

    Attributes:
        delta: Change of the weights in class contrasts, `(B, C', D)`.
        terms: The divergence's terms.
        known: Whether the walk arrived; of others nothing is known, `(B,)`.
    """

    delta: Tensor
    terms: Terms
    known: Tensor


class CoupledSolver:
    """Walks removals towards their optima with sweeps over the entries.

    Args:
        solver: First-order steps by class blocks.
        posterior: The posterior whose divergence is the score, `diag` or `kron`.
    """

    def __init__(self, solver: BlockSolver, posterior: Posterior) -> None:
        self.solver, self.posterior = solver, posterior
        self._contrasts = solver.curvature.contrasts

    def solve(self, index: Tensor) -> Coupled:
        """Return the removals of the samples at `index`, `(B,)`."""
        first = self.solver.first_order(index)
        against = self._against(first)
        delta, arrived = self._walk(first, against)
        shift = self.posterior.new_shift(len(index))
        change = self.solver.curvature.change(delta, index, partial(self.posterior.add_entries, shift))
        # This sweep, for the change of the others' curvature, tells whether the last step led where it was
        # to lead, and gives one more for nothing.
        gradient = _centred(change - against)
        step = _centred(self.solver.precondition(first, gradient))
        known = arrived & (_length(step, gradient, delta, change) <= GOAL)
        delta = torch.where(known[:, None, None], delta - step, delta)
        own, moved = self.posterior.own_curvature(index), self._contrasts.T @ delta
        return Coupled(moved, self.posterior.divergence(Removal(index, first.x, own, moved, shift)), known)

    def _walk(self, first: BlockRemoval, against: Tensor) -> tuple[Tensor, Tensor]:
        """Return the steps in all classes, `(B, C, D)`, and which walks arrived, `(B,)`."""
        delta = _centred(self._contrasts @ first.delta.to(torch.float32))
        arrived = torch.zeros(len(delta), dtype=torch.bool, device=delta.device)
        walk = Walk.start(first, torch.float32)
        for _ in range(MOST):
            active, part = walk.active, first.select(walk.active)
            here = delta[active]
            change = self.solver.curvature.change(here, part.index)
            gradient, overshot = walk.arrive(_centred(change - against[active]))
            step = _centred(walk.secants.solve(gradient, partial(self.solver.precondition, part)))
            sizes = _length(step, gradient, here, change).expand(2, -1)
            shrinks = walk.contraction(sizes, overshot, unseen=0.0) < 1.0
            if bool(overshot.any()):
                here = torch.where(overshot[:, None, None], here + walk.step, here)
            delta[active] = here - step
            walk.depart(gradient, step, sizes)
            arrived[active] = shrinks & (sizes[0] <= GOAL)
            goes_on = walk.goes_on(arrived[active])
            walk = walk.select(goes_on)
            if not len(walk.active):
                break
        arrived[walk.active] = False
        return delta, arrived

    def _against(self, first: BlockRemoval) -> Tensor:
        """Return what the step goes against, `g ⊗ x + wd θ` in all classes, `(B, C, D)` float32."""
        model = self.solver.model
        decay = self._contrasts @ (model.weight_decay * model.theta).to(torch.float32)
        own = (first.residual @ self._contrasts.to(first.residual).T)[:, :, None] * first.x[:, None, :]
        return own.to(torch.float32) + decay


def _length(step: Tensor, gradient: Tensor, delta: Tensor, change: Tensor) -> Tensor:
    """Return the length of a step beside that of δ, in the metric of the curvature, `(B,)` float64."""
    return (dot(step, gradient).clamp_min(0) / dot(delta, change).clamp_min(TINY)).sqrt()


def coupled_work(n_entries: int, n_features: int, n_classes: int) -> float:
    """Return the operations of one sample's sweeps; `n_entries` probabilities of all rows are noticeable."""
    products = (
        2.0 * TYPICAL_SWEEPS + 3.0
    )  # logits and gradients of every sweep, and the curvature of the last
    return products * 2.0 * n_entries * n_features + TYPICAL_SWEEPS * 4.0 * n_classes * n_features**2


def coupled_bytes(n_samples: int, n_features: int, n_classes: int, n_entries: int) -> int:
    """Return the bytes of samples that are walked together: their steps so far, and the entries' logits."""
    together = min(LARGEST, n_samples)
    steps = (2 * int(TYPICAL_SWEEPS) + 8) * together * n_classes * n_features
    return 4 * (steps + 4 * min(n_entries, GATHERED // (4 * n_features)) * together)


def _centred(v: Tensor) -> Tensor:
    """Return v less its mean over the classes."""
    return v - v.mean(1, keepdim=True)
