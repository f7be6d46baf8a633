r"""Leave-one-out optima where classes are many, from sweeps over the entries that matter.

Class blocks leave out that the probabilities of a row add up to one: where two classes share a row, moving
one moves the other. A sweep over the entries (`BlockCurvature.change`) has the gradient with all of it, at
all orders, for a small part of what a sweep over all classes costs. Here the refiner takes such sweeps, with
the class blocks without the sample as the rough inverse.

A row has entries for the classes that it may be of, and the others count as not moved. That is wrong for rows
that reach far: leaving out a twin can make a probability of 1e-11 one of 1e-4, and where the row is a hundred
standard deviations out that is most of the curvature. So those that reach farthest have all their entries, as
many as make a quarter more of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.blocks import BlockSolver
from lsi.loo.newton.neighbours import whitened
from lsi.loo.newton.refine import Refiner
from lsi.loo.newton.secants import MEMORY
from lsi.loo.newton.sweep import Sweep
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.entries import GATHERED, ClassEntries
from lsi.probes.softmax.model import ROWS, SoftmaxModel

TOL, SWEEPS = 0.1, 24  # errors are a hundredth of it in the median
# Sweeps of a sample: 4 to 8 on artificial data, 9 on 2,000 × 512 CIFAR-10 features in 100 clusters, 15 of the
# highest of 10,000 × 256. Beside products a sweep costs so much for an entry, and for a weight: exponentials,
# and terms in double precision.
TYPICAL_SWEEPS, ENTRY = 6.0, 2.2e3
ELEMENT = {"diag": 8e3, "kron": 2e4}
WHOLE = 0.25  # entries of far-reaching rows, as a share of the others
LARGEST = 64  # samples walked together at most


class CoupledRefiner(Refiner):
    """Refines removals with sweeps over the entries.

    Args:
        solver: First-order steps by class blocks.
        posterior: The posterior whose divergence is the score, `diag` or `kron`.
    """

    wary = True
    solver: BlockSolver

    def __init__(self, solver: BlockSolver, posterior: Posterior) -> None:
        super().__init__(solver.model, solver, posterior, TOL, SWEEPS)
        self._curvature: BlockCurvature | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the entries behind: whoever needs them collects them."""
        return {**super().__getstate__(), "_curvature": None}

    def _precondition(self, removal: Any, right: Tensor) -> Tensor:
        contrasts = self.solver.curvature.contrasts
        step = self.solver.precondition(removal, contrasts @ right.to(torch.float32))
        return (contrasts.T @ step).to(right.dtype)

    def _sweep(self, removal: Any, seen: tuple[Tensor, ...], delta: Tensor) -> tuple[Any, Sweep]:
        if self._curvature is None:
            self._curvature = _with_far_rows(self.solver.curvature)
        x, residual, own = seen
        contrasts, shift = self._curvature.contrasts, self.posterior.new_shift(len(x))
        add = partial(self.posterior.add_entries, shift)
        change = self._curvature.change(contrasts @ delta.to(torch.float32), removal.index, add)
        against = residual[:, :, None] * x[:, None, :] + self.model.weight_decay * self.model.theta
        gradient = (contrasts.T @ change - against).to(delta.dtype)
        return Removal(removal.index, x, own, delta), Sweep(gradient, shift)

    def _continue(self, *_: Any) -> None:
        """Leave what has not arrived to others: these sweeps are too rough for the safe solver."""


def _with_far_rows(curvature: BlockCurvature) -> BlockCurvature:
    """Return the same curvature with all entries of the rows that reach farthest."""
    model, count = curvature.model, int(WHOLE * curvature.entries.count / curvature.model.n_classes)
    return replace(curvature, entries=ClassEntries.of(model, far_reaching(model, count)))


def far_reaching(model: SoftmaxModel, count: int) -> Tensor:
    """Return the mask `(N,)` of the `count` rows of largest `xᵀA⁻¹x`, with A as `whitened` has it.

    Twins of what is left out and rows far out are among them: their probabilities may grow a thousandfold.
    """
    white = whitened(model)
    reach = torch.cat([(x @ white).square().sum(1) for _, x in model.design.blocks(ROWS)])
    farthest = torch.zeros(model.n_samples, dtype=torch.bool, device=reach.device)
    farthest[reach.topk(min(count, model.n_samples)).indices] = True
    return farthest


def coupled_work(n_entries: int, n_features: int, n_classes: int, posterior: str) -> float:
    """Return the operations of one sample's sweeps; `n_entries` probabilities of all rows are noticeable."""
    # Logits, gradient and curvature of the entries; the rough inverse.
    entries = (1.0 + WHOLE) * n_entries * (3.0 * 2.0 * n_features + ENTRY)
    return TYPICAL_SWEEPS * (entries + n_classes * n_features * (4.0 * n_features + ELEMENT[posterior]))


def walked_together(n_features: int, n_classes: int, block_bytes: int) -> int:
    """Return how many samples are walked together: as many as have 16 bytes of a block for each weight."""
    return max(1, min(LARGEST, block_bytes // (16 * n_classes * n_features)))


def coupled_bytes(together: int, n_features: int, n_classes: int, n_entries: int) -> int:
    """Return the bytes of samples that are walked together: their steps so far, and the entries' logits."""
    entries = int((1.0 + WHOLE) * n_entries)
    # Pairs of the last steps, and what forming terms in double precision takes: 900 × 512 in 100 classes.
    steps = (2 * MEMORY + 38) * together * n_classes * n_features
    return 4 * (steps + 4 * min(entries, GATHERED // (4 * n_features)) * together) + 20 * entries
