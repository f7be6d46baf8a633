"""Linear heads trained by the published protocol, many at a time, every epoch of every head."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.loo.retrain.copies import Record
from lsi.probes.softmax.model import SoftmaxModel

if TYPE_CHECKING:
    from lsi.methods import Retrain


def initial_weights(seed: int, n_inputs: int, n_classes: int, fit_intercept: bool) -> Tensor:
    """Return the weights of a fresh ``torch.nn.Linear``, `(C, D)` with the intercept last, float32."""
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

    def train(
        self,
        start: Tensor,
        index: Tensor,
        tick: Callable[[], None] | None = None,
        record: Record | None = None,
        at: Collection[int] | None = None,
    ) -> Tensor:
        """Return the trained heads `(B, C, D)`. Shapes: start `(C, D)`, index `(B,)`."""
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
            if record is not None and (s.records(epoch + 1) if at is None else epoch + 1 in at):
                record(epoch + 1, weights.view(-1, c, b).permute(2, 1, 0).contiguous())
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
