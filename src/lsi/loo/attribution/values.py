r"""What every sample is worth to a validation set: the change of its mean loss at the leave-one-out optimum.

With :math:`\delta_i` the first-order step of a removal, :math:`L` the mean validation loss and
:math:`r_i = \sum_{j \ne i} w_j (\Delta p_j - S_j z_j) \otimes x_j` the gradient that the step leaves,

.. math:: V_i = L(\theta_{-i}) - L(\theta) \approx L(\theta + \delta_i) - L(\theta) - u_i \cdot r_i,
          \qquad u_i = H_{-i}^{-1} \nabla L(\theta)

The first difference is taken in all orders of the softmax. The correction needs no sweep for each sample: to
lowest order, and with :math:`\bar u = \bar H^{-1}\nabla L` for all samples, it is a quadratic form in δ,

.. math:: u \cdot r_i \approx \tfrac12\, \delta_i^\top\, \mathrm{d}H[\bar u]\, \delta_i,

less the sample's own row, whose matrix is built once. What that leaves out is of third order, and is read
from a sample of rows (`RowSample`). What remains in doubt are the spread of that sample, rows that it missed,
and the second step :math:`\varepsilon_i`, which adds at most

.. math:: \|(\nabla^2 L - \mathrm{d}H[\bar u])\,\delta_i\|_{H^{-1}}\,\|\varepsilon_i\|_H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.attribution.bending import bending
from lsi.loo.attribution.queries import Queries
from lsi.loo.attribution.sample import SURPRISE, RowSample
from lsi.loo.attribution.walks import Walker, energy
from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.newton.rows import centred
from lsi.loo.newton.secants import dot
from lsi.system.progress import Progress

WALK_WORK = 1e12  # operations that walking doubtful samples to their optima may take: a few seconds
WALK_SWEEPS = 3.0  # sweeps that a walk takes, each two products with all rows


@dataclass
class Values:
    """Values of n samples, `(n,)` float64 each.

    Attributes:
        loss: Mean validation loss without the sample minus with it, nats.
        accuracy: Validation accuracy without the sample minus with it.
        error: Upper estimate of the absolute error of `loss`, nats.
    """

    loss: Tensor
    accuracy: Tensor
    error: Tensor

    @classmethod
    def empty(cls, n: int) -> Values:
        """Return zeros to be filled."""
        return cls(*torch.zeros((3, n), dtype=torch.float64))

    def put(self, where: slice | Tensor, found: tuple[Tensor, Tensor, Tensor]) -> None:
        """Write the values of some samples."""
        for column, part in zip((self.loss, self.accuracy, self.error), found, strict=True):
            column[where] = part.cpu()

    def doubtful(self, tol: float, most: int) -> Tensor:
        """Return the samples that are not certified to `tol`, those of the largest error first."""
        order = self.error.argsort(descending=True, stable=True)
        return order[~(self.error <= tol * self.loss.abs())[order]][:most]


class Valuer:
    """Finds what samples of one trained head are worth to a validation set.

    Args:
        engine: Of the head.
        queries: The validation rows.
    """

    def __init__(self, engine: NewtonEngine, queries: Queries) -> None:
        self.engine, self.queries = engine, queries
        self.model, self.solver = engine.model, engine.solver
        probes, dtype = self.solver.probes, self.model.design.dtype
        self.gradient = queries.gradient()
        self.adjoint = self.solver.plain(self.gradient[None])[0]
        self.size = float((self.gradient * self.adjoint).sum().clamp_min(0).sqrt())  # ‖∇L‖ in H⁻¹
        self._bending = bending(self.model, self.adjoint)
        # (∇²L − dH[ū]) φ of draws φ of N(0, H⁻¹): their products with δ measure its image in that metric.
        curved = queries.curvature_times(probes).to(dtype).flatten(1) - probes.flatten(1) @ self._bending
        self._turned = curved.T.contiguous()
        self._sample = RowSample(self.model, probes, self.adjoint)

    def all(self, tol: float, progress: Progress | None = None) -> Values:
        """Return the values of all samples, those in doubt walked to their optima as far as is affordable."""
        n = self.model.n_samples
        values = Values.empty(n)
        for low in range(0, n, self.solver.block_size):
            part = slice(low, min(low + self.solver.block_size, n))
            index = torch.arange(part.start, part.stop, device=self.model.design.device)
            values.put(part, self._first(self.solver.first_order(index)))
            if progress is not None:
                progress("values", part.stop, n)
        each = WALK_SWEEPS * 4.0 * n * self.model.theta.numel()
        doubtful = values.doubtful(tol, int(WALK_WORK / each))
        for part, delta, error in Walker(self.engine).walk(doubtful.to(self.model.design.device)):
            self.keep(values, doubtful[part], delta, error)
        return values

    def keep(self, values: Values, where: Tensor, delta: Tensor, error: Tensor) -> None:
        """Write the values at weights that are within `error` of their optima, where they are surer."""
        loss, accuracy = self.queries.mean_change(delta)
        turned = (delta.flatten(1).to(self._turned.dtype) @ self._turned).square().mean(1).sqrt()
        doubt = error.cpu() * (self.size + turned.cpu().to(torch.float64))
        better = doubt < values.error[where]
        picked = (each.cpu()[better] for each in (loss, accuracy, doubt))
        values.put(where[better], tuple(picked))  # type: ignore[arg-type]

    def _first(self, first: FirstOrder) -> tuple[Tensor, Tensor, Tensor]:
        """Return values of first-order steps with their corrections, and their errors, `(B,)` each."""
        delta = first.delta
        loss, accuracy = self.queries.mean_change(delta)
        distance = energy(self.model, first).sqrt()
        pull = self.solver.downdated(first, self.adjoint.to(delta.dtype).repeat(len(delta), 1, 1))
        beyond = self._sample.beyond(first, pull)
        flat = delta.flatten(1)
        lowest = 0.5 * dot(delta, (flat @ self._bending).view(delta.shape)) - self._own(first)
        turned = (flat @ self._turned).square().mean(1).to(torch.float64).sqrt()
        # The metric without the sample is at most 1/(1 − leverage) times that with it.
        stretch = 1.0 / (1.0 - first.leverage.to(torch.float64)).clamp_min(0.05)
        error = (
            (2.0 * SURPRISE) ** 0.5 * beyond.spread
            + beyond.unseen
            + 2.0 * stretch * turned * beyond.length
            + self.engine.floor * self.size * distance
        )
        correction = lowest + beyond.rest
        # Where the step lacks as much as half of itself, no series in it says what: at most ‖∇L‖‖ε‖.
        astray = beyond.length > 0.5 * distance
        correction = torch.where(astray, 0.0, correction)
        error = error + torch.where(astray, self.size * stretch * beyond.length, 0.0)
        return loss - correction, accuracy, error

    def _own(self, first: FirstOrder) -> Tensor:
        """Return the samples' own part of `½ δᵀ dH[ū] δ`, `(B,)` float64."""
        contrasts = self.model.contrasts
        x = first.x.to(torch.float64)
        p = self.model.probabilities(x)
        z = (first.delta.to(torch.float64) @ x[:, :, None])[:, :, 0] @ contrasts.T
        v = x @ (contrasts @ self.adjoint.to(torch.float64)).T
        z, v = (centred(each[:, :, None], p[:, :, None])[:, :, 0] for each in (z, v))
        return 0.5 * self.model.weight[first.index] * (p * v * z.square()).sum(1)
