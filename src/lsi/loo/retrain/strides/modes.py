r"""Modes of the curvature: directions of the weights in which training is nearly a scalar recurrence.

In principal coordinates of the features the curvature of the mean loss is close to diagonal, except in the
widest directions, where classes and features are coupled and training is stiff. There it is diagonalised in
full. The rest of the curvature is not lost: it belongs to the forcing of `lsi.loo.retrain.strides.filters`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.probes.softmax.math import contrast_curvature
from lsi.probes.softmax.model import SoftmaxModel

TOP = 288  # weights whose curvature is diagonalised in full
ELEMENTS = 1 << 20  # entries of the curvatures of one block of rows


@dataclass(frozen=True)
class Modes:
    """An orthogonal basis of the weights `(K,)`, feature-major, and the curvature along it.

    Attributes:
        top: Eigenvectors of the curvature of the first T weights, `(T, T)`.
        rate: λ, the curvature along every mode plus the weight decay, float64 `(K,)`.
    """

    top: Tensor
    rate: Tensor

    def into(self, values: Tensor) -> Tensor:
        """Turn weights `(K, B)` into modes, in place."""
        return self._turn(values, self.top.T)

    def back(self, values: Tensor) -> Tensor:
        """Turn modes `(K, B)` into weights, in place."""
        return self._turn(values, self.top)

    def _turn(self, values: Tensor, by: Tensor) -> Tensor:
        values[: len(by)] = by @ values[: len(by)]
        return values


def principal_axes(design: Design) -> Tensor:
    """Return orthonormal axes of the rows, the widest first, float64 `(D, R)` with R = min(N, D)."""
    n, d = design.n_samples, design.n_features
    if n < d:
        return torch.linalg.svd(design.rows(0, n).to(torch.float64), full_matrices=False).Vh.T.contiguous()
    gram = torch.zeros((d, d), dtype=torch.float64, device=design.device)
    for _, x in design.blocks(8192):
        gram.addmm_(x.to(torch.float64).T, x.to(torch.float64))
    return torch.linalg.eigh(gram).eigenvectors.flip(1).contiguous()


def curvature_modes(model: SoftmaxModel, weights: Tensor) -> Modes:
    """Return the modes of the mean loss at some weights. Shapes: model `(N, R)`, weights `(R, C)`."""
    r, c = model.design.n_features, model.contrasts.shape[1]
    wide, like = min(r, max(1, TOP // c)), weights
    contrasts = model.contrasts.to(like.dtype)
    diagonal, top = like.new_zeros((r, c)), like.new_zeros((c, c, wide, wide))
    for rows, x in model.design.blocks(max(64, ELEMENTS // (c * c))):
        curvature = contrast_curvature(torch.softmax(x @ weights, 1), contrasts)
        curvature *= model.weight[rows, None, None].to(like.dtype) / model.n_samples
        diagonal.addmm_(x.square().T, curvature.diagonal(dim1=1, dim2=2))
        for a in range(c):
            for b in range(a + 1):
                top[a, b].addmm_(x[:, :wide].T, x[:, :wide] * curvature[:, a, b, None])
    lower = torch.tril_indices(c, c, -1, device=like.device)
    top[lower[1], lower[0]] = top[lower[0], lower[1]]
    values, vectors = torch.linalg.eigh(top.permute(2, 0, 3, 1).reshape(wide * c, wide * c).to(torch.float64))
    rate = diagonal.reshape(-1).to(torch.float64)
    rate[: wide * c] = values
    return Modes(vectors.to(like.dtype), rate + model.weight_decay)
