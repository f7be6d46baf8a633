"""The full posterior."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lsi.divergence import Terms, full_divergence, low_rank_covariance
from lsi.features.design import Design, row_space
from lsi.posterior.base import Posterior, Removal
from lsi.probes.model import SoftmaxModel


class FullPosterior(Posterior):
    r"""Precision :math:`\sum_j w_j S_j \otimes x_j x_j^\top + \tau I`, dense.

    In the directions that no sample touches (all classes alike, or outside the span of the
    samples) both precisions equal τ and contribute nothing, so that the class-contrast coordinates
    of the model suffice.
    """

    name = "full"
    shift_is_current = True

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        super().__init__(model, prior_precision, basis)
        self.curvature = model.hessian()
        matrix = self.curvature.clone()
        matrix.diagonal().add_(prior_precision)
        self.factor = torch.linalg.cholesky(matrix)
        k, d = model.theta.shape
        inverse = torch.cholesky_inverse(self.factor).view(k, d, k, d)
        self._reach = inverse.permute(1, 0, 2, 3).reshape(d, k * k * d).to(model.design.dtype)

    @classmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the samples' span where it is smaller than the feature space."""
        return row_space(design) if design.n_samples < design.n_features else None

    def new_shift(self, n_removed: int) -> Tensor:
        """Return marks `(B,)`: the shifted curvature is rebuilt at the final weights, not accumulated."""
        return torch.ones(n_removed, dtype=torch.bool)

    def add_shift(
        self, shift: Tensor, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor
    ) -> None:
        """Nothing to add: see `new_shift`."""

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the dense precisions."""
        return self._frozen(removal) if removal.shift is None else self._shifted(removal)

    def _frozen(self, removal: Removal) -> Terms:
        """Return the divergence where the others' curvature stays: a change of rank C − 1."""
        b, k, d = removal.delta.shape
        x = removal.x
        reach = (x @ self._reach).view(b, k * k, d)
        gram = (reach @ x[:, :, None]).view(b, k, k)
        flat = removal.delta.reshape(b, -1)
        quadratic = ((flat @ self.curvature.to(flat.dtype)) * flat).sum(-1, dtype=torch.float64)
        quadratic += self.prior_precision * flat.square().sum(-1, dtype=torch.float64)
        own = torch.einsum("bkd,bd->bk", removal.delta, x)
        quadratic -= torch.einsum("bk,bkl,bl->b", own, removal.curvature, own)
        covariance = low_rank_covariance(removal.curvature, 0.5 * (gram + gram.mT))
        return Terms((0.5 * quadratic).clamp_min(0), covariance)

    def _shifted(self, removal: Removal) -> Terms:
        """Return the divergence with every other sample's curvature at the left-out weights."""
        terms = []
        for index, delta in zip(removal.index, removal.delta.to(torch.float64), strict=True):
            moved = replace(self.model, theta=self.model.theta + delta)
            x, _, s = (part[0].to(torch.float64) for part in moved.curvature_at(index[None]))
            change = self.model.hessian_change(delta) - torch.kron(s, torch.outer(x, x))
            terms.append(full_divergence(self.factor, change[None], delta.reshape(1, -1)))
        return Terms(torch.cat([t.mean for t in terms]), torch.cat([t.covariance for t in terms]))

    def to_dense(self) -> Tensor:
        """Return the dense precision in all classes; for tests only."""
        data = self._classes(self.curvature)
        return data + self.prior_precision * torch.eye(len(data), dtype=data.dtype)
