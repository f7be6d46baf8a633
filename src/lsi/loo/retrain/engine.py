r"""Leave-one-out of a linear probe by training again, by the published protocol.

Every head (one on all samples and one without each left-out sample) starts from the same initial weights and
runs full-batch gradient descent on the mean cross-entropy of its own samples, exactly as ``torch.optim.SGD``
would (`lsi.loo.retrain.heads` has the recursion).

Source: Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lsi.execution.work import Arrays, Tick
from lsi.loo.newton.sweep import row_blocks
from lsi.loo.result import LooResult, loo_prediction
from lsi.loo.retrain.copies import CopiesEngine, Record, Scorer
from lsi.loo.retrain.heads import HeadTrainer, initial_weights
from lsi.loo.retrain.plain import train_plainly
from lsi.loo.retrain.strides.choice import Strides, Wholes
from lsi.methods.retrain import Retrain
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.progress import Progress

MOST_WORK = 1e14  # operations of a block, at most
FEWEST = 32  # heads of a block, at least, whatever their work
TENSORS = 20  # tensors of the size of all heads that strides hold at once


class RetrainEngine(CopiesEngine):
    """Leave-one-out scores of a linear probe by the published protocol.

    Gradients sum to zero over the classes, so that class contrasts describe a difference of heads completely.

    Args:
        model: Untrained model in original coordinates, in the type to train in.
        build: `build(model)` returns the posterior of a trained model and the basis of its coordinates, None
            for the original ones.
        settings: The protocol.
        fit_intercept: Whether the last column of the design is the intercept.
        block: Heads to train together; None: as `block_size` says.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        build: Callable[[SoftmaxModel], tuple[Posterior, Tensor | None]],
        settings: Retrain,
        fit_intercept: bool,
        block: int | None = None,
    ) -> None:
        super().__init__(settings, model.design.device, block)
        self.model, self.build, self.fit_intercept = model, build, fit_intercept
        self.trainer, self.strides = HeadTrainer(model, settings), Strides(model, settings)

    def start(self, seed: int) -> Tensor:
        """Return the initial head `(C, D)`."""
        d = self.model.design.n_features - int(self.fit_intercept)
        return initial_weights(seed, d, self.model.n_classes, self.fit_intercept)

    def block_size(self) -> int:
        """Return how many heads to train together.

        Enough to fill the matrix products, within bounds on memory and on the work lost by an interruption.
        """
        c, d = self.model.n_classes, self.model.design.n_features
        bearable = int(MOST_WORK / (4.0 * self.model.n_samples * d * c * self.settings.epochs))
        fitting = min(256, (256 << 20) // (4 * c * max(TENSORS * d, 1024)))
        return max(1, min(fitting, max(FEWEST, bearable)))

    def train(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        tick: Callable[[], None] | None,
        record: Record | None,
    ) -> Tensor:
        """Return trained heads `(B, C, D)`, every epoch of each computed."""
        return self.trainer.train(start, index, tick, record)

    def train_along(
        self,
        wholes: Wholes,
        index: Tensor,
        seed: int,
        tick: Tick,
        record: Record | None,
    ) -> Tensor:
        """Return trained heads `(B, C, D)`: in strides if `train_whole` returned the initial weights too."""
        if 0 not in wholes:
            return super().train_along(wholes, index, seed, tick, record)
        heads, doubtful = self.strides.train(wholes, index, tick, record)
        again = doubtful.nonzero()[:, 0]
        if not len(again):
            return heads
        if record is not None and self.settings.record_every is not None:
            # The scores of a recorded epoch must not mix both kinds of heads.
            again = torch.arange(len(index), device=index.device)
        every = self.train(self.start(seed).to(self.device), index[again], seed, None, record)
        heads[again] = every.to(heads.dtype)
        return heads

    def train_whole(self, seed: int, index: Tensor, progress: Progress | None = None) -> Arrays:
        """Return the weights of the full-data head by epoch, at all nodes if heads may go in strides."""
        if not self.strides.grids(len(index)):
            return super().train_whole(seed, index, progress)
        start = self.start(seed).to(self.device)
        wholes = self.strides.choose(start, index, seed, self.trainer, self.scorer, progress)
        return {str(epoch): whole for epoch, whole in wholes.items()}

    def train_plainly(self, seed: int, left_out: int | None) -> Tensor:
        """Return one head `(C, D)`."""
        model = self.model
        x = model.design.rows(0, model.n_samples)
        layer = torch.nn.Linear(x.shape[1], model.n_classes, bias=False, device=x.device, dtype=x.dtype)
        with torch.no_grad():
            layer.weight.copy_(self.start(seed))
        weight = model.weight.to(x.dtype)
        train_plainly(layer, x, model.target, weight, self.settings, model.weight_decay, seed, left_out)
        return layer.weight.detach()

    def scorer(self, whole: Tensor) -> Scorer:
        """Return the function that scores heads against the full-data head `whole`, `(C, D)`."""
        contrasts = self.model.contrasts
        trained = replace(self.model, theta=contrasts.T @ whole.to(torch.float64))
        posterior, basis = self.build(trained)

        def score(index: Tensor, heads: Tensor) -> LooResult:
            delta = contrasts.T @ (heads.to(torch.float64) - whole.to(torch.float64))
            return self._score(posterior, index, delta if basis is None else delta @ basis)

        return score

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
