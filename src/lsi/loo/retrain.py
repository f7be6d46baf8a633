r"""`Retrain`: the published protocol, many heads at a time.

Every head (full data and one a left-out sample) starts from the same initial weights and runs
full-batch gradient descent on the mean cross-entropy of its own samples, exactly as
``torch.optim.SGD`` would: with decay :math:`g \leftarrow g + \mathrm{wd}\,\theta`, momentum
:math:`b \leftarrow \mu b + g`, and, for Nesterov, :math:`g \leftarrow g + \mu b`.

Source: Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.loo.newton.engine import loo_prediction
from lsi.loo.newton.sweep import row_blocks
from lsi.loo.result import LooResult
from lsi.posterior.base import Posterior, Removal
from lsi.probes.model import SoftmaxModel
from lsi.progress import Progress


@dataclass(frozen=True)
class Retrain:
    """Leave-one-out by training again, stopped after a number of epochs as in the paper.

    Args:
        epochs: Full-batch steps.
        lr: Learning rate.
        momentum: Momentum in [0, 1).
        nesterov: Whether the momentum is Nesterov's.
        seed: Initial weights are those of ``torch.manual_seed(seed)``, then ``torch.nn.Linear(D, C)``.
        n_seeds: Repetitions with seeds ``seed, seed + 1, …``; scores are their mean.

    Raises:
        InputError: Settings outside their range.
    """

    epochs: int = 1000
    lr: float = 0.004
    momentum: float = 0.9
    nesterov: bool = True
    seed: int = 5
    n_seeds: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.n_seeds < 1:
            raise InputError(
                f"epochs and n_seeds must be at least 1, got {self.epochs!r} and {self.n_seeds!r}."
            )
        if not (np.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr must be a positive number, got {self.lr!r}; the paper uses 0.004.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {self.momentum!r}; the paper uses 0.9.")
        if self.nesterov and self.momentum == 0:
            raise InputError("Nesterov needs a momentum above 0; set nesterov=False or raise momentum.")

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {"kind": "retrain", **asdict(self)}


def initial_weights(seed: int, n_inputs: int, n_classes: int, fit_intercept: bool) -> Tensor:
    """Return the weights of a fresh ``torch.nn.Linear``, `(C, D)` with the intercept last, float32.

    Args:
        seed: Given to ``torch.manual_seed``; the global generator is left as it was.
        n_inputs: Features without the intercept.
        n_classes: C.
        fit_intercept: Whether the layer has a bias.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(n_inputs, n_classes, bias=fit_intercept)
    weight = layer.weight.detach()
    return torch.cat([weight, layer.bias.detach()[:, None]], 1) if fit_intercept else weight.clone()


