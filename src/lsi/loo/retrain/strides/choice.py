"""Whether a run may go in strides, and in how long ones: a few pilots are trained both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Tick
from lsi.loo.retrain.copies import Record, Scorer
from lsi.loo.retrain.heads import HeadTrainer
from lsi.loo.retrain.strides.grid import worthwhile
from lsi.loo.retrain.strides.trainer import Path, StrideTrainer
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.progress import Progress, ticks

if TYPE_CHECKING:
    from lsi.methods import Retrain

Wholes = dict[int, np.ndarray]
"""Weights of the full-data head `(C, D)`, by epoch."""

FEWEST_SCORED = 16  # samples for which trying strides pays
LEAST_WORK = 2e10  # operations of a run of every epoch, below which it takes a fraction of a second anyway
MOST_CLASSES = 64  # whose curvature is held for every sample
PILOTS = 3
PILOT_SHARE = 0.5  # of the tolerance, for pilots
DOUBT = 2.0  # corrections that are trusted, in units of the tolerance
ROUNDING = 1e-10  # nats
# The curvatures at all nodes take less than this, and half of the memory that a run may use; following them
# takes less than this share of the operations of looking at the data.
TANGENT_BYTES, TANGENT_SHARE = 8 << 30, 0.25


def grids_to_try(
    settings: Retrain, n_samples: int, n_features: int, n_classes: int, n_scored: int
) -> list[list[int]]:
    """Return the nodes of the grids that a run may try, the fastest first; none: no strides."""
    work = 4.0 * n_samples * n_features * n_classes * settings.epochs * n_scored
    if settings.tol is None or n_scored < FEWEST_SCORED or n_classes > MOST_CLASSES or work < LEAST_WORK:
        return []
    return worthwhile(settings.epochs, settings.record_every)


def tangent_bytes(n_samples: int, n_features: int, n_classes: int, n_nodes: int) -> int:
    """Return the bytes of the curvatures at all nodes."""
    return 4 * n_nodes * (min(n_samples, n_features) * (n_classes - 1)) ** 2


def tangents_pay(
    n_samples: int, n_features: int, n_classes: int, n_scored: int, n_nodes: int, memory: int | None = None
) -> bool:
    """Return whether heads had better follow the curvature at the nodes than look at the data there."""
    room = TANGENT_BYTES if memory is None else min(TANGENT_BYTES, memory // 2)
    if tangent_bytes(n_samples, n_features, n_classes, n_nodes) > room:
        return False
    k = min(n_samples, n_features) * (n_classes - 1)
    data, curvatures = 4.0 * n_samples * k * n_scored, 1.0 * n_samples * k**2 + 2.0 * k**2 * n_scored
    return curvatures <= TANGENT_SHARE * data


@dataclass(frozen=True)
class Choice:
    """How the heads of a run are trained.

    Attributes:
        wholes: Weights of the full-data head at the nodes, 0 among them; without 0: every epoch is computed.
        tangents: Whether the nodes look at the curvature instead of the data.
    """

    wholes: Wholes
    tangents: bool = False


class Strides:
    """Trains left-out heads in strides, where pilots have shown that this gives the same scores.

    Args:
        model: Data and objective, in original coordinates.
        settings: The protocol.
        memory: Bytes that the run may use; None: no limit.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain, memory: int | None = None) -> None:
        self.model, self.settings, self.device = model, settings, model.design.device
        self.memory = memory
        self.tol = settings.tol or 0.0
        self.trainer = StrideTrainer(model, settings)
        self._path: tuple[Choice, Path] | None = None

    def grids(self, n_scored: int) -> list[list[int]]:
        """Return the nodes of the grids that may be tried, the fastest first; none: no strides."""
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
    ) -> Choice:
        """Return the fastest way that will do, with the weights of the full-data head at its nodes.

        Shapes: start `(C, D)`, index `(n_scored,)`.
        """
        grids, pilots = self.grids(len(index)), self._pilots(index, seed)
        wholes = {0: start.cpu().numpy()}

        def keep(epoch: int, heads: Tensor) -> None:
            wholes[epoch] = heads[0].cpu().numpy().copy()

        every = {node for nodes in grids for node in nodes}
        tick = ticks(progress, "fit", self.settings.epochs)
        heads = trainer.train(start, torch.cat([pilots.new_tensor([-1]), pilots]), tick, keep, every)
        score = scorer(heads[0])
        exact = score(pilots, heads[1:]).lsi
        for nodes, tangents in self._ways(grids, len(index)):
            way = Choice({epoch: wholes[epoch] for epoch in nodes}, tangents)
            if tangents:
                self._path_of(way).find_tangents(progress)
            found, doubtful = self.train(way, pilots, None, None)
            trusted = ~doubtful.cpu().numpy()
            error = np.abs(score(pilots, found).lsi - exact)
            good = error <= PILOT_SHARE * self.tol * exact + ROUNDING
            # Heads that a tangent does not do for are told by their doubt, and look at the data.
            if good[trusted].all() and (2 * trusted.sum() > len(trusted) if tangents else trusted.all()):
                return way
        end = self.settings.epochs
        return Choice(
            {n: whole for n, whole in wholes.items() if n and (n == end or self.settings.records(n))}
        )

    def _ways(self, grids: list[list[int]], n_scored: int) -> Iterator[tuple[list[int], bool]]:
        """Yield what may be tried, the fastest first: nodes, and whether they look at the curvature only."""
        n, d, c = self.model.n_samples, self.model.design.n_features, self.model.n_classes
        if grids and tangents_pay(n, d, c, n_scored, len(grids[0]), self.memory):
            yield grids[0], True
        for nodes in grids:
            yield nodes, False

    def train(
        self, way: Choice, index: Tensor, tick: Tick | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
        """Return trained heads, float64 `(B, C, D)`, and which of them are not to be trusted, `(B,)`.

        Shapes: index `(B,)`.
        """

        def at(epoch: int, change: Tensor) -> Tensor:
            return torch.tensor(way.wholes[epoch], dtype=torch.float64, device=change.device) + change

        def put(epoch: int, change: Tensor) -> None:
            if record is not None:
                record(epoch, at(epoch, change))

        change, doubt = self.trainer.train(self._path_of(way), index, tick, put)
        heads = at(self.settings.epochs, change)
        # Large corrections mean strides that are too long; what is not finite compares false.
        trusted = (doubt <= DOUBT * self.tol) & heads.isfinite().flatten(1).all(1)
        return heads, ~trusted

    def _path_of(self, way: Choice) -> Path:
        """Return the full-data head's training; blocks of one seed come one after another and share it."""
        if self._path is not None and self._is_that_of(self._path[0], way):
            path = self._path[1]
            return path if way.tangents else replace(path, tangents=None)
        self._path = None  # its curvatures are given back before others are asked for
        path = self.trainer.path(way.wholes, way.tangents)
        self._path = way, path
        return path

    def _is_that_of(self, before: Choice, way: Choice) -> bool:
        """Return whether a path that was kept will do: without its tangents, where they are not wanted."""
        end = self.settings.epochs
        same = before.wholes.keys() == way.wholes.keys() and before.tangents >= way.tangents
        return same and np.array_equal(before.wholes[end], way.wholes[end])

    def _pilots(self, index: Tensor, seed: int) -> Tensor:
        """Return positions to try strides on: the longest row, and others by chance."""
        lengths = torch.cat([x.norm(dim=1) for _, x in self.model.design.blocks(8192)])[index]
        chance = np.random.default_rng(seed).choice(len(index), PILOTS, replace=False)
        chance[0] = int(lengths.argmax())
        return index[torch.from_numpy(chance).to(index.device)]

    def __getstate__(self) -> dict[str, object]:
        """Leave behind what a worker computes itself."""
        return {**self.__dict__, "_path": None}
