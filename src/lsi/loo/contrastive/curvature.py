r"""Curvature of the summed InfoNCE loss: dense Gauss-Newton matrix and Hessian, and its diagonal.

Through the logits :math:`s_{jk}`, with φ_j and ψ_j the normalisers of row and column j,

.. math:: \mathrm{GGN} = \sum_{jk} \omega_{jk} \nabla s_{jk} \nabla s_{jk}^\top
          - \tfrac12 \sum_j \nabla\varphi_j \nabla\varphi_j^\top
          - \tfrac12 \sum_j \nabla\psi_j \nabla\psi_j^\top, \qquad
          H = \mathrm{GGN} + \sum_{jk} (\omega - I)_{jk} \nabla^2 s_{jk} .

All pairs enter, each as an anchor twice and as a candidate of all others; nothing is sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.state import Side, both_sides


def normaliser_gradients(one: Side, other: Side) -> tuple[Tensor, Tensor]:
    """Return the gradients ∇φ_j and ∇ψ_j by both heads, each `(n, K)`."""
    row_left = one.anchor_means()[:, :, None] * one.x[:, None, :]
    column_right = other.anchor_means()[:, :, None] * other.x[:, None, :]
    row = torch.cat([row_left.flatten(1), other.candidate_means().flatten(1)], 1)
    return row, torch.cat([one.candidate_means().flatten(1), column_right.flatten(1)], 1)


def dense_curvature(model: PairModel, theta: Tensor, *, newton: bool, dtype: torch.dtype) -> Tensor:
    """Return the Gauss-Newton matrix of the summed loss, or its Hessian, `(K, K)`. Shapes: theta `(K,)`."""
    total, k = torch.zeros(len(theta), len(theta), dtype=dtype), model.n_left
    for rows in model.parts():
        one, other = both_sides(model, theta, rows, dtype)
        for gradients in normaliser_gradients(one, other):
            total.addmm_(gradients.T, gradients, alpha=-0.5)
        _add_own(total[:k, :k], one, newton)
        _add_own(total[k:, k:], other, newton)
        total[:k, k:] += _cross(one, other, newton)
    total[k:, :k] = total[:k, k:].T
    return total


def _add_own(block: Tensor, side: Side, newton: bool) -> None:
    """Add `Σ_j m_j ⊗ x_j x_jᵀ` to a head's diagonal block `(d·D, d·D)`."""
    own = side.outer(side.mean)
    if newton:
        own += side.bending()
    d, features = side.unit.shape[1], side.x.shape[1]
    view = block.view(d, features, d, features) if block.is_contiguous() else None
    for c in range(d):
        for e in range(c, d):
            part = (side.x * own[:, c, e, None]).T @ side.x
            for a, b in {(c, e), (e, c)}:
                at = slice(a * features, (a + 1) * features), slice(b * features, (b + 1) * features)
                if view is not None:
                    view[a, :, b] += part
                else:
                    block[at] += part


def _cross(one: Side, other: Side, newton: bool) -> Tensor:
    """Return the block between left and right head, `(K1, K2)`, without the normalisers' part."""
    d, scales = one.unit.shape[1], one.scale * other.scale.T
    curved = one.mean * scales
    residual = torch.zeros_like(curved)
    if newton:
        residual = curved.clone()
        residual.diagonal().sub_(scales.diagonal())
        residual *= one.temperature
    x, y = one.x, other.x
    ux = (one.unit[:, :, None] * x[:, None, :]).flatten(1)
    vy = (other.unit[:, :, None] * y[:, None, :]).flatten(1)
    shape = (d, x.shape[1], d, y.shape[1])
    # a_jk b_jkᵀ has four products: v_k u_jᵀ and u_j v_kᵀ here, −u_j u_jᵀ and −v_k v_kᵀ below
    total = (ux.T @ (curved @ vy)).view(shape).transpose(0, 2).contiguous()
    total += (ux.T @ ((curved * one.cosine.square() + residual * one.cosine) @ vy)).view(shape)
    mixed = curved * one.cosine + residual
    seen_x, seen_y = mixed.T @ x, mixed @ y
    for c in range(d):
        for e in range(c, d):
            part = (x * (one.unit[:, c] * one.unit[:, e])[:, None]).T @ seen_y
            part += seen_x.T @ (y * (other.unit[:, c] * other.unit[:, e])[:, None])
            for a, b in {(c, e), (e, c)}:
                total[a, :, b] -= part
    if newton:
        straight = x.T @ (residual @ y)
        for c in range(d):
            total[c, :, c] += straight
    return total.reshape(d * x.shape[1], d * y.shape[1])


def diagonal(model: PairModel, theta: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the diagonal of the Gauss-Newton matrix, `(K,)`."""
    total = torch.zeros(len(theta), dtype=dtype)
    for rows in model.parts():
        heads = []
        for side in both_sides(model, theta, rows, dtype):
            own = side.squares(side.mean) - 0.5 * side.anchor_means().square()
            heads.append((own.T @ side.x.square() - 0.5 * side.candidate_means().square().sum(0)).flatten())
        total += torch.cat(heads)
    return total


def output_curvature(model: PairModel, theta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return for each head the mean over pairs of their own blocks, `(d, d)`: its output Kronecker factor."""
    d = model.dim
    totals = torch.zeros(2, d, d, dtype=dtype)
    for rows in model.parts():
        for total, side in zip(totals, both_sides(model, theta, rows, dtype), strict=True):
            total += side.own_curvature().sum(0)
    totals /= model.n_pairs
    return totals[0], totals[1]
