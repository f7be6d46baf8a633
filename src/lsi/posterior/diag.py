"""The diagonal posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence
from lsi.features.design import Design, row_space
from lsi.posterior.base import Posterior, Removal
from lsi.probes.model import ROWS, SoftmaxModel


class DiagPosterior(Posterior):
    r"""Precision :math:`\mathrm{diag}(P)_{cd} = \sum_j w_j p_{jc}(1 - p_{jc}) x_{jd}^2 + \tau`.

    A diagonal depends on the coordinates: it is always that of the original features and classes.
    """

    name = "diag"

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        super().__init__(model, prior_precision, basis)
        n_features = model.design.n_features if basis is None else basis.shape[0]
        self.precision = torch.full(
            (model.n_classes, n_features), prior_precision, dtype=torch.float64, device=model.design.device
        )
        for rows, x in model.design.blocks(ROWS):
            p = model.probabilities(x.to(torch.float64))
            variance = model.weight[rows, None] * p * (1.0 - p)
            self.precision += variance.T @ self.lift(x.to(torch.float64)).square()

    @classmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the samples' span where it is smaller than the feature space."""
        return row_space(design) if design.n_samples < design.n_features else None

    def new_shift(self, n_removed: int) -> Tensor:
        """Return zeros `(B, C, D₀)`."""
        c, d = self.precision.shape
        return torch.zeros((n_removed, c, d), dtype=self.model.design.dtype, device=self.precision.device)

    def add_shift(
        self, shift: Tensor, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor
    ) -> None:
        """Add `Σ_j w_j [p'(1 − p') − p(1 − p)] x_jd²`, written as `Δp (1 − 2p − Δp)`."""
        variance = change * (1.0 - 2.0 * probabilities[:, None, :] - change) * weight[:, None, None]
        n, b, c = change.shape
        shift += (variance.view(n, b * c).T @ self.lift(x).square()).view(b, c, -1)

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the diagonals."""
        x, contrasts = self.lift(removal.x), self.model.contrasts.to(removal.x.dtype)
        variance = torch.einsum("cr,brs,cs->bc", contrasts, removal.curvature, contrasts)
        change = -variance[:, :, None] * x.square()[:, None, :]
        if removal.shift is not None:
            change = change + removal.shift
        delta = contrasts @ self.lift(removal.delta)
        return diag_divergence(self.precision.to(x.dtype).view(-1), change.flatten(1), delta.flatten(1))

    def to_dense(self) -> Tensor:
        """Return the diagonal matrix; for tests only."""
        return torch.diag(self.precision.reshape(-1))
