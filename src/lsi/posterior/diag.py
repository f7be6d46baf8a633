"""The diagonal posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, separable_excess
from lsi.features.design import Design, row_space
from lsi.posterior.base import Edit, Posterior, Removal, Sensitivity
from lsi.probes.softmax.entries import EntryChange
from lsi.probes.softmax.math import variances
from lsi.probes.softmax.model import ROWS, SoftmaxModel


class DiagPosterior(Posterior):
    r"""Precision :math:`\mathrm{diag}(P)_{cd} = \sum_j w_j p_{jc}(1 - p_{jc}) x_{jd}^2 + \tau`.

    Without sample i, and with the other samples' curvature moved by :math:`\Delta_{cd}`,

    .. math:: \mathrm{diag}(P_2)_{cd} = \mathrm{diag}(P)_{cd} - s_{ic}\, x_{id}^2 + \Delta_{cd},
              \qquad s_{ic} = w_i p_{ic}(1 - p_{ic}).

    A diagonal depends on the coordinates. It is always taken in the original features and in the probe's own
    weights: one row for each class, or a single row for a sigmoid head (``model.outputs``).
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
            s = model.weight[rows, None] * variances(p)[:, model.observed]
            self.precision += s.T @ self.lift(x.to(torch.float64)).square()

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
        dp = change[:, observed]
        ds = ((1.0 - 2.0 * probabilities[:, observed])[:, :, None] - dp).mul_(dp)
        if weight.device.type != "cpu" or not bool((weight == 1).all()):
            ds *= weight[:, None, None]
        shift.transpose(0, 1).flatten(0, 1).addmm_(ds.flatten(1).T, self.lift(x).square())

    def add_entries(self, shift: Tensor, seen: EntryChange) -> None:
        """Add the same of the entries of one block. Every class has an output."""
        square, p = self.lift(seen.x).square(), seen.block.p[:, None]
        ds = (1.0 - 2.0 * p - seen.change).mul_(seen.change).mul_(seen.weight[:, None])
        for c, part in seen.block.segments:
            shift[:, c].addmm_(ds[part].T, square[part])

    def own_curvature(self, index: Tensor) -> Tensor:
        """Return `s = w p (1 − p)` of each output, `(B, O)`, instead of the whole `(B, C', C')`."""
        x, _, p = self.model.residual_at(index)
        return (self.model.weight[index][:, None] * variances(p)[:, self.model.observed]).to(x.dtype)

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the diagonals."""
        x, outputs, s = self.lift(removal.x), self.model.outputs.to(removal.x.dtype), removal.curvature
        if s.dim() == 3:
            s = torch.einsum("cr,brs,cs->bc", outputs, s, outputs)
        delta = outputs @ self.lift(removal.delta)
        if removal.shift is None:
            # P₂ − P₁ = −s x² is a product: both terms come without the B·C·D numbers of the change.
            covariance = separable_excess(s, x.square(), self.precision.reciprocal())
            if covariance is not None:
                delta2 = delta.square_()
                mean = torch.einsum("bcd,cd->b", delta2, self.precision.to(x.dtype))
                mean -= (s * (delta2 @ x.square()[:, :, None])[:, :, 0]).sum(1)
                return Terms(0.5 * mean.to(torch.float64), 0.5 * covariance)
        change = -s[:, :, None] * x.square()[:, None, :]
        if removal.shift is not None:
            change = change + removal.shift.to(x.dtype)
        return diag_divergence(self.precision.to(x.dtype).view(-1), change.flatten(1), delta.flatten(1))

    def divergence_of(self, edit: Edit, joined: bool = False) -> Terms:
        """Return the divergence of the diagonals, in float64."""
        outputs = self.model.outputs
        s = torch.einsum("cr,brs,cs->bc", outputs, edit.curvature, outputs)
        square = self.lift(edit.x.to(torch.float64)).square()
        change = torch.stack([s[rows].T @ square[rows] for rows in edit.bounds])
        if edit.shift is not None:
            change = change + edit.shift
        delta = (outputs @ self.lift(edit.delta.to(torch.float64))).flatten(1)
        before, change = self.precision.view(-1), change.flatten(1)
        if joined:
            return diag_divergence(before + change, -change, delta)
        return diag_divergence(before, change, delta)

    def sensitivity(self, removal: Removal) -> Sensitivity:
        """Return `P₂ δ` and `∂KL/∂P₂ = ½ (δ² + 1/P₁ − 1/P₂)`, the latter `(B, C, D₀)`."""
        x, outputs = self.lift(removal.x), self.model.outputs.to(removal.x.dtype)
        s = torch.einsum("cr,brs,cs->bc", outputs, removal.curvature, outputs)
        p1 = self.precision.to(x.dtype)
        p2 = p1 - s[:, :, None] * x.square()[:, None, :]
        delta = outputs @ self.lift(removal.delta)
        gradient = outputs.T @ self.project(p2 * delta)
        # 1/P₁ − 1/P₂ = (P₂ − P₁) / (P₁ P₂) does not cancel.
        return Sensitivity(gradient, 0.5 * (delta.square() + (p2 - p1) / (p1 * p2)))

    def row_image(self, x: Tensor) -> Tensor:
        """Return the squares of their features, `(B, n, D₀)`."""
        return self.lift(x).square()

    def own_shift(self, image: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor) -> Tensor:
        """Return it, `(B, C, D₀)`."""
        observed = self.model.observed
        dp = change[:, observed]
        ds = (1.0 - 2.0 * probabilities[:, observed] - dp).mul_(dp).mul_(weight[:, None, :])
        return ds @ image

    def shift_products(self, shifts: Tensor) -> Tensor:
        """Return `¼ Σ_cd Δ_a Δ_b / P²`."""
        share = (shifts * self.precision.reciprocal().to(shifts.dtype)).flatten(2)
        return 0.25 * (share @ share.mT).to(torch.float64)

    def row_price(self, sensitivity: Sensitivity, image: Tensor, probabilities: Tensor, z: Tensor) -> Tensor:
        """Return `(1 − 2 p_c) Σ_d x_d² ∂KL/∂P_cd`."""
        observed = self.model.observed
        out = sensitivity.curvature @ image.mT
        out.mul_(1.0 - 2.0 * probabilities[:, observed])
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