class HeadTrainer:
    """Trains B heads at a time, each on all samples but one (or on all).

    Heads are kept as one `(D, C·B)` matrix, so that an epoch is two matrix products and a softmax.

    Args:
        model: Data and objective; its design must be float32 or float64 and in original coordinates.
        settings: The protocol.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings

    def train(self, start: Tensor, index: Tensor, tick: Callable[[], None] | None = None) -> Tensor:
        """Return the trained heads `(B, C, D)`.

        Args:
            start: Initial weights `(C, D)`.
            index: Left-out position of each head, −1 for none, `(B,)`.
            tick: Called after every epoch.

        Returns:
            The heads.

        Raises:
            ConvergenceError: Weights are no longer finite.
        """
        model, s = self.model, self.settings
        c, b = model.n_classes, len(index)
        dtype = model.design.dtype
        weights = start.to(dtype).T[:, :, None].expand(-1, -1, b).reshape(-1, c * b).contiguous()
        velocity = torch.zeros_like(weights)
        removed = (index >= 0).to(dtype)
        scale = (1.0 / (model.n_samples - removed)).repeat(c)
        for epoch in range(s.epochs):
            gradient = (
                self._gradient(weights, index, c, b).mul_(scale).add_(weights, alpha=model.weight_decay)
            )
            velocity = gradient.clone() if epoch == 0 else velocity.mul_(s.momentum).add_(gradient)
            if s.nesterov:
                gradient.add_(velocity, alpha=s.momentum)
            weights.sub_(gradient if s.nesterov else velocity, alpha=s.lr)
            if tick is not None:
                tick()
        if not bool(weights.isfinite().all()):
            raise ConvergenceError(
                f"Training diverged within {s.epochs} epochs at lr={s.lr}: lower it, or standardise X."
            )
        return weights.view(-1, c, b).permute(2, 1, 0).contiguous()

    def _gradient(self, weights: Tensor, index: Tensor, c: int, b: int) -> Tensor:
        """Return the gradient of the summed loss of every head, `(D, C·B)`."""
        model = self.model
        gradient = torch.zeros_like(weights)
        # A block of logits that stays in cache: larger ones are paged in anew at every epoch.
        rows_at_once = max(64, (1 << 20) // (c * b))
        for rows, x in model.design.blocks(rows_at_once):
            p = torch.softmax((x @ weights).view(len(x), c, b), 1)
            labels = model.target[rows]
            p[torch.arange(len(x), device=x.device), labels] -= 1.0
            inside = (index >= rows.start) & (index < rows.stop)
            p[index[inside] - rows.start, :, inside.nonzero()[:, 0]] = 0.0
            if not model.unweighted:
                p.mul_(model.weight[rows, None, None].to(p.dtype))
            gradient.addmm_(x.T, p.view(len(x), c * b))
        return gradient


class RetrainEngine:
    """Leave-one-out scores by the published protocol.

    Args:
        model: Untrained model in original coordinates, in the type to train in.
        build: Makes the posterior of a trained model: `build(model)` returns it and the basis of the
            coordinates that it lives in, or None for the original ones.
        settings: The protocol.
        fit_intercept: Whether the last column of the design is the intercept.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        build: Callable[[SoftmaxModel], tuple[Posterior, Tensor | None]],
        settings: Retrain,
        fit_intercept: bool,
    ) -> None:
        self.model, self.build, self.settings, self.fit_intercept = model, build, settings, fit_intercept
        self.trainer = HeadTrainer(model, settings)

    def block_size(self) -> int:
        """Return how many heads are trained together: enough to fill the products, bounded in memory."""
        c, d = self.model.n_classes, self.model.design.n_features
        return int(max(1, min(256, (256 << 20) // (4 * c * max(4 * d, 1024)))))

    def run(self, index: Tensor, progress: Progress | None = None) -> LooResult:
        """Return the result of the samples at `index`, averaged over the seeds."""
        seeds = range(self.settings.seed, self.settings.seed + self.settings.n_seeds)
        results = [self._run_seed(seed, index, progress) for seed in seeds]
        mean = LooResult.empty(len(index))
        for name in ("mean_term", "covariance_term", "loo_probability"):
            getattr(mean, name)[:] = np.mean([getattr(result, name) for result in results], axis=0)
        mean.loo_prediction[:] = results[0].loo_prediction
        return mean

    def _run_seed(self, seed: int, index: Tensor, progress: Progress | None) -> LooResult:
        d = self.model.design.n_features - int(self.fit_intercept)
        start = initial_weights(seed, d, self.model.n_classes, self.fit_intercept).to(
            self.model.design.device
        )
        heads = self._heads(start, index, progress)
        score = self.scorer(next(heads)[0])
        result, done = LooResult.empty(len(index)), 0
        for block in heads:
            part = index[done : done + len(block)]
            result.put(slice(done, done + len(part)), score(part, block))
            done += len(part)
        return result

    def scorer(self, whole: Tensor) -> Callable[[Tensor, Tensor], LooResult]:
        """Return what scores heads against the full-data head `whole`, `(C, D)`.

        The result is called with positions `(B,)` and their heads `(B, C, D)`.
        """
        contrasts = self.model.contrasts
        trained = replace(self.model, theta=contrasts.T @ whole.to(torch.float64))
        posterior, basis = self.build(trained)

        def score(index: Tensor, heads: Tensor) -> LooResult:
            delta = contrasts.T @ (heads.to(torch.float64) - whole.to(torch.float64))
            return self._score(posterior, index, delta if basis is None else delta @ basis)

        return score

    def _heads(self, start: Tensor, index: Tensor, progress: Progress | None) -> Iterator[Tensor]:
        """Yield the full-data head as `(1, C, D)`, then the left-out heads block by block."""
        size = self.block_size()
        blocks = [torch.tensor([-1])] + [index[i : i + size] for i in range(0, len(index), size)]
        total, done = self.settings.epochs * len(blocks), 0

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress("leave-one-out", done, total)

        for block in blocks:
            yield self.trainer.train(start, block.to(start.device), tick)

    def _score(self, posterior: Posterior, index: Tensor, delta: Tensor) -> LooResult:
        model = posterior.model
        x, _, curvature = model.curvature_at(index)
        shift = posterior.new_shift(len(index))
        for block in row_blocks(model, index, delta):
            posterior.add_shift(shift, block.x, block.weight, block.probabilities, block.change)
        terms = posterior.divergence(Removal(index, x, curvature, delta, shift))
        probability, prediction = loo_prediction(model, index, delta)
        unknown = torch.full((len(index),), float("nan"), dtype=torch.float64)
        columns = (terms.mean, terms.covariance, probability, prediction, unknown, unknown)
        return LooResult(*(column.cpu().numpy() for column in columns))
