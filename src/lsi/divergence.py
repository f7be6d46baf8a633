r"""KL divergence between two Gaussian weight posteriors, one function a structure, in nats.

With precisions :math:`P_1, P_2`, difference of means :math:`\delta` and :math:`u_k` the eigenvalues
of :math:`P_1^{-1/2}(P_2 - P_1)P_1^{-1/2}`,

.. math:: \mathrm{KL}(N_1 \| N_2) = \underbrace{\tfrac12 \delta^\top P_2 \delta}_{\text{mean term}}
          + \underbrace{\tfrac12 \sum_k [u_k - \log(1 + u_k)]}_{\text{covariance term}} .

Every function takes the *difference* of the precisions and never subtracts two log-determinants of
full size, whose rounding would exceed the result. Both terms are non-negative.

Source: Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025, for the
quantity; the split and its stable form are this library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Mean term and covariance term of B divergences, each `(B,)` float64, in nats."""

    mean: Tensor
    covariance: Tensor

    @property
    def total(self) -> Tensor:
        """The divergence itself."""
        return self.mean + self.covariance


def excess(u: Tensor) -> Tensor:
    r"""Return :math:`u - \log(1 + u) \ge 0`, to full relative precision also where u is small.

    >>> float(excess(torch.tensor(1e-8, dtype=torch.float64)))
    4.99999996...e-17
    """
    small = u.abs() < 1e-2
    v = torch.where(small, u, torch.zeros_like(u))
    series = torch.zeros_like(v)
    for k in range(9, 1, -1):
        series = v * (((-1) ** k / k) + series)
    return torch.where(small, v * series, u - torch.log1p(torch.where(small, torch.ones_like(u), u)))


def diag_divergence(precision: Tensor, change: Tensor, delta: Tensor) -> Terms:
    """Return the divergence of two Gaussians with diagonal precisions.

    Args:
        precision: Diagonal of P₁, `(K,)`.
        change: Diagonal of P₂ − P₁, `(B, K)`.
        delta: Difference of the means, `(B, K)`.
    """
    mean = 0.5 * (delta.square() * (precision + change)).sum(-1, dtype=torch.float64)
    covariance = 0.5 * excess(change / precision).sum(-1, dtype=torch.float64)
    return Terms(mean, covariance)


def full_divergence(factor: Tensor, change: Tensor, delta: Tensor) -> Terms:
    """Return the divergence of two Gaussians with dense precisions.

    Args:
        factor: Lower Cholesky factor of P₁, `(K, K)`.
        change: P₂ − P₁, `(B, K, K)`.
        delta: Difference of the means, `(B, K)`.
    """
    inner = torch.linalg.solve_triangular(factor, change, upper=False)
    inner = torch.linalg.solve_triangular(factor, inner.mT.contiguous(), upper=False)
    inner = 0.5 * (inner + inner.mT)
    trace = inner.diagonal(dim1=-2, dim2=-1).sum(-1)
    inner.diagonal(dim1=-2, dim2=-1).add_(1.0)
    log_determinant = 2.0 * torch.linalg.cholesky(inner).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    white = delta @ factor
    mean = 0.5 * (white.square().sum(-1) + torch.einsum("bi,bij,bj->b", delta, change, delta))
    return Terms(mean.clamp_min(0), (0.5 * (trace - log_determinant)).clamp_min(0))


def low_rank_covariance(curvature: Tensor, gram: Tensor) -> Tensor:
    r"""Return the covariance term where `P₂ − P₁ = −E S Eᵀ`, by the matrix determinant lemma.

    The non-zero eigenvalues of :math:`P_1^{-1/2} E S E^\top P_1^{-1/2}` are those of
    :math:`S^{1/2} G S^{1/2}`, :math:`G = E^\top P_1^{-1} E`.

    Args:
        curvature: S, positive semi-definite, `(B, C', C')`.
        gram: G, `(B, C', C')`.

    Returns:
        `(B,)` in nats.
    """
    values, vectors = torch.linalg.eigh(curvature.to(torch.float64))
    root = vectors * values.clamp_min(0).sqrt()[:, None, :]
    u = -torch.linalg.eigvalsh(root.mT @ gram.to(torch.float64) @ root)
    return 0.5 * excess(u.clamp(-1 + 1e-15, 0.0)).sum(-1)


@dataclass(frozen=True)
class KronPrecision:
    r"""A precision :math:`B \otimes A + \tau I` in the eigenbasis of its factors.

    Attributes:
        class_values: Eigenvalues β of the class factor B, `(C',)`.
        feature_values: Eigenvalues α of the feature factor A, `(D,)`.
        prior_precision: τ.
    """

    class_values: Tensor
    feature_values: Tensor
    prior_precision: float

    def spectrum(self, class_values: Tensor | None = None) -> Tensor:
        """Return the eigenvalues `β_c α_d + τ`, `(…, C', D)`."""
        beta = self.class_values if class_values is None else class_values
        return beta[..., None] * self.feature_values + self.prior_precision


def kron_divergence(precision: KronPrecision, class_change: Tensor, removed: Tensor, delta: Tensor) -> Terms:
    r"""Return the divergence of two Kronecker-factored Gaussians, the second without one sample.

    The precisions are :math:`P_1 = B \otimes A + \tau I` and
    :math:`P_2 = B_2 \otimes (A - x x^\top) + \tau I`. For each eigenvector of :math:`B_2` with eigenvalue
    :math:`\beta'` the removal of x is a rank-one change of :math:`\beta' A + \tau I`, so that with
    :math:`s = x^\top(\beta' A + \tau I)^{-1}x`

    .. math:: \ln\det P_2 - \ln\det P_1 =
              \sum_{c,d} \log\Bigl(1 + \frac{(\beta'_c - \beta_c)\alpha_d}{\beta_c\alpha_d+\tau}\Bigr)
              + \sum_c \log(1 - \beta'_c s_c).

    Args:
        precision: P₁ in the eigenbasis of its factors.
        class_change: B₂ − B in the eigenbasis of B, `(N_b, C', C')`.
        removed: x in the eigenbasis of A, `(N_b, D)`.
        delta: Difference of the means in both eigenbases, `(N_b, C', D)`.
    """
    beta, alpha = precision.class_values, precision.feature_values
    first = precision.spectrum()
    new_class = torch.diag(beta) + class_change
    new_beta = torch.linalg.eigvalsh(new_class).clamp_min(0)
    diagonal = new_class.diagonal(dim1=-2, dim2=-1)
    squares = removed.square()
    weighted = alpha / first  # (C', D)
    # Σ [u − log1p(u)] for the change of B at fixed A; the second sum is what its off-diagonal
    # entries add, since the trace sees the diagonal of B₂ and the determinant its eigenvalues.
    changed = excess((new_beta - beta)[:, :, None] * weighted).sum((1, 2))
    changed = changed + ((diagonal - new_beta) * weighted.sum(-1)).sum(-1)
    share = new_beta * torch.einsum("bd,bcd->bc", squares, precision.spectrum(new_beta).reciprocal())
    share = share.clamp_max(1 - 1e-15)
    removal = (-torch.log1p(-share) - share).sum(-1)
    removal = removal + (share - diagonal * (squares @ first.reciprocal().T)).sum(-1)
    product = new_class @ delta
    along = torch.einsum("bcd,bd->bc", delta, removed)
    mean = (delta * (product * alpha + precision.prior_precision * delta)).sum((1, 2))
    mean = mean - torch.einsum("bc,bce,be->b", along, new_class, along)
    return Terms((0.5 * mean).clamp_min(0), (0.5 * (changed + removal)).clamp_min(0))
