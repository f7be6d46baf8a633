r"""What m epochs of momentum descent do to one mode of a gradient that is linear in the weights.

Along an eigenvector of the curvature the gradient is :math:`g_t = \lambda \theta_t + f_t`, and an
epoch of ``torch.optim.SGD`` is :math:`v \leftarrow \mu v + g`, then
:math:`\theta \leftarrow \theta - \eta (g + \mu v)` with Nesterov's momentum,
:math:`\theta \leftarrow \theta - \eta v` without. Where f is a polynomial in t, m epochs are a fixed linear
map of θ, v and the values of f at a few epochs; nothing is approximated in the momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lsi.methods import Retrain


@dataclass(frozen=True)
class Filter:
    """Coefficients of a stride for K modes, columns for θ, v and every value of f: `(K, 2 + n)` each.

    Attributes:
        weights: Of the weights after the stride.
        velocity: Of the velocity after the stride.
    """

    weights: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Responses:
    """Weights and velocity after a stride that began with one of θ, v, or forcings 1, t, t² and so on.

    Attributes:
        weights: `(2 + n, K)`.
        velocity: `(2 + n, K)`.
        epochs: Length of the stride.
    """

    weights: Tensor
    velocity: Tensor
    epochs: int

    @classmethod
    def of(cls, rate: Tensor, epochs: int, degree: int, settings: Retrain) -> Responses:
        """Follow K modes through a stride. Shapes: rate `(K,)`."""
        weights = torch.zeros((3 + degree, len(rate)), dtype=torch.float64, device=rate.device)
        velocity = torch.zeros_like(weights)
        weights[0] = velocity[1] = 1.0
        for epoch in range(epochs):
            gradient = weights * rate
            for power in range(degree + 1):
                gradient[2 + power] += (epoch / epochs) ** power
            velocity.mul_(settings.momentum).add_(gradient)
            step = gradient.add_(velocity, alpha=settings.momentum) if settings.nesterov else velocity
            weights.sub_(step, alpha=settings.lr)
        return cls(weights, velocity, epochs)

    def at(self, offsets: Sequence[int]) -> Filter:
        """Return the filter for a forcing that is known at some epochs."""
        n = len(offsets)
        times = torch.tensor(offsets, dtype=torch.float64, device=self.weights.device) / self.epochs
        # Row i: coefficients by power of the polynomial that is one at node i and zero at the others.
        lagrange = torch.linalg.inv(times[:, None] ** torch.arange(n, device=times.device)).T

        def columns(response: Tensor) -> Tensor:
            return torch.cat([response[:2], lagrange @ response[2 : 2 + n]]).T.to(torch.float32)

        return Filter(columns(self.weights), columns(self.velocity))
