"""The `Newton` engine: first-order removals by blocks, refinement where it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.refine import Refined, Refiner
from lsi.loo.newton.settings import Newton
from lsi.loo.result import LooResult
from lsi.posterior.base import Posterior, Removal
from lsi.probes.fit import Curvature
from lsi.probes.model import SoftmaxModel

Progress = Callable[[str, int, int], None]


class NewtonEngine:
    """Leave-one-out optima of one trained probe.

    Args:
        model: The trained probe.
        curvature: Its factorised curvature.
        posterior: The posterior that scores are taken of.
        settings: Tolerance and limits.
    """

    def __init__(
        self, model: SoftmaxModel, curvature: Curvature, posterior: Posterior, settings: Newton
    ) -> None:
        self.model, self.posterior, self.settings = model, posterior, settings
        self.solver = DenseSolver(model, curvature)
        self.start = model.objective_and_gradient(model.theta)[1]
        self._refiner: Refiner | None = None
        if settings.tol is not None:
            self._refiner = Refiner(
                model, self.solver, posterior, self.start, settings.tol, settings.max_passes
            )

    def block_size(self) -> int:
        """Return how many samples one block holds, from the memory of its largest tensor."""
        k, d = self.model.theta.shape
        return int(max(1, min(128, (64 << 20) // (k * k * d * 8))))

    def run(self, index: Tensor, progress: Progress | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order."""
        result = LooResult.empty(len(index))
        size = self.block_size()
        for start in range(0, len(index), size):
            part = index[start : start + size]
            result.put(slice(start, start + len(part)), self.block(part))
            if progress is not None:
                progress("leave-one-out", start + len(part), len(index))
        return result

    def block(self, index: Tensor) -> LooResult:
        """Return the result of one block."""
        first = self.solver.first_order(index)
        if self._refiner is not None:
            return self._result(first, self._refiner.refine(first))
        terms = self.posterior.divergence(Removal(first.index, first.x, first.curvature, first.delta))
        unknown = torch.full((len(index),), float("nan"), dtype=torch.float64)
        return self._result(first, Refined(first.delta, terms, unknown))

    def _result(self, first: FirstOrder, refined: Refined) -> LooResult:
        probability, prediction = loo_prediction(self.model, first.index, refined.delta)
        columns = (
            refined.terms.mean,
            refined.terms.covariance,
            probability,
            prediction,
            first.leverage,
            refined.certificate,
        )
        return LooResult(*(column.cpu().numpy() for column in columns))


def loo_prediction(model: SoftmaxModel, index: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label's probability and the likeliest class of each left-out sample, `(B,)` each.

    Args:
        model: The full-data model.
        index: Left-out positions.
        delta: Change of the weights without each, `(B, C', D)`.
    """
    x = model.design.take(index).to(torch.float64)
    logits = x @ model.theta.T + (delta.to(torch.float64) @ x[:, :, None])[:, :, 0]
    p = torch.softmax(logits @ model.contrasts.T, -1)
    return p.gather(1, model.target[index][:, None])[:, 0], p.argmax(-1)
