"""Leave-one-out by training copies of any model: seeds, blocks, and scores along the training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.engine import Engine
from lsi.loo.result import LooResult
from lsi.methods.algorithms import DPSGD
from lsi.methods.retrain import Retrain
from lsi.results.audit import spearman
from lsi.system.progress import Progress, ticks

Scorer = Callable[[Tensor, Tensor], LooResult]
"""Called with positions `(B,)` and the weights of their copies `(B, …)`."""
Record = Callable[[int, Tensor], None]
"""Called with the number of an epoch and the weights of the copies after it, `(B, …)`."""
_MEANS = ("mean_term", "covariance_term", "loo_probability")


@dataclass
class SeedRun:
    """What one seed gave: the result at the end, and LSI after recorded epochs, `(n_scored,)` each.

    `strides` is the number of strides in which the copies were trained; 0 where every epoch was computed.
    """

    result: LooResult
    recorded: dict[int, np.ndarray] = field(default_factory=dict)
    strides: int = 0


class CopiesEngine(Engine):
    """Scores samples by the models trained without each of them.

    Args:
        settings: The protocol.
        device: Where models are trained.
        block: Copies to train together; None: as `block_size` says.
    """

    def __init__(self, settings: Retrain, device: torch.device, block: int | None = None) -> None:
        self.settings, self.device, self.block = settings, device, block

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """Return the initial weights of every copy."""

    @abstractmethod
    def block_size(self) -> int:
        """Return how many copies to train together."""

    @abstractmethod
    def train(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        tick: Callable[[], None] | None,
        record: Record | None,
    ) -> Tensor:
        """Return trained copies `(B, …)`; an index of −1 leaves no sample out. Shapes: index `(B,)`."""

    @abstractmethod
    def train_plainly(self, seed: int, left_out: int | None) -> Tensor:
        """Return one copy trained by ``torch.optim`` on all samples but `left_out`, for the audit."""

    @abstractmethod
    def scorer(self, whole: Tensor) -> Scorer:
        """Return the function that scores copies against the full-data weights `whole`."""

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the result of the samples at `index`: means over the seeds, and their spread.

        Shapes: index `(n_scored,)`.
        """
        first, count = self.settings.seed, self.settings.n_seeds
        work = work or Work()
        runs = [self._run_seed(seed, index, work) for seed in range(first, first + count)]
        mean = LooResult.empty(len(index))
        for name in _MEANS:
            getattr(mean, name)[:] = np.mean([getattr(run.result, name) for run in runs], axis=0)
        mean.loo_prediction[:], mean.done[:] = runs[0].result.loo_prediction, runs[0].result.done
        if count > 1:
            mean.extra["lsi_std"] = np.std([run.result.lsi for run in runs], axis=0, ddof=1)
        for epoch in runs[0].recorded:
            mean.extra[f"lsi_epoch_{epoch}"] = np.mean([run.recorded[epoch] for run in runs], axis=0)
        self.training = self._describe(runs, mean)
        return mean

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI of models trained one at a time by ``torch.optim`` as `exact`, the mean over the seeds.

        Shapes: positions `(n,)`.
        """
        first, count = self.settings.seed, self.settings.n_seeds
        total = np.zeros(len(positions))
        for k, position in enumerate(positions.tolist()):
            for seed in range(first, first + count):
                score = self._plain_scorer(seed)
                copy = self.train_plainly(seed, position)
                total[k] += float(
                    score(torch.from_numpy(positions[k : k + 1]).to(self.device), copy[None]).lsi[0]
                )
        return {"exact": total / count}

    def _plain_scorer(self, seed: int) -> Scorer:
        """Return what scores copies against the model of all samples, trained plainly once a process."""
        if seed not in self._plain_scorers:
            self._plain_scorers[seed] = self.scorer(self.train_plainly(seed, None))
        return self._plain_scorers[seed]

    @cached_property
    def _plain_scorers(self) -> dict[int, Scorer]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was trained here: a worker trains its own, to the same weights."""
        return {name: value for name, value in self.__dict__.items() if name != "_plain_scorers"}

    def _run_seed(self, seed: int, index: Tensor, work: Work) -> SeedRun:
        wholes = work.once(f"seed-{seed}", lambda: self.train_whole(seed, index, work.progress))
        task = CopiesTask(self, seed, {int(epoch): whole for epoch, whole in wholes.items()})
        end, size = self.settings.epochs, self.block or self.block_size()
        recorded = [epoch for epoch in task.wholes if epoch and self.settings.records(epoch)]
        run = SeedRun(LooResult.empty(len(index)), {epoch: np.full(len(index), np.nan) for epoch in recorded})
        run.strides = len(task.wholes) - 1 if 0 in task.wholes else 0
        bounds = [slice(low, min(low + size, len(index))) for low in range(0, len(index), size)]
        blocks, units = [index[where].cpu().numpy() for where in bounds], [end] * len(bounds)
        within = work.within(f"seed-{seed}")
        for place, arrays in within.map("leave-one-out", task, "score", blocks, units):
            for epoch in recorded:
                run.recorded[epoch][bounds[place]] = arrays.pop(str(epoch))
            run.result.put(bounds[place], arrays)
        return run

    def train_along(
        self,
        wholes: dict[int, np.ndarray],
        index: Tensor,
        seed: int,
        tick: Tick,
        record: Record | None,
    ) -> Tensor:
        """Return trained copies `(B, …)`, given the full-data weights by epoch.

        Shapes: index `(B,)`.
        """
        return self.train(self.start(seed).to(self.device), index, seed, lambda: tick(1), record)

    def train_whole(self, seed: int, index: Tensor, progress: Progress | None = None) -> Arrays:
        """Return the full-data weights, by the number of the epoch after which they are needed.

        Shapes: index `(n_scored,)`.
        """
        nothing = torch.tensor([-1], device=self.device)
        wholes: Arrays = {}

        def record(epoch: int, copies: Tensor) -> None:
            wholes[str(epoch)] = copies[0].cpu().numpy().copy()

        tick = ticks(progress, "fit", self.settings.epochs)
        last = self.train(self.start(seed).to(self.device), nothing, seed, tick, record)[0]
        return {**wholes, str(self.settings.epochs): last.cpu().numpy()}

    def _describe(self, runs: list[SeedRun], mean: LooResult) -> dict[str, Any]:
        """Return the facts about the training that the manifest holds, as JSON values."""
        s, done = self.settings, mean.done
        out: dict[str, Any] = {"seeds": list(range(s.seed, s.seed + s.n_seeds))}
        if any(run.strides for run in runs):
            out["strides"] = [run.strides for run in runs]
        if len(runs) > 1:
            pairs = [spearman(a.result.lsi[done], b.result.lsi[done]) for a, b in combinations(runs, 2)]
            out["rank_correlation_between_seeds"] = float(np.mean(pairs))
        if runs[0].recorded:
            epochs = list(runs[0].recorded)
            out["recorded_epochs"] = epochs
            out["rank_correlation_with_end"] = [
                spearman(mean.lsi[done], mean.extra[f"lsi_epoch_{epoch}"][done]) for epoch in epochs
            ]
        if isinstance(s.algorithm, DPSGD):
            out["privacy"] = {"delta": 1e-5, "epsilon": s.algorithm.epsilon(s.epochs, 1e-5)}
        return out


