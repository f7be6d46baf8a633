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


def separable_excess(variance: Tensor, squares: Tensor, inverse: Tensor) -> Tensor | None:
    r"""Return `Σ_cd excess(−s_bc q_bd r_cd)` by matrix products, or None where the series is too slow.

    .. math:: \sum_{c,d} [u - \log(1 + u)] = \sum_{k \ge 2} \frac1k \sum_c s_{bc}^k \sum_d q_{bd}^k r_{cd}^k,
              \qquad u = -s\,q\,r

    Args:
        variance: s ≥ 0, `(B, C)`.
        squares: q ≥ 0, `(B, D)`.
        inverse: r > 0, `(C, D)`.
    """
    unit = inverse.amax(0)
    base, ratio = squares.to(torch.float64) * unit, (inverse / unit).T
    largest = float(variance.amax() * base.amax())
    if not largest < 0.1:
        return None
    total = torch.zeros(len(squares), dtype=torch.float64, device=squares.device)
    scale, power, weights = variance.to(torch.float64), base, ratio
    for k in range(2, 13):  # 0.1¹² / 12 is below the rounding of the first term
        power, weights = power * base, weights * ratio
        total += (scale**k * (power @ weights)).sum(1) / k
        if largest ** (k - 1) < 1e-14:
            break
    return total


def diag_divergence(precision: Tensor, change: Tensor, delta: Tensor) -> Terms:
    """Return the divergence of two Gaussians with diagonal precisions.

    Args:
        precision: Diagonal of P₁, `(K,)`.
        change: Diagonal of P₂ − P₁, `(B, K)`.
        delta: Difference of the means, `(B, K)`.
    """
    mean = 0.5 * (delta.square() * (precision + change)).sum(-1, dtype=torch.float64)
    # Where hardly anything of P₁ is left, rounding may make it negative.
    covariance = 0.5 * excess((change / precision).clamp_min(-1 + 1e-15)).sum(-1, dtype=torch.float64)
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
    covariance = torch.stack([_matrix_excess(matrix) for matrix in inner])
    white = delta @ factor
    mean = 0.5 * (white.square().sum(-1) + torch.einsum("bi,bij,bj->b", delta, change, delta))
    return Terms(mean.clamp_min(0), 0.5 * covariance)


def _matrix_excess(matrix: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{tr}\, M - \ln\det(I + M) \ge 0`, to full relative precision also for a small M.

    Args:
        matrix: M, symmetric `(K, K)`, eigenvalues above −1; overwritten.
    """
    size, trace = float(torch.linalg.matrix_norm(matrix)), matrix.diagonal().sum()
    if size < 1e-2:
        # Trace and log-determinant would cancel: Σ_k (−1)^k tr(Mᵏ)/k, up to k = 6, or 4 where that will do.
        square = matrix @ matrix
        products = [matrix * matrix, matrix * square, square * square]
        if size > 1e-3:
            cube = square @ matrix
            products += [square * cube, cube * cube]
        return torch.stack([(-1) ** k / k * product.sum() for k, product in enumerate(products, 2)]).sum()
    matrix.diagonal().add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        # Hardly anything of P₁ is left in some direction, and rounding made that negative.
        return excess((torch.linalg.eigvalsh(matrix) - 1.0).clamp_min(-1 + 1e-15)).sum()
    return trace - 2.0 * factor.diagonal().log().sum()


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
    :math:`P_2 = B_2 \otimes (A - x x^\top) + \tau I`. With eigenvalues :math:`\beta'_e` of :math:`B_2`,
    squares :math:`q_{ce}` of the entries of its eigenvectors, :math:`h_{ce} = \beta'_e - \beta_c`,
    :math:`f_{cd} = \beta_c\alpha_d + \tau` and
    :math:`s_e = \beta'_e\, x^\top(\beta'_e A + \tau I)^{-1}x`, the covariance term is half of

    .. math:: \sum_{c,e} q_{ce} \sum_d \phi\Bigl(\frac{h_{ce}\alpha_d}{f_{cd}}\Bigr) + \sum_e \phi(-s_e)
              - \sum_{c,e} q_{ce} \beta'_e h_{ce} \sum_d \frac{x_d^2 \alpha_d}{f'_{ed} f_{cd}},
              \qquad \phi(u) = u - \log(1 + u),

    which holds since rows and columns of q add up to one: no trace is left to cancel a log-determinant.

    Args:
        precision: P₁ in the eigenbasis of its factors.
        class_change: B₂ − B in the eigenbasis of B, `(N_b, C', C')`.
        removed: x in the eigenbasis of A, `(N_b, D)`.
        delta: Difference of the means in both eigenbases, `(N_b, C', D)`.
    """
    beta, alpha = precision.class_values, precision.feature_values
    new_class = torch.diag(beta) + class_change
    vectors = torch.linalg.eigh(new_class)[1]
    shares = vectors.square()
    # β'_e − β_e as a Rayleigh quotient of the change: the eigenvalues' own difference has lost its digits.
    apart = beta - beta[:, None]
    moved = (vectors * (class_change @ vectors)).sum(1) - (shares * apart).sum(1)
    gaps = moved[:, None, :] + apart
    new_beta = (beta + moved).clamp_min(0)
    pull = removed.square()[:, None, :] / precision.spectrum(new_beta)
    leverage = (new_beta * pull.sum(-1)).clamp_max(1 - 1e-15)
    cross = ((pull @ (alpha / precision.spectrum()).T).mT * gaps * shares).sum(1) * new_beta
    covariance = (shares * _class_excess(precision, moved, gaps)).sum((1, 2))
    covariance = covariance + (excess(-leverage) - cross).sum(-1)
    product = new_class @ delta
    along = torch.einsum("bcd,bd->bc", delta, removed)
    mean = (delta * (product * alpha + precision.prior_precision * delta)).sum((1, 2))
    mean = mean - torch.einsum("bc,bce,be->b", along, new_class, along)
    return Terms((0.5 * mean).clamp_min(0), (0.5 * covariance).clamp_min(0))


def _class_excess(precision: KronPrecision, moved: Tensor, gaps: Tensor) -> Tensor:
    r"""Return :math:`\sum_d \phi(h_{ce} \alpha_d / f_{cd})` for all pairs of old and new class eigenvalues.

    Args:
        precision: P₁.
        moved: `β'_e − β_e`, `(B, C')`.
        gaps: `h_ce = β'_e − β_c`, `(B, C', C')`.
    """
    spectrum = precision.spectrum()
    weighted = precision.feature_values / spectrum  # (C', D)
    total, logarithm = weighted.sum(-1), spectrum.log().sum(-1)
    # Where h α/f is small for every d, the sum over d of its powers is all that is needed of it.
    small = gaps.abs() * weighted.amax(-1)[:, None] < 1e-2
    h = torch.where(small, gaps, torch.zeros_like(gaps))
    series = torch.zeros_like(gaps)
    for k in range(9, 1, -1):
        series = h * ((-1) ** k / k * weighted.pow(k).sum(-1)[:, None] + series)
    series *= h
    own = series.diagonal(dim1=1, dim2=2)
    if not bool(small.diagonal(dim1=1, dim2=2).all()):
        own = excess((moved[:, :, None] * weighted).clamp_min(-1 + 1e-15)).sum(-1)
    new_logarithm = logarithm + moved * total - own
    plain = gaps * total[:, None] - (new_logarithm[:, None, :] - logarithm[:, None])
    pairs = torch.where(small, series, plain.clamp_min(0))
    pairs.diagonal(dim1=1, dim2=2).copy_(own)
    return pairs
