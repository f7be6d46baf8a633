"""The Kronecker-factored posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.divergence import KronFactors, KronPrecision, Terms, kron_divergence, kron_factor_divergence
from lsi.errors import InputError
from lsi.features.design import Design
from lsi.posterior.base import EPS, LOST, Edit, Posterior, Removal, Sensitivity
from lsi.probes.softmax.entries import EntryChange
from lsi.probes.softmax.math import variances
from lsi.probes.softmax.model import ROWS, SoftmaxModel
from lsi.system.device import add_rows


class KronPosterior(Posterior):
    r"""Precision :math:`B \otimes A + \tau I` with the factors of K-FAC.

    .. math:: B = \frac1N \sum_j w_j S_j, \qquad A = \sum_j x_j x_j^\top

    Without sample i both factors lose it:

    .. math:: B_2 = \frac{1}{N-1}\sum_{j \ne i} w_j S_j
              = B + \frac{B - w_i S_i + \sum_{j \ne i} w_j \Delta S_j}{N - 1}, \qquad A_2 = A - x_i x_i^\top,

    with :math:`\Delta S_j` the change of the other samples' curvature. The prior is part of the precision and
    is never factored.

    The model must be in the eigenbasis of A, which `coordinates` returns. A linear probe with an isotropic
    penalty is not affected by a rotation of its features.
    """

    name = "kron"
    prices_covariance = True

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        super().__init__(model, prior_precision, basis)
        c, d, device = model.n_classes, model.theta.shape[1], model.design.device
        # N B = Σ_j w_j S_j, its diagonal apart: where p rounds to one, p − p² has lost its digits.
        sum_s = torch.zeros((c, c), dtype=torch.float64, device=device)
        diagonal, alpha, longest = sum_s.new_zeros(c), sum_s.new_zeros(d), sum_s.new_zeros(d)
        for rows, x in model.design.blocks(ROWS):
            p, w = model.probabilities(x.to(torch.float64)), model.weight[rows]
            sum_s.addmm_((p * w[:, None]).T, p, alpha=-1.0)
            diagonal += w @ variances(p)
            square = x.to(torch.float64).square()
            alpha += square.sum(0)
            longest = torch.maximum(longest, square.amax(0))
        sum_s.diagonal().copy_(diagonal)
        # B = V diag(β) Vᵀ in class contrasts; A = diag(α) in the model's coordinates.
        b = model.contrasts.T @ sum_s @ model.contrasts / model.n_samples
        beta, self.class_basis = torch.linalg.eigh(b)
        self.precision = KronPrecision(beta.clamp_min(0), alpha, prior_precision)
        self._refuse_lost_rows(longest)

    def _refuse_lost_rows(self, longest: Tensor) -> None:
        """Refuse a row beside which double precision loses the others in A. Shapes: longest `(D,)`."""
        beta, alpha = float(self.precision.class_values.amax()), self.precision.feature_values
        left = beta * (alpha - longest).clamp_min(0) + self.prior_precision
        share = float((left / (beta * alpha + self.prior_precision)).amin())
        self.rounding = max(self.rounding, EPS / share)
        if share < LOST:
            raise InputError(
                f"a row of X is as long as {float(longest.amax()) ** 0.5:.1e}: beside it double precision "
                "loses the other rows in the Kronecker posterior. Standardise the features, clip or drop the "
                "row, or use posterior='diag' or 'full'."
            )

    @classmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the eigenvectors of A, without those of the null space where N < D."""
        gram = torch.zeros((design.n_features,) * 2, dtype=torch.float64, device=design.device)
        for _, x in design.blocks(ROWS):
            block = x.to(torch.float64)
            gram += block.T @ block
        vectors = torch.linalg.eigh(gram)[1].flip(1)
        return vectors[:, : min(design.n_samples, design.n_features)].contiguous()

    def new_shift(self, n_removed: int) -> Tensor:
        """Return zeros `(B, C', C')`."""
        k = len(self.class_basis)
        return torch.zeros((n_removed, k, k), dtype=torch.float64, device=self.class_basis.device)

    def add_shift(
        self, shift: Tensor, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor
    ) -> None:
        """Add `Σ_j w_j ΔS'_j`, with `Δ(p pᵀ) = Δp pᵀ + p Δpᵀ + Δp Δpᵀ`."""
        contrasts = self.model.contrasts.to(change.dtype)
        w_dp = change * weight[:, None, None]
        # diag(Σ_j w_j Δp_j), in contrasts.
        sum_dp = w_dp.sum(0, dtype=torch.float64).T.to(change.dtype)
        shift += torch.einsum("cr,bc,cs->brs", contrasts, sum_dp, contrasts)
        # Σ_j w_j (Δp_j p_jᵀ + p_j Δp_jᵀ + Δp_j Δp_jᵀ), in contrasts.
        w_dp = contrasts.T @ w_dp.permute(2, 1, 0)
        dp_p = w_dp @ (probabilities @ contrasts)
        shift -= dp_p + dp_p.mT + w_dp @ (change.permute(2, 0, 1) @ contrasts)

    def add_entries(self, shift: Tensor, seen: EntryChange) -> None:
        """Add the same of the entries of one block, one left-out model after the other."""
        block, contrasts = seen.block, self.model.contrasts.to(seen.change.dtype)
        classes, weight = block.classes, seen.weight.sqrt()
        rows = torch.zeros((block.n_rows, len(contrasts)), dtype=contrasts.dtype, device=contrasts.device)

        def products(p: Tensor) -> Tensor:
            rows[block.row, classes] = p * weight
            return rows.T @ rows

        same = products(block.p)
        moved = torch.zeros((len(contrasts), seen.change.shape[1]), dtype=torch.float64, device=rows.device)
        add_rows(moved, classes, (seen.change * seen.weight[:, None]).to(torch.float64))
        for b, change in enumerate(seen.change.T):
            after = products(block.p + change)
            shift[b] += contrasts.T @ (torch.diag(moved[:, b]).to(same) + same - after) @ contrasts

    def divergence(self, removal: Removal) -> Terms:
        """Return the divergence of the factored precisions."""
        n, basis = self.model.n_samples, self.class_basis
        # B₂ − B = (B − w_i S_i + Σ_{j≠i} w_j ΔS_j) / (N − 1), in the eigenbasis of B.
        change = -removal.curvature.to(torch.float64)
        if removal.shift is not None:
            change = change + removal.shift
        change = basis.T @ change @ basis / (n - 1)
        change = change + torch.diag(self.precision.class_values) / (n - 1)
        delta = basis.T @ removal.delta.to(torch.float64)
        return kron_divergence(self.precision, change, removal.x.to(torch.float64), delta)

    def divergence_of(self, edit: Edit, joined: bool = False) -> Terms:
        r"""Return the divergence of the factored precisions, in float64.

        .. math:: B_2 = B + \frac{\sum_j w_j \Delta S_j + \sum_r \sigma_r S_r - (n_b - N) B}{n_b}, \qquad
                  A_2 = A + \sum_r \pm x_r x_r^\top
        """
        basis, tau = self.class_basis, self.prior_precision
        beta, alpha = self.precision.class_values, self.precision.feature_values
        x, terms = edit.x.to(torch.float64), []
        for b, rows in enumerate(edit.bounds):
            own = edit.curvature[rows].sum(0)
            own = own if edit.shift is None else own + edit.shift[b].to(torch.float64)
            after = self.model.n_samples + edit.gained[b]
            class_change = (basis.T @ own @ basis - edit.gained[b] * torch.diag(beta)) / after
            feature_change = (x[rows] * edit.sign[rows, None]).T @ x[rows]
            before = KronFactors(torch.diag(beta), torch.diag(alpha))
            change = KronFactors(class_change, feature_change)
            delta = basis.T @ edit.delta[b].to(torch.float64)
            terms.append(kron_factor_divergence(before, change, tau, delta, joined))
        return Terms(torch.stack([t.mean for t in terms]), torch.stack([t.covariance for t in terms]))

    def sensitivity(self, removal: Removal) -> Sensitivity:
        """Return `P₂ δ` and `∂KL/∂B₂ / (N − 1)` in all classes, `(B, C, C)`.

        The mean term's part is `½ δ A₂ δᵀ`; for the covariance term's see `_covariance_slope`.
        """
        dtype, contrasts, n = removal.x.dtype, self.model.contrasts, self.model.n_samples
        # B₂ = (N B − w_i S_i) / (N − 1), in contrasts.
        b = (self.class_basis * self.precision.class_values) @ self.class_basis.T
        b2 = (b * (n / (n - 1.0))).to(dtype) - removal.curvature / (n - 1.0)
        # δ A₂ = δ A − (δ x) xᵀ.
        delta, x = removal.delta, removal.x
        delta_a2 = delta * self.precision.feature_values.to(dtype)
        delta_a2 -= (delta @ x[:, :, None]) * x[:, None, :]
        # ∂KL/∂B₂ = ½ δ A₂ δᵀ.
        price = (0.5 / (n - 1.0)) * (delta_a2 @ delta.mT)
        price += (self._covariance_slope(removal) / (n - 1.0)).to(dtype)
        contrasts = contrasts.to(dtype)
        return Sensitivity(b2 @ delta_a2 + self.prior_precision * delta, contrasts @ price @ contrasts.T)

    def _covariance_slope(self, removal: Removal) -> Tensor:
        r"""Return `∂/∂B₂` of the covariance term, `½ tr_A[(P₁⁻¹ − P₂⁻¹)(· ⊗ A₂)]`, `(B, C', C')`.

        In the eigenbasis of B, `A₂ = diag(α) − x xᵀ` and `B₂ = U diag(β') Uᵀ`, it is
        :math:`G_1 - U G_2 U^\top` with diagonals

        .. math:: g_{1c} = \tfrac12 \sum_d \frac{\alpha_d - x_d^2}{\beta_c \alpha_d + \tau}, \qquad
                  g_{2e} = \tfrac12 \mathrm{tr}\, A_2 (\beta'_e A_2 + \tau I)^{-1}
                         = \tfrac12 \Bigl[ \sum_d \frac{\alpha_d}{m_{ed}}
                           - \frac{\tau}{1 - s_e} \sum_d \frac{x_d^2}{m_{ed}^2} \Bigr],

        with :math:`m_{ed} = \beta'_e\alpha_d + \tau` and :math:`s_e = \beta'_e \sum_d x_d^2 / m_{ed}`.
        """
        n, basis, alpha = self.model.n_samples, self.class_basis, self.precision.feature_values
        square = removal.x.to(torch.float64).square()
        own = basis.T @ removal.curvature.to(torch.float64) @ basis
        values, vectors = torch.linalg.eigh((torch.diag(n * self.precision.class_values) - own) / (n - 1.0))
        spectrum = self.precision.spectrum(values.clamp_min(0))  # m, (B, C', D)
        removed = (square[:, None, :] / spectrum).sum(-1)
        share = (values.clamp_min(0) * removed).clamp_max(1 - 1e-15)
        lost = self.prior_precision * (square[:, None, :] / spectrum.square()).sum(-1) / (1.0 - share)
        second = (alpha / spectrum).sum(-1) - lost
        first = ((alpha - square)[:, None, :] / self.precision.spectrum()).sum(-1)
        slope = torch.diag_embed(first) - (vectors * second[:, None, :]) @ vectors.mT
        return 0.5 * (basis @ slope @ basis.T)

    def own_shift(self, image: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor) -> Tensor:
        """Return it, `(B, C', C')`, with the terms of `add_shift`."""
        contrasts = self.model.contrasts.to(change.dtype)
        w_dp = change * weight[:, None, :]
        diagonal = torch.einsum("cr,bc,cs->brs", contrasts, w_dp.sum(2), contrasts)
        w_dp = contrasts.T @ w_dp
        dp_p = w_dp @ (contrasts.T @ probabilities).mT
        return (diagonal - dp_p - dp_p.mT - w_dp @ (contrasts.T @ change).mT).to(torch.float64)

    def shift_products(self, shifts: Tensor) -> Tensor:
        """Return `¼ Σ_cd ΔB_a ΔB_b α² / (f_c f_d)` summed over the features, in the eigenbasis of B."""
        share = self.precision.feature_values / self.precision.spectrum() / (self.model.n_samples - 1)
        basis, across = self.class_basis, (share @ share.T).sqrt()
        changes = ((basis.T @ shifts @ basis) * across).flatten(2)
        return 0.25 * (changes @ changes.mT)

    def row_price(self, sensitivity: Sensitivity, image: Tensor, probabilities: Tensor, z: Tensor) -> Tensor:
        """Return `W_cc − 2 (W p)_c` with `W = ∂KL/∂B₂`."""
        w = sensitivity.curvature
        return w.diagonal(dim1=1, dim2=2)[:, :, None] - 2.0 * (w @ probabilities)

    def row_leverage(self, x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
        """Return `√D w tr(S B⁻¹) / N`; the prior is in the inverse as it is on average over the features."""
        alpha = self.precision.feature_values
        inverse = (alpha / self.precision.spectrum()).mean(1) * (len(alpha) ** 0.5 / self.model.n_samples)
        across = (self.model.contrasts @ self.class_basis * inverse.sqrt()).to(x.dtype)  # (C, C')
        spread = probabilities @ across.square() - (probabilities @ across).square()
        return weight.to(x.dtype) * spread.sum(1).clamp_min(0)

    def to_dense(self) -> Tensor:
        """Return the Kronecker product plus the prior; for tests only."""
        k, d = self.model.theta.shape
        class_factor = (self.class_basis * self.precision.class_values) @ self.class_basis.T
        data = self._classes(torch.kron(class_factor, torch.diag(self.precision.feature_values)))
        return data + self.prior_precision * torch.eye(len(data), dtype=data.dtype)