@dataclass
class CopiesTask:
    """One seed's leave-one-out, as blocks of work.

    Attributes:
        engine: Trains and scores.
        seed: Seed of the initial weights and of the algorithm's random draws.
        wholes: Full-data weights, by epoch.
    """

    engine: CopiesEngine
    seed: int
    wholes: dict[int, np.ndarray]

    def score(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result, and LSI after each recorded epoch under its number.

        Shapes: positions `(n,)`.
        """
        found = list(halving(positions, len(positions), lambda part: self._score(part, tick)))
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _score(self, positions: np.ndarray, tick: Tick) -> Arrays:
        engine, end = self.engine, self.engine.settings.epochs
        index, recorded = torch.from_numpy(positions).to(engine.device), {}

        def record(epoch: int, copies: Tensor) -> None:
            if epoch < end:
                recorded[str(epoch)] = self._scorers[epoch](index, copies).lsi

        copies = engine.train_along(self.wholes, index, self.seed, tick, record)
        result = self._scorers[end](index, copies)
        if engine.settings.records(end):
            recorded[str(end)] = result.lsi
        return {**result.arrays(), **recorded}

    @cached_property
    def _scorers(self) -> dict[int, Scorer]:
        device, settings = self.engine.device, self.engine.settings
        return {
            epoch: self.engine.scorer(torch.from_numpy(whole).to(device))
            for epoch, whole in self.wholes.items()
            if epoch == settings.epochs or (epoch and settings.records(epoch))
        }

    def __getstate__(self) -> dict[str, Any]:
        """Drop the scorers: workers build their own."""
        names = ("engine", "seed", "wholes")
        return {name: getattr(self, name) for name in names}
