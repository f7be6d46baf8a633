r"""`Retrain` for pairs: many copies of both heads at a time, each without one pair.

Every copy starts from the probe's initial weights and runs stochastic gradient descent over the probe's fixed
batches (one batch of all pairs, unless a batch size is set), as ``torch.optim.SGD`` would, with momentum,
Nesterov's look-ahead, and the gradient :math:`\mathrm{wd}(\theta - \theta_0)` of the penalty. The batch of
the left-out pair is one pair shorter. Copies are kept as `(B, d, D)`, so that a step is a few batched
products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.contrastive.model import Embeddings, PairModel
from lsi.loo.contrastive.precision import PairPrecision
from lsi.loo.contrastive.result import empty, match_columns, term_columns
from lsi.loo.engine import Engine
from lsi.loo.result import LooResult
from lsi.methods import Retrain

_CACHE_ELEMENTS = 1 << 18
"""Rough limit of the logits of all copies of a block: more would be mapped anew in every step."""


def check_retrain(settings: Retrain) -> None:
    """Refuse training protocols that pairs do not support."""
    if not settings.is_plain or settings.record_every is not None or settings.n_seeds != 1:
        raise InputError(
            "Pairs are trained by plain SGD at a constant rate, once: use lsi.Retrain(epochs=..., lr=..., "
            "momentum=..., nesterov=...). Batches and seed are settings of the ContrastiveProbe."
        )


def copies_together(batch: int) -> int:
    """Return how many copies are trained together."""
    return max(1, min(64, _CACHE_ELEMENTS // batch**2))


class PairTrainer:
    """Trains B copies of both heads at a time.

    Args:
        model: The model of all pairs.
        settings: The protocol.
    """

    def __init__(self, model: PairModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings

    def train(self, left_out: Tensor, tick: Callable[[], None] | None = None) -> Tensor:
        """Return the trained weights `(B, K)`. Shapes: left_out `(B,)`."""
        s, model = self.settings, self.model
        theta = model.initial.expand(len(left_out), -1).clone()
        velocity = torch.zeros_like(theta)
        for _ in range(s.epochs):
            for rows in model.batches:
                gradient = self._gradient(theta, rows, left_out)
                gradient += model.weight_decay * (theta - model.initial)
                velocity.mul_(s.momentum).add_(gradient)
                theta.sub_(gradient.add_(velocity, alpha=s.momentum) if s.nesterov else velocity, alpha=s.lr)
            if tick is not None:
                tick()
        if not bool(theta.isfinite().all()):
            raise ConvergenceError(
                f"Training diverged within {s.epochs} epochs at lr={s.lr}: lower it, or raise temperature."
            )
        return theta

    def _gradient(self, theta: Tensor, rows: Tensor, left_out: Tensor) -> Tensor:
        """Return the gradient of the mean loss of a batch for every copy, `(B, K)`.

        Shapes: theta `(B, K)`, rows `(n,)`, left_out `(B,)`.
        """
        model, k = self.model, self.model.n_left
        copies, where = (rows[None] == left_out[:, None]).nonzero(as_tuple=True)
        x, y = model.x[rows], model.y[rows]
        u, v = self._embed(theta[:, :k], x), self._embed(theta[:, k:], y)
        # exp((s − 1) / T), without the row and the column of the left-out pair
        weight = (u.unit @ v.unit.mT).sub_(1.0).div_(model.temperature).exp_()
        weight[copies, where] = 0.0
        weight[copies, :, where] = 0.0
        row, column = weight.sum(2, keepdim=True), weight.sum(1)[:, :, None]
        row[copies, where], column[copies, where] = 1.0, 1.0
        # Gradients by the embeddings, times T
        by_u = 0.5 * ((weight @ v.unit) / row + weight @ (v.unit / column)) - v.unit
        by_v = 0.5 * ((weight.mT @ u.unit) / column + weight.mT @ (u.unit / row)) - u.unit
        by_u[copies, where], by_v[copies, where] = 0.0, 0.0
        count = torch.full((len(theta), 1), float(len(rows)), dtype=theta.dtype)
        count[copies] -= 1.0
        parts = [(e.pull_back(g).mT @ f).flatten(1) for e, g, f in ((u, by_u, x), (v, by_v, y))]
        return torch.cat(parts, 1) / (count * model.temperature)

    def _embed(self, heads: Tensor, x: Tensor) -> Embeddings:
        copies, d = len(heads), self.model.dim
        z = heads.reshape(copies * d, -1) @ x.T
        return Embeddings.of(z.view(copies, d, len(x)).mT, self.model.floor)


class PairRetrain(Engine):
    """Leave-one-out scores of pairs by training again.

    Args:
        model: The model of all pairs.
        build: Makes the posterior at trained weights.
        settings: The protocol.
    """

    def __init__(self, model: PairModel, build: Callable[[Tensor], PairPrecision], settings: Retrain) -> None:
        self.trainer, self.build = PairTrainer(model, settings), build

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI as `exact`: both heads trained one pair less at a time by ``torch.optim.SGD``.

        Shapes: positions `(n,)`.
        """
        model, settings = self.trainer.model, self.trainer.settings
        found = [self._plain.lsi(i, train_plainly(model, settings, i)) for i in positions.tolist()]
        return {"exact": np.array(found)}

    @cached_property
    def _plain(self) -> PairPrecision:
        """The posterior of all pairs at heads trained plainly."""
        return self.build(train_plainly(self.trainer.model, self.trainer.settings, None))

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the result of the pairs at `index`. Shapes: index `(n,)`."""
        work, model = work or Work(), self.trainer.model
        size = copies_together(max(len(batch) for batch in model.batches))
        nothing = torch.tensor([-1])
        whole = work.once("whole", lambda: {"theta": self.trainer.train(nothing)[0].numpy()})
        task = PairCopies(self, self.build(torch.from_numpy(whole["theta"])))
        blocks, result = [part.numpy() for part in index.split(size)], empty(len(index))
        units = [self.trainer.settings.epochs] * len(blocks)
        for place, arrays in work.map("leave-one-out", task, "score", blocks, units):
            result.put(slice(place * size, place * size + len(blocks[place])), arrays)
        return result


@dataclass(frozen=True)
class PairCopies:
    """What every block of a run needs.

    Attributes:
        engine: Trains.
        precision: Posterior of the full data.
    """

    engine: PairRetrain
    precision: PairPrecision

    def score(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result. Shapes: positions `(n,)`."""
        result, precision = empty(len(positions)), self.precision
        theta = self.engine.trainer.train(torch.from_numpy(positions), lambda: tick(1))
        for row, position in enumerate(positions.tolist()):
            terms = term_columns(precision.exact(position, theta[row]))
            matches = match_columns(precision.model, torch.tensor([position]), theta[row : row + 1])
            result.put(slice(row, row + 1), terms | matches)
        return result.arrays()


def train_plainly(model: PairModel, settings: Retrain, left_out: int | None) -> Tensor:
    """Return heads trained without a pair by ``torch.optim.SGD`` and autograd, `(K,)`; for the audit."""
    one = model if left_out is None else model.without(left_out)
    batches = [replace(one, batches=[rows], left_out=None) for rows in one.parts()]
    theta = model.initial.clone().requires_grad_()
    s = settings
    optimizer = torch.optim.SGD([theta], lr=s.lr, momentum=s.momentum, nesterov=s.nesterov)
    for _ in range(s.epochs):
        for batch in batches:
            optimizer.zero_grad()
            rows = batch.batches[0]
            u, v = batch.embed(theta, rows)
            logits, match = u.unit @ v.unit.T / model.temperature, torch.arange(len(rows))
            loss = 0.5 * sum(torch.nn.functional.cross_entropy(view, match) for view in (logits, logits.T))
            (loss + 0.5 * model.weight_decay * (theta - model.initial).square().sum()).backward()
            optimizer.step()
    return theta.detach()
