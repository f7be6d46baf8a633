"""Preconditioned conjugate gradients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lsi.system.device import ready

Operator = Callable[[Tensor], Tensor]


def conjugate_gradients(
    operator: Operator, precondition: Operator, right: Tensor, goal: float = 1e-6, limit: int = 200
) -> Tensor:
    r"""Return `x = H⁻¹ b` for symmetric positive definite H, until `rᵀ M r` has shrunk to a share `goal`.

    With the preconditioner M, starting from x = 0, r = b and d = z = M r:

    .. math:: \alpha = \frac{r^\top z}{d^\top H d}, \quad x \leftarrow x + \alpha d, \quad
              r \leftarrow r - \alpha H d, \quad z \leftarrow M r, \quad
              d \leftarrow z + \frac{r^\top z}{r_{\mathrm{old}}^\top z_{\mathrm{old}}}\, d

    Each right-hand side stops when it has converged, so that its solution does not depend on the others.

    Source: Hestenes, Stiefel, *Methods of Conjugate Gradients for Solving Linear Systems*, 1952.

    Shapes: operator H and precondition M `(B, C, D) → (B, C, D)`, right b `(B, C, D)`.
    """
    tiny = torch.finfo(right.dtype).tiny
    x, r = torch.zeros_like(right), right.clone()
    z = precondition(r)
    d = z.clone()
    rz = (r * z).sum((1, 2))
    enough = rz * goal
    active = torch.ones_like(rz, dtype=torch.bool)
    for step in range(limit):
        h_d = operator(d)
        d_h_d = (d * h_d).sum((1, 2))
        alpha = torch.where(active & (d_h_d > 0), rz / d_h_d.clamp_min(tiny), 0.0)
        x += alpha[:, None, None] * d
        r -= alpha[:, None, None] * h_d
        z = precondition(r)
        new_rz = (r * z).sum((1, 2))
        active &= ~(new_rz <= enough)
        if ready(~active.any(), step):
            break
        beta = torch.where(rz > 0, new_rz / rz.clamp_min(tiny), 0.0)
        d = z + beta[:, None, None] * d
        rz = new_rz
    return x
