"""Whether a run may go in strides, and in how long ones: a few pilots are trained both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lsi.loo.copies import Record, Scorer
from lsi.loo.heads import HeadTrainer
from lsi.loo.strides.grid import worthwhile
from lsi.loo.strides.trainer import Path, StrideTrainer
from lsi.probes.model import SoftmaxModel
from lsi.work import Tick

if TYPE_CHECKING:
    from lsi.loo.retrain import Retrain

Wholes = dict[int, np.ndarray]
"""Weights of the full-data head `(C, D)`, by epoch."""

FEWEST_SCORED = 16  # samples for which trying strides pays
LEAST_WORK = 2e10  # operations of a run of every epoch, below which it takes a fraction of a second anyway
MOST_CLASSES = 64  # whose curvature is held for every sample
PILOTS = 3
PILOT_SHARE = 0.5  # of the tolerance, for pilots
DOUBT = 2.0  # corrections that are trusted, in units of the tolerance
ROUNDING = 1e-10  # nats


def grids_to_try(
    settings: Retrain, n_samples: int, n_features: int, n_classes: int, n_scored: int
) -> list[list[int]]:
    """Return the nodes of the grids that a run may try, the fastest first; none: no strides.

    Args:
        settings: The protocol.
        n_samples: N.
        n_features: D, with the intercept.
        n_classes: C.
        n_scored: Heads.
    """
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
        self.model, self.settings, self.device = model, settings, model.design.device
        self.tol = settings.tol or 0.0
        self.trainer = StrideTrainer(model, settings)
        self._path: tuple[Wholes, Path] | None = None

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
    ) -> Wholes:
        """Return the weights of the full-data head at the nodes of the fastest grid that will do.

        Args:
            start: Initial weights `(C, D)`.
            index: Positions that will be left out, `(n_scored,)`.
            seed: Of the choice of pilots.
            trainer: Computes every epoch.
            scorer: Given the trained full-data head, returns what scores heads.

        Returns:
            The weights, those after 0 epochs among them; without these where no grid will do.
        """
        grids, pilots = self.grids(len(index)), self._pilots(index, seed)
        wholes = {0: start.cpu().numpy()}

        def keep(epoch: int, heads: Tensor) -> None:
            wholes[epoch] = heads[0].cpu().numpy().copy()

        every = {node for nodes in grids for node in nodes}
        heads = trainer.train(start, torch.cat([pilots.new_tensor([-1]), pilots]), None, keep, every)
        score = scorer(heads[0])
        exact = score(pilots, heads[1:]).lsi
        for nodes in grids:
            along = {epoch: wholes[epoch] for epoch in nodes}
            found, doubtful = self.train(along, pilots, None, None)
            if not bool(doubtful.any()):
                error = np.abs(score(pilots, found).lsi - exact)
                if (error <= PILOT_SHARE * self.tol * exact + ROUNDING).all():
                    return along
        end = self.settings.epochs
        return {n: whole for n, whole in wholes.items() if n and (n == end or self.settings.records(n))}

    def train(
        self, wholes: Wholes, index: Tensor, tick: Tick | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
        """Return trained heads, float64 `(B, C, D)`, and which of them are not to be trusted, `(B,)`.

        Args:
            wholes: What `choose` returned.
            index: Left-out position of each head, `(B,)`.
            tick: Called with the number of epochs done.
            record: As in `CopiesEngine.train`.
        """

        def at(epoch: int, change: Tensor) -> Tensor:
            return torch.tensor(wholes[epoch], dtype=torch.float64, device=change.device) + change

        def put(epoch: int, change: Tensor) -> None:
            if record is not None:
                record(epoch, at(epoch, change))

        change, doubt = self.trainer.train(self._path_of(wholes), index, tick, put)
        heads = at(self.settings.epochs, change)
        # Large corrections mean strides that are too long; what is not finite compares false.
        trusted = (doubt <= DOUBT * self.tol) & heads.isfinite().flatten(1).all(1)
        return heads, ~trusted

    def _path_of(self, wholes: Wholes) -> Path:
        """Return the full-data head's training; blocks of one seed come one after another and share it."""
        end = self.settings.epochs
        if self._path is not None:
            before, path = self._path
            if before.keys() == wholes.keys() and np.array_equal(before[end], wholes[end]):
                return path
        path = self.trainer.path(wholes)
        self._path = wholes, path
        return path

    def _pilots(self, index: Tensor, seed: int) -> Tensor:
        """Return positions to try strides on: the longest row, and others by chance."""
        lengths = torch.cat([x.norm(dim=1) for _, x in self.model.design.blocks(8192)])[index]
        chance = np.random.default_rng(seed).choice(len(index), PILOTS, replace=False)
        chance[0] = int(lengths.argmax())
        return index[torch.from_numpy(chance).to(index.device)]

    def __getstate__(self) -> dict[str, object]:
        """Leave behind what a worker computes itself."""
        return {**self.__dict__, "_path": None}
