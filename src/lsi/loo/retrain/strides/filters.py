r"""The effect of m epochs of momentum descent on one mode, where the gradient is linear in the weights.

Along an eigenvector of the curvature with eigenvalue λ the gradient is :math:`g_t = \lambda \theta_t + f_t`.
An epoch of ``torch.optim.SGD`` is :math:`v \leftarrow \mu v + g`, then
:math:`\theta \leftarrow \theta - \eta (g + \mu v)` with Nesterov's momentum, or
:math:`\theta \leftarrow \theta - \eta v` without. If the forcing f is a polynomial in t, then m epochs are a
fixed linear map of θ, v and the values of f at a few epochs, without any approximation of the momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.methods.retrain import Retrain


@dataclass(frozen=True)
class Filter:
    """A stride of K modes as a linear map, with columns for θ, v and n values of f.

    Attributes:
        weights: Coefficients of the weights after the stride, `(K, 2 + n)`.
        velocity: Coefficients of the velocity after the stride, `(K, 2 + n)`.
    """

    weights: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Responses:
    """Weights and velocity after a stride from one unit of θ, of v, or of the forcings 1, t, t², ….

    Attributes:
        weights: Weights after the stride, by what it began with, `(2 + n, K)`.
        velocity: Velocity after the stride, `(2 + n, K)`.
        epochs: Length m of the stride.
    """

    weights: Tensor
    velocity: Tensor
    epochs: int

    @classmethod
    def of(cls, rate: Tensor, epochs: int, degree: int, settings: Retrain) -> Responses:
        """Follow K modes through a stride, epoch by epoch. Shapes: rate λ `(K,)`."""
        theta = torch.zeros((3 + degree, len(rate)), dtype=torch.float64, device=rate.device)
        v = torch.zeros_like(theta)
        theta[0] = v[1] = 1.0
        for epoch in range(epochs):
            g = theta * rate
            for power in range(degree + 1):
                g[2 + power] += (epoch / epochs) ** power
            v.mul_(settings.momentum).add_(g)
            step = g.add_(v, alpha=settings.momentum) if settings.nesterov else v
            theta.sub_(step, alpha=settings.lr)
        return cls(theta, v, epochs)

    def at(self, offsets: Sequence[int]) -> Filter:
        """Return the filter for a forcing that is known at the epochs `offsets`, counted from the start."""
        n = len(offsets)
        times = torch.tensor(offsets, dtype=torch.float64, device=self.weights.device) / self.epochs
        # Row i: coefficients of the polynomial that is one at node i and zero at the others.
        lagrange = torch.linalg.inv(times[:, None] ** torch.arange(n, device=times.device)).T

        def columns(response: Tensor) -> Tensor:
            return torch.cat([response[:2], lagrange @ response[2 : 2 + n]]).T.to(torch.float32)

        return Filter(columns(self.weights), columns(self.velocity))
