"""Leave-one-out by training copies of one model, whatever the model: seeds, blocks, and time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lsi.audit import spearman
from lsi.loo.algorithms import DPSGD
from lsi.loo.result import LooResult
from lsi.progress import Progress

if TYPE_CHECKING:
    from lsi.loo.retrain import Retrain

Scorer = Callable[[Tensor, Tensor], LooResult]
"""Called with positions `(B,)` and the weights of their copies `(B, …)`."""
Record = Callable[[int, Tensor], None]
_MEANS = ("mean_term", "covariance_term", "loo_probability")


@dataclass
class SeedRun:
    """What one seed gave: the result at the end, and LSI after recorded epochs, `(n_scored,)` each."""

    result: LooResult
    recorded: dict[int, np.ndarray] = field(default_factory=dict)


class CopiesEngine(ABC):
    """Scores samples by the models trained without each of them.

    Args:
        settings: The protocol.
        device: Where models are trained.
    """

    def __init__(self, settings: Retrain, device: torch.device) -> None:
        self.settings, self.device = settings, device

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """Return the initial weights of every copy."""

    @abstractmethod
    def block_size(self) -> int:
        """Return how many copies are trained together."""

    @abstractmethod
    def train(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        tick: Callable[[], None] | None,
        record: Record | None,
    ) -> Tensor:
        """Return trained copies `(B, …)`.

        Args:
            start: Initial weights.
            index: Left-out position of each copy, −1 for none, `(B,)`.
            seed: Of what the algorithm draws.
            tick: Called after every epoch.
            record: Called as `record(epoch, copies)` after the epochs that `Retrain.records` names.
        """

    @abstractmethod
    def train_plainly(self, seed: int, left_out: int | None) -> Tensor:
        """Return one copy trained by ``torch.optim`` on all samples but one, for the audit."""

    @abstractmethod
    def scorer(self, whole: Tensor) -> Scorer:
        """Return what scores copies against the full-data weights `whole`."""

    def run(self, index: Tensor, progress: Progress | None = None) -> LooResult:
        """Return the result of the samples at `index`: means over the seeds, and their spread.

        Args:
            index: Positions to score, `(n_scored,)`.
            progress: Called as `progress("leave-one-out", done, total)`.

        Returns:
            The result; `extra` holds `lsi_std` and `lsi_epoch_…` where they were asked for.
        """
        first, count = self.settings.seed, self.settings.n_seeds
        tick = self._ticker(len(index), progress)
        runs = [self._run_seed(seed, index, tick) for seed in range(first, first + count)]
        mean = LooResult.empty(len(index))
        for name in _MEANS:
            getattr(mean, name)[:] = np.mean([getattr(run.result, name) for run in runs], axis=0)
        mean.loo_prediction[:] = runs[0].result.loo_prediction
        if count > 1:
            mean.extra["lsi_std"] = np.std([run.result.lsi for run in runs], axis=0, ddof=1)
        for epoch in runs[0].recorded:
            mean.extra[f"lsi_epoch_{epoch}"] = np.mean([run.recorded[epoch] for run in runs], axis=0)
        self.training = self._describe(runs, mean)
        return mean

    def _ticker(self, n_scored: int, progress: Progress | None) -> Callable[[], None] | None:
        if progress is None:
            return None
        blocks = 1 + -(-n_scored // self.block_size())
        total, done = self.settings.n_seeds * self.settings.epochs * blocks, 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress("leave-one-out", done, total)

        return tick

    def _run_seed(self, seed: int, index: Tensor, tick: Callable[[], None] | None) -> SeedRun:
        start = self.start(seed).to(self.device)
        wholes: dict[int, Tensor] = {}
        nothing = torch.tensor([-1], device=self.device)
        last = self.train(
            start, nothing, seed, tick, lambda epoch, copies: wholes.update({epoch: copies[0]})
        )[0]
        scorers = {epoch: self.scorer(whole) for epoch, whole in wholes.items()}
        end = self.settings.epochs
        scorers.setdefault(end, self.scorer(last) if end not in scorers else scorers[end])
        run = SeedRun(LooResult.empty(len(index)), {epoch: np.empty(len(index)) for epoch in wholes})
        for where, part in _blocks(index, self.block_size()):

            def record(epoch: int, copies: Tensor, where: slice = where, part: Tensor = part) -> None:
                if epoch < end:
                    run.recorded[epoch][where] = scorers[epoch](part, copies).lsi

            copies = self.train(start, part.to(self.device), seed, tick, record)
            run.result.put(where, scorers[end](part, copies))
        if end in run.recorded:
            run.recorded[end][:] = run.result.lsi
        return run

    def _describe(self, runs: list[SeedRun], mean: LooResult) -> dict[str, Any]:
        """Return what is worth knowing about the training, as JSON values."""
        s = self.settings
        out: dict[str, Any] = {"seeds": list(range(s.seed, s.seed + s.n_seeds))}
        if len(runs) > 1:
            pairs = [spearman(a.result.lsi, b.result.lsi) for a, b in combinations(runs, 2)]
            out["rank_correlation_between_seeds"] = float(np.mean(pairs))
        if runs[0].recorded:
            epochs = list(runs[0].recorded)
            out["recorded_epochs"] = epochs
            out["rank_correlation_with_end"] = [
                spearman(mean.lsi, mean.extra[f"lsi_epoch_{epoch}"]) for epoch in epochs
            ]
        if isinstance(s.algorithm, DPSGD):
            out["privacy"] = {"delta": 1e-5, "epsilon": s.algorithm.epsilon(s.epochs, 1e-5)}
        return out


def _blocks(index: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    for low in range(0, len(index), size):
        where = slice(low, min(low + size, len(index)))
        yield where, index[where]
