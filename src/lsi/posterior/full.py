"""The full posterior."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lsi.divergence import Terms, full_divergence, low_rank_covariance
from lsi.features.design import Design, row_space
from lsi.posterior.base import Edit, Posterior, Removal, Sensitivity
from lsi.probes.softmax.model import SoftmaxModel

# If the penalty exceeds the prior by more than this, `δᵀH₋δ − λ‖δ‖²` loses its digits in float32.
RIDGE_LIMIT = 100.0


class FullPosterior(Posterior):
    r"""Precision :math:`\sum_j w_j S_j \otimes x_j x_j^\top + \tau I`, dense.

    Without sample i it loses a matrix of rank C − 1:

    .. math:: P_2 = P_1 - E_i S_i E_i^\top + \sum_{j \ne i} w_j\, \Delta S_j \otimes x_j x_j^\top,
              \qquad E_i = I \otimes x_i,

    where :math:`\Delta S_j` is the change of the other samples' curvature at :math:`\theta + \delta`.

    In directions that no sample touches (all classes alike, or outside the span of the samples) both
    precisions equal τ and contribute nothing, so that the model's class-contrast coordinates are enough.
    """

    name = "full"
    shift_is_current = True
    # The precision is itself a float32 sum, in which rows of a large scale cost the others digits.
    float32_floor = 6e-4

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        super().__init__(model, prior_precision, basis)
        self.curvature = model.hessian()
        matrix = self.curvature.clone()
        matrix.diagonal().add_(prior_precision)
        self.factor = torch.linalg.cholesky(matrix)
        self._inverse = torch.cholesky_inverse(self.factor).to(model.design.dtype)
        self._data_curvature = self.curvature.to(model.design.dtype)

    @classmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the samples' span where it is smaller than the feature space."""
        return row_space(design) if design.n_samples < design.n_features else None

    def new_shift(self, n_removed: int) -> Tensor:
        """Return a placeholder `(B,)`: `divergence` itself computes the shifted curvature."""
        return torch.ones(n_removed, dtype=torch.bool, device=self.factor.device)

    def add_shift(
        self, shift: Tensor, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor
    ) -> None:
        """Nothing to add: see `new_shift`."""

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the dense precisions."""
        return self._frozen(removal) if removal.shift is None else self._shifted(removal)

    def _frozen(self, removal: Removal) -> Terms:
        """Return the divergence with the other samples' curvature kept: a change of rank C − 1."""
        mean = (0.5 * self._quadratic(removal)).clamp_min(0)
        return Terms(mean, low_rank_covariance(removal.curvature, self._gram(removal.x)))

    def _quadratic(self, removal: Removal) -> Tensor:
        """Return `δᵀ P₂ δ` with the other samples' curvature kept, `(B,)`."""
        model, tau, delta = self.model, self.prior_precision, removal.delta
        delta_x = torch.einsum("bkd,bd->bk", delta, removal.x)
        flat = delta.flatten(1)
        norm = flat.square().sum(1, dtype=torch.float64)
        if removal.residual is not None and model.loo_ridge <= RIDGE_LIMIT * tau:
            # P₂ = H₋ − λ₋I + τI, and H₋ δ = g ⊗ x + wd θ for the first-order step.
            theta_delta = (flat @ model.theta.reshape(-1).to(delta.dtype)).to(torch.float64)
            g_delta = (delta_x * removal.residual).sum(1, dtype=torch.float64)
            return g_delta + model.weight_decay * theta_delta + (tau - model.loo_ridge) * norm
        # P₂ = Σ_j w_j S_j ⊗ x_j x_jᵀ − S_i ⊗ x_i x_iᵀ + τI.
        quadratic = ((flat @ self._data_curvature) * flat).sum(-1, dtype=torch.float64)
        quadratic -= torch.einsum("bk,bkl,bl->b", delta_x, removal.curvature, delta_x)
        return quadratic + tau * norm

    def _gram(self, x: Tensor) -> Tensor:
        """Return `E_iᵀ P₁⁻¹ E_i`, `(B, C', C')`, from the lower class blocks of the inverse."""
        k, d = self.model.theta.shape
        gram = x.new_empty((len(x), k, k))
        for r in range(k):
            reach = x @ self._inverse[r * d : (r + 1) * d, : (r + 1) * d]
            gram[:, r, : r + 1] = (reach.view(len(x), r + 1, d) @ x[:, :, None])[:, :, 0]
            gram[:, : r + 1, r] = gram[:, r, : r + 1].clone()  # the two overlap
        return gram

    def _shifted(self, removal: Removal) -> Terms:
        """Return the divergence with the other samples' curvature at `θ + δ`."""
        terms = []
        for index, delta in zip(removal.index, removal.delta.to(torch.float64), strict=True):
            moved = replace(self.model, theta=self.model.theta + delta)
            x, _, s = (part[0].to(torch.float64) for part in moved.curvature_at(index[None]))
            change = self.model.hessian_change(delta) - torch.kron(s, torch.outer(x, x))
            terms.append(full_divergence(self.factor, change[None], delta.reshape(1, -1)))
        return Terms(torch.cat([t.mean for t in terms]), torch.cat([t.covariance for t in terms]))

    def divergence_of(self, edit: Edit, joined: bool = False) -> Terms:
        """Return the divergence of the dense precisions; the mean term alone where there is no shift."""
        delta, x = edit.delta.to(torch.float64), edit.x.to(torch.float64)
        if edit.shift is None and not joined:
            own = torch.cat([x[rows] @ step.T for step, rows in zip(delta, edit.bounds, strict=True)])
            priced = torch.einsum("rk,rkl,rl->r", own, edit.curvature, own)
            lost = torch.stack([priced[rows].sum() for rows in edit.bounds])
            mean = 0.5 * ((delta.flatten(1) @ self.factor).square().sum(1) + lost)
            return Terms(mean.clamp_min(0), torch.zeros_like(mean))
        terms = []
        for step, rows in zip(delta, edit.bounds, strict=True):
            change = _summed(edit.curvature[rows], x[rows])
            if edit.shift is not None:
                change += self.model.hessian_change(step)
            factor = self.factor
            if joined:
                factor = torch.linalg.cholesky(factor @ factor.mT + change)
                change = -change
            terms.append(full_divergence(factor, change[None], step.reshape(1, -1)))
        return Terms(torch.cat([t.mean for t in terms]), torch.cat([t.covariance for t in terms]))

    def sensitivity(self, removal: Removal) -> Sensitivity:
        """Return `P₂ δ`; the price of curvature, `½ zᵀ ΔS z`, needs the rows' logits only."""
        delta, x = removal.delta, removal.x
        b, k, d = delta.shape
        p1_delta = (delta.reshape(b, -1) @ self._data_curvature).view(b, k, d) + self.prior_precision * delta
        lost = (removal.curvature @ (delta @ x[:, :, None])) * x[:, None, :]  # (S_i ⊗ x xᵀ) δ
        return Sensitivity(p1_delta - lost, delta.new_empty(0))

    def row_price(self, sensitivity: Sensitivity, image: Tensor, probabilities: Tensor, z: Tensor) -> Tensor:
        """Return `½ z_c²`, z centred: `Σ_c Δp_c ½ z_c² = ½ zᵀ ΔS z` to first order.

        The effect of a changed curvature on the covariance term is of second order and left out.
        """
        return z.square().mul_(0.5)

    def row_leverage(self, x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
        """Return zeros: a row's share of this posterior is its leverage in the fit."""
        return torch.zeros_like(probabilities[:, 0])

    def draws(self, count: int) -> Tensor:
        """Return draws of N(0, P₁⁻¹), `(count, C', D)`."""
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn((len(self.factor), count), generator=generator, dtype=torch.float64)
        draws = torch.linalg.solve_triangular(self.factor.mT, normal.to(self.factor.device), upper=True)
        return draws.T.reshape(count, *self.model.theta.shape).to(self.model.design.dtype)

    def to_dense(self) -> Tensor:
        """Return the dense precision in all classes; for tests only."""
        data = self._classes(self.curvature)
        return data + self.prior_precision * torch.eye(len(data), dtype=data.dtype)


def _summed(curvature: Tensor, x: Tensor) -> Tensor:
    """Return `Σ_r S_r ⊗ x_r x_rᵀ`, `(K', K')`. Shapes: curvature `(R, C', C')`, x `(R, D)`."""
    k, d = curvature.shape[1], x.shape[1]
    out = x.new_empty((k, d, k, d))
    for a in range(k):
        for b in range(a + 1):
            out[a, :, b] = (x * curvature[:, a, b, None]).T @ x
            out[b, :, a] = out[a, :, b]
    return out.view(k * d, k * d)
