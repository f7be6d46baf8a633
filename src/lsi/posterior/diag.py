"""The diagonal posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, separable_excess
from lsi.features.design import Design, row_space
from lsi.posterior.base import Posterior, Removal, Sensitivity
from lsi.probes.softmax.math import variances
from lsi.probes.softmax.model import ROWS, SoftmaxModel


class DiagPosterior(Posterior):
    r"""Precision :math:`\mathrm{diag}(P)_{cd} = \sum_j w_j p_{jc}(1 - p_{jc}) x_{jd}^2 + \tau`.

    A diagonal depends on the coordinates: it is always that of the original features and of the weights that
    the probe has (one row a class, or a single one for a sigmoid head: ``model.outputs``).
    """

    name = "diag"
    prices_covariance = True

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        super().__init__(model, prior_precision, basis)
        n_features = model.design.n_features if basis is None else basis.shape[0]
        self.precision = torch.full(
            (len(model.outputs), n_features), prior_precision, dtype=torch.float64, device=model.design.device
        )
        for rows, x in model.design.blocks(ROWS):
            p = model.probabilities(x.to(torch.float64))
            variance = model.weight[rows, None] * variances(p)[:, model.observed]
            self.precision += variance.T @ self.lift(x.to(torch.float64)).square()

    @classmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the samples' span where it is smaller than the feature space."""
        return row_space(design) if design.n_samples < design.n_features else None

    def new_shift(self, n_removed: int) -> Tensor:
        """Return zeros `(B, C, D₀)`, laid out classes first."""
        c, d = self.precision.shape
        shift = torch.zeros((c, n_removed, d), dtype=self.model.design.dtype, device=self.precision.device)
        return shift.transpose(0, 1)

    def add_shift(
        self, shift: Tensor, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor
    ) -> None:
        """Add `Σ_j w_j [p'(1 − p') − p(1 − p)] x_jd²`, written as `Δp (1 − 2p − Δp)`."""
        observed = self.model.observed
        change = change[:, observed]
        variance = ((1.0 - 2.0 * probabilities[:, observed])[:, :, None] - change).mul_(change)
        if not bool((weight == 1).all()):
            variance *= weight[:, None, None]
        shift.transpose(0, 1).flatten(0, 1).addmm_(variance.flatten(1).T, self.lift(x).square())

    def own_curvature(self, index: Tensor) -> Tensor:
        """Return `w p (1 − p)` of each output, `(B, O)`: the whole would be `(B, C', C')`."""
        x, _, p = self.model.residual_at(index)
        return (self.model.weight[index][:, None] * variances(p)[:, self.model.observed]).to(x.dtype)

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the diagonals."""
        x, outputs, variance = self.lift(removal.x), self.model.outputs.to(removal.x.dtype), removal.curvature
        if variance.dim() == 3:
            variance = torch.einsum("cr,brs,cs->bc", outputs, variance, outputs)
        delta = outputs @ self.lift(removal.delta)
        if removal.shift is None:
            covariance = separable_excess(variance, x.square(), self.precision.reciprocal())
            if covariance is not None:
                squares = delta.square_()
                mean = torch.einsum("bcd,cd->b", squares, self.precision.to(x.dtype))
                mean -= (variance * (squares @ x.square()[:, :, None])[:, :, 0]).sum(1)
                return Terms(0.5 * mean.to(torch.float64), 0.5 * covariance)
        change = -variance[:, :, None] * x.square()[:, None, :]
        if removal.shift is not None:
            change = change + removal.shift.to(x.dtype)
        return diag_divergence(self.precision.to(x.dtype).view(-1), change.flatten(1), delta.flatten(1))

    def sensitivity(self, removal: Removal) -> Sensitivity:
        r"""Return `P₂ δ` and `∂KL/∂P₂ = ½ (δ² + 1/P₁ − 1/P₂)`, the latter `(B, C, D₀)`."""
        x, outputs = self.lift(removal.x), self.model.outputs.to(removal.x.dtype)
        variance = torch.einsum("cr,brs,cs->bc", outputs, removal.curvature, outputs)
        first = self.precision.to(x.dtype)
        second = first - variance[:, :, None] * x.square()[:, None, :]
        delta = outputs @ self.lift(removal.delta)
        pull = outputs.T @ self.project(second * delta)
        return Sensitivity(pull, 0.5 * (delta.square() + (second - first) / (first * second)))

    def price(self, sensitivity: Sensitivity) -> Tensor:
        """Return `∂KL/∂P₂` classes first, `(C·B, D₀)`."""
        return sensitivity.curvature.transpose(0, 1).flatten(0, 1)

    def row_price(self, price: Tensor, x: Tensor, probabilities: Tensor, z: Tensor) -> Tensor:
        """Return `(1 − 2 p_c) Σ_d x_d² ∂KL/∂P_cd`."""
        observed = self.model.observed
        out = (self.lift(x).square() @ price.T).view(len(x), -1, z.shape[2])
        out.mul_((1.0 - 2.0 * probabilities[:, observed])[:, :, None])
        if out.shape == z.shape:
            return out
        whole = torch.zeros_like(z)
        whole[:, observed] = out
        return whole

    def row_leverage(self, x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
        """Return `Σ_cd w p_c (1 − p_c) x_d² / P_cd`."""
        share = self.lift(x).square() @ self.precision.reciprocal().T.to(x.dtype)
        return weight.to(x.dtype) * (variances(probabilities)[:, self.model.observed] * share).sum(1)

    def to_dense(self) -> Tensor:
        """Return the diagonal matrix; for tests only."""
        return torch.diag(self.precision.reshape(-1))
