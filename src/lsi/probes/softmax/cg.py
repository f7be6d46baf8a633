"""Preconditioned conjugate gradients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def conjugate_gradients(
    operator: Operator, precondition: Operator, right: Tensor, goal: float = 1e-6, limit: int = 200
) -> Tensor:
    """Return `H⁻¹ right` for symmetric positive definite H, to a share `goal` of the squared residual.

    Each right-hand side stops where it has arrived, so that its solution does not depend on the others.

    Shapes: operator `(B, C, D) → (B, C, D)`, right `(B, C, D)`.
    """
    solution, remainder = torch.zeros_like(right), right.clone()
    z = precondition(remainder)
    direction = z.clone()
    energy = (remainder * z).sum((1, 2))
    aim = energy * goal
    under_way = torch.ones_like(energy, dtype=torch.bool)
    for _ in range(limit):
        image = operator(direction)
        curvature = (direction * image).sum((1, 2))
        tiny = torch.finfo(right.dtype).tiny
        alpha = torch.where(under_way & (curvature > 0), energy / curvature.clamp_min(tiny), 0.0)
        solution += alpha[:, None, None] * direction
        remainder -= alpha[:, None, None] * image
        z = precondition(remainder)
        updated = (remainder * z).sum((1, 2))
        under_way &= ~(updated <= aim)
        if not bool(under_way.any()):
            break
        beta = torch.where(energy > 0, updated / energy.clamp_min(tiny), 0.0)
        direction = z + beta[:, None, None] * direction
        energy = updated
    return solution
