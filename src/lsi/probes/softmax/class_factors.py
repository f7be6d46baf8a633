"""Cholesky factors of the class blocks from some of the rows: they precondition the fit of many classes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.probes.softmax.blocks import class_blocks
from lsi.probes.softmax.entries import ClassEntries
from lsi.probes.softmax.model import SoftmaxModel

ROWS_A_FEATURE = 4  # entries of each class that a factor is built from, as a multiple of D
SEEN = 4000  # rows from which the number of entries a row is estimated
JITTER = 1e-6  # ridge as a share of a block's mean eigenvalue: with fewer rows than D a block is singular


@dataclass(frozen=True)
class ClassFactors:
    """Cholesky factors of the class blocks `H_c ≈ L_c L_cᵀ`.

    Attributes:
        lower: `L_c`, `(C, D, D)` float32.
    """

    lower: Tensor

    @classmethod
    def of(cls, model: SoftmaxModel, rows_a_feature: int = ROWS_A_FEATURE) -> ClassFactors:
        """Accumulate and factorise the class blocks of rows spread evenly through the data.

        `rows_a_feature`: entries of each class to build a factor from, as a multiple of D.
        """
        part = _part(model, rows_a_feature)
        blocks = class_blocks(part, ClassEntries.of(part))
        for block in blocks:
            double = block.double()
            double.diagonal().add_(part.loo_ridge + JITTER * float(double.diagonal().mean()))
            block.copy_(torch.linalg.cholesky(double))
        return cls(blocks)

    def to_weights(self, free: Tensor) -> Tensor:
        """Return the weights `θ = L⁻ᵀ z` of coordinates z in which the curvature is about one, `(C, D)`."""
        return torch.linalg.solve_triangular(self.lower.mT, free.to(torch.float32)[:, :, None], upper=True)[
            :, :, 0
        ]

    def to_free(self, gradient: Tensor) -> Tensor:
        """Return the gradient `L⁻¹ g` in the coordinates z, `(C, D)`."""
        return torch.linalg.solve_triangular(self.lower, gradient.to(torch.float32)[:, :, None], upper=False)[
            :, :, 0
        ]

    def precondition(self, right: Tensor) -> Tensor:
        """Return `H_c⁻¹ v_c` for `right` of shape `(1, C, D)`."""
        return self.to_weights(self.to_free(right[0]))[None]


def _part(model: SoftmaxModel, rows_a_feature: int) -> SoftmaxModel:
    """Return the model of every s-th row, weighted by s."""
    n = model.n_samples
    entries = ClassEntries.of(_strided(model, max(1, n // SEEN)))
    a_row = max(1.0, entries.count / max(1, min(n, SEEN)))
    wanted = rows_a_feature * model.n_classes * model.design.n_features / a_row
    return _strided(model, max(1, int(n / wanted)))


def _strided(model: SoftmaxModel, stride: int) -> SoftmaxModel:
    if stride == 1:
        return model
    index = torch.arange(0, model.n_samples, stride, device=model.theta.device)
    share = model.n_samples / len(index)
    return replace(
        model,
        design=Design(model.design.take(index), dtype=model.design.dtype, device=model.design.device),
        target=model.target[index],
        weight=model.weight[index] * share,
        weight_decay=model.weight_decay * share,
    )
