r"""L-BFGS for many objectives at once: each step tells the curvature along itself to the next ones.

Source: Nocedal, *Updating quasi-Newton matrices with limited storage*, 1980 (the two-loop recursion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

MEMORY = 8  # pairs kept; most walks take three steps


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each of B tensors, `(B,)` float64. Shapes: `(B, C', D)`."""
    a, b = a.flatten(1), b.flatten(1)
    return torch.bmm(a[:, None, :], b[:, :, None])[:, 0, 0].to(torch.float64)


@dataclass
class Secants:
    """The last steps s of B walks with the changes y of their gradients, and `1 / sᵀy`."""

    pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a step and the change of the gradient along it, `(B, C', D)` each."""
        curved = dot(step, change)
        # A convex objective curves upwards; where rounding says otherwise the pair counts for nothing.
        scale = torch.where(curved > 0, 1.0 / curved, 0.0).nan_to_num(0.0, 0.0, 0.0)
        self.pairs = [*self.pairs[-MEMORY + 1 :], (step, change, scale)]

    def select(self, keep: Tensor) -> Secants:
        """Return the walks picked by a mask or an index."""
        return Secants([(s[keep], y[keep], scale[keep]) for s, y, scale in self.pairs])

    def solve(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `H⁻¹ gradient` as the pairs and a rough inverse know it, `(B, C', D)`."""
        right, taken = gradient.clone(), []
        for s, y, scale in reversed(self.pairs):
            taken.append((scale * dot(s, right)).to(right.dtype)[:, None, None])
            right.addcmul_(y, taken[-1], value=-1.0)
        step = precondition(right)
        for (s, y, scale), back in zip(self.pairs, reversed(taken), strict=True):
            step.addcmul_(s, back - (scale * dot(y, step)).to(step.dtype)[:, None, None])
        return step
