"""Whether a run may go in strides, and in how long ones: a few pilots are trained both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Tick
from lsi.loo.retrain.copies import Record, Scorer
from lsi.loo.retrain.heads import HeadTrainer
from lsi.loo.retrain.strides.trainer import Path, StrideTrainer
from lsi.methods.retrain import Retrain
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.progress import Progress, ticks

Wholes = dict[int, np.ndarray]
"""Weights of the full-data head `(C, D)`, by epoch."""

WORTH = 3  # epochs a stride must have on average for strides to pay
FEWEST_SCORED = 16  # samples for which trying strides pays
LEAST_WORK = 2e10  # operations of a run of every epoch, below which it takes a fraction of a second anyway
MOST_CLASSES = 64  # more would make the curvatures of one block of samples too large
PILOTS = 3
PILOT_SHARE = 0.5  # pilots must agree within this share of the tolerance
DOUBT = 2.0  # a head is trusted if no correction exceeded this multiple of the tolerance
ROUNDING = 1e-10  # nats


@dataclass(frozen=True)
class Grid:
    """A rule for the length of strides: short ones first, then longer and longer ones.

    Attributes:
        growth: Length as a share of the epochs done.
        longest: Maximum length, in epochs.
    """

    growth: float
    longest: int

    def nodes(self, epochs: int, record_every: int | None = None) -> list[int]:
        """Return the numbers of the epochs after which gradients are computed, from 0 to `epochs`.

        >>> Grid(0.5, 10).nodes(30)
        [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 30]
        """
        nodes = [0]
        while (done := nodes[-1]) < epochs:
            stride = min(max(1, int(done * self.growth)), self.longest)
            if record_every is not None:
                stride = min(stride, record_every - done % record_every)
            nodes.append(min(done + stride, epochs))
        return nodes


GRIDS = (Grid(0.1, 48), Grid(0.05, 16))
"""From the fastest to the finest; pilots decide which one a run may take."""


def worthwhile(epochs: int, record_every: int | None) -> list[list[int]]:
    """Return the nodes of every grid that saves enough epochs, the fastest first."""
    every = [grid.nodes(epochs, record_every) for grid in GRIDS]
    return [nodes for nodes in every if WORTH * (len(nodes) - 1) <= epochs]


def grids_to_try(
    settings: Retrain, n_samples: int, n_features: int, n_classes: int, n_scored: int
) -> list[list[int]]:
    """Return the nodes of the grids that a run may try, the fastest first; empty: no strides."""
    work = 4.0 * n_samples * n_features * n_classes * settings.epochs * n_scored
    if settings.tol is None or n_scored < FEWEST_SCORED or n_classes > MOST_CLASSES or work < LEAST_WORK:
        return []
    return worthwhile(settings.epochs, settings.record_every)


class Strides:
    """Trains left-out heads in strides, where pilots have shown that this gives the same scores.

    Args:
        model: Data and objective, in original coordinates.
        settings: The protocol.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings
        self.tol = settings.tol or 0.0
        self.trainer = StrideTrainer(model, settings)
        self._path: tuple[Wholes, Path] | None = None

    def grids(self, n_scored: int) -> list[list[int]]:
        """Return the nodes of the grids that this run may try, as `grids_to_try` does."""
        n, d = self.model.n_samples, self.model.design.n_features
        return grids_to_try(self.settings, n, d, self.model.n_classes, n_scored)

    def choose(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        trainer: HeadTrainer,
        scorer: Callable[[Tensor], Scorer],
        progress: Progress | None = None,
    ) -> Wholes:
        """Return the full-data weights at the nodes of the fastest grid that is accurate enough.

        Epoch 0 is among them. If it is missing, no grid was accurate enough: compute every epoch.

        Shapes: start `(C, D)`, index `(n_scored,)`.
        """
        grids, pilots = self.grids(len(index)), self._pilots(index, seed)
        wholes = {0: start.cpu().numpy()}

        def keep(epoch: int, heads: Tensor) -> None:
            wholes[epoch] = heads[0].cpu().numpy().copy()

        # Train the full-data head and the pilots through every epoch.
        every = {node for nodes in grids for node in nodes}
        tick = ticks(progress, "fit", self.settings.epochs)
        heads = trainer.train(start, torch.cat([pilots.new_tensor([-1]), pilots]), tick, keep, every)
        score = scorer(heads[0])
        exact = score(pilots, heads[1:]).lsi
        # Train the pilots again, on each grid.
        for nodes in grids:
            found = {epoch: wholes[epoch] for epoch in nodes}
            heads, doubtful = self.train(found, pilots, None, None)
            error = np.abs(score(pilots, heads).lsi - exact)
            if not doubtful.any() and np.all(error <= PILOT_SHARE * self.tol * exact + ROUNDING):
                return found
        end = self.settings.epochs
        return {n: whole for n, whole in wholes.items() if n and (n == end or self.settings.records(n))}

    def train(
        self, wholes: Wholes, index: Tensor, tick: Tick | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
        """Return trained heads, float64 `(B, C, D)`, and which of them are not to be trusted, `(B,)`.

        Shapes: index `(B,)`.
        """

        def at(epoch: int, change: Tensor) -> Tensor:
            return torch.tensor(wholes[epoch], dtype=torch.float64, device=change.device) + change

        def put(epoch: int, change: Tensor) -> None:
            if record is not None:
                record(epoch, at(epoch, change))

        change, doubt = self.trainer.train(self._path_of(wholes), index, tick, put)
        heads = at(self.settings.epochs, change)
        # Large corrections mean that strides are too long; NaN compares false and so is not trusted.
        trusted = (doubt <= DOUBT * self.tol) & heads.isfinite().flatten(1).all(1)
        return heads, ~trusted

    def _path_of(self, wholes: Wholes) -> Path:
        """Return the path of the full-data head, kept because consecutive blocks of one seed share it."""
        end = self.settings.epochs
        if self._path is not None:
            kept, path = self._path
            if kept.keys() == wholes.keys() and np.array_equal(kept[end], wholes[end]):
                return path
        self._path = wholes, self.trainer.path(wholes)
        return self._path[1]

    def _pilots(self, index: Tensor, seed: int) -> Tensor:
        """Return positions to try strides on: the sample with the longest row, and others at random."""
        lengths = torch.cat([x.norm(dim=1) for _, x in self.model.design.blocks(8192)])[index]
        drawn = np.random.default_rng(seed).choice(len(index), PILOTS, replace=False)
        drawn[0] = int(lengths.argmax())
        return index[torch.from_numpy(drawn).to(index.device)]

    def __getstate__(self) -> dict[str, object]:
        """Drop what a worker computes itself."""
        return {**self.__dict__, "_path": None}
