"""The weights after removals, at the optimum, with how far they may be off."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.engine import REFINE_BLOCK, NewtonEngine
from lsi.loo.newton.refine import Refiner
from lsi.loo.newton.sweep import Sweep, sweep
from lsi.posterior.base import Removal
from lsi.posterior.diag import DiagPosterior
from lsi.probes.softmax.model import SoftmaxModel

PRECISION = 1e-4  # certificate that walks end with: of answers it is the square root of K' times that at most
TINY = torch.finfo(torch.float64).tiny


def energy(model: SoftmaxModel, first: FirstOrder) -> Tensor:
    """Return `δᵀ H̄ δ` of first-order steps, `(B,)` float64."""
    delta = first.delta.to(torch.float64)
    z = (delta @ first.x.to(torch.float64)[:, :, None])[:, :, 0]
    # δᵀH₋δ = δ·(g ⊗ x + wd θ), and H̄ has the sample's own curvature on top.
    own = torch.einsum("bk,bkl,bl->b", z, first.curvature.to(torch.float64), z)
    decay = model.weight_decay * (delta.flatten(1) @ model.theta.flatten())
    return ((z * first.residual).sum(1) + decay + own).clamp_min(TINY)


def light(engine: NewtonEngine) -> NewtonEngine:
    """Return the engine with a diagonal posterior, the cheapest metric that steps can be measured in.

    Weights do not depend on the posterior.
    """
    posterior, out = engine.posterior, copy.copy(engine)
    if not isinstance(posterior, DiagPosterior):
        out.posterior = DiagPosterior(engine.model, posterior.prior_precision, posterior.basis)
    return out


class WeightRefiner(Refiner):
    """Refines the weights alone: the posterior is only the metric, and its curvature stays as it is."""

    def _sweep(self, removal: Any, seen: tuple[Tensor, ...], delta: Tensor) -> tuple[Any, Sweep]:
        x, residual, own = seen
        swept = sweep(self.model, removal.index, delta, residual, x, None)
        return Removal(removal.index, x, own, delta), swept

    def _shifted_terms(
        self, part: Any, delta: Tensor, shift: Any, frozen: Terms, size: Tensor, contraction: Tensor
    ) -> tuple[Terms, Tensor]:
        return frozen, torch.zeros_like(size)


class Walker:
    """Walks removals of one engine to their optima.

    Args:
        engine: The engine.
        precision: Certificate that walks end with.
    """

    def __init__(self, engine: NewtonEngine, precision: float = PRECISION) -> None:
        self.solver, posterior = engine.solver, light(engine).posterior
        passes = engine.settings.max_passes
        self._refiner = WeightRefiner(engine.model, engine.solver, posterior, precision, passes)

    def walk(self, index: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield parts of `index` with the weights' changes `(B, C', D)`, and their errors `(B,)`.

        The error is an upper estimate of how far the weights are from their optimum in the metric of the
        curvature, infinite where nothing is known.
        """
        for low in range(0, len(index), REFINE_BLOCK):
            part = slice(low, min(low + REFINE_BLOCK, len(index)))
            first = self.solver.first_order(index[part])
            found = self._refiner.refine(first)
            # The certificate is that of a quadratic form: twice the relative error of the weights.
            yield part, found.delta, 0.5 * found.certificate * energy(self.solver.model, first).sqrt()
