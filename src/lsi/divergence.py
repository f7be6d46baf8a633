r"""KL divergence between two Gaussian weight posteriors in nats, one function for each structure.

.. math:: \mathrm{KL}\bigl(N(\theta, P_1^{-1}) \,\|\, N(\theta + \delta, P_2^{-1})\bigr)
          = \underbrace{\tfrac12 \delta^\top P_2\, \delta}_{\text{mean term}}
          + \underbrace{\tfrac12 \sum_k \phi(u_k)}_{\text{covariance term}},
          \qquad \phi(u) = u - \log(1 + u)

where:

* :math:`P_1, P_2` are the precisions with all samples and without one,
* :math:`\delta` is the difference of the means,
* :math:`u_k > -1` are the eigenvalues of :math:`P_1^{-1/2}(P_2 - P_1)P_1^{-1/2}`.

Every function takes the *difference* :math:`P_2 - P_1` and never subtracts two log-determinants of full size,
whose rounding errors would exceed the result. Both terms are non-negative.

Source: Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025, for the
quantity; the split and its stable form are this library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The u_k are above −1. Rounding may push them below where one sample held nearly all of P₁.
LOWEST = -1 + 1e-15


@dataclass(frozen=True)
class Terms:
    """Mean term and covariance term of B divergences, each `(B,)` float64, in nats."""

    mean: Tensor
    covariance: Tensor

    @property
    def total(self) -> Tensor:
        """The divergence itself, `(B,)`."""
        return self.mean + self.covariance


def excess(u: Tensor) -> Tensor:
    r"""Return :math:`\phi(u) = u - \log(1 + u) \ge 0`, to full relative precision also where u is small.

    Near zero the two parts cancel; there the series :math:`\sum_{k \ge 2} (-1)^k u^k / k` takes their place.

    Args:
        u: Any shape, above −1.

    Returns:
        φ(u), in the shape of u.

    Examples:
        >>> float(excess(torch.tensor(1e-8, dtype=torch.float64)))
        4.99999996...e-17
    """
    small = u.abs() < 1e-2
    # Horner's scheme for Σ_{k=2}^{9} (−1)^k u^{k−1} / k, then once more times u.
    v = torch.where(small, u, torch.zeros_like(u))
    series = torch.zeros_like(v)
    for k in range(9, 1, -1):
        series = v * (((-1) ** k / k) + series)
    return torch.where(small, v * series, u - torch.log1p(torch.where(small, torch.ones_like(u), u)))


def separable_excess(variance: Tensor, squares: Tensor, inverse: Tensor) -> Tensor | None:
    r"""Return :math:`\sum_{cd} \phi(-s_{bc}\, q_{bd}\, r_{cd})` by matrix products.

    .. math:: \sum_{c,d} \phi(-s_{bc}\, q_{bd}\, r_{cd})
              = \sum_{k \ge 2} \frac1k \sum_c s_{bc}^k \sum_d q_{bd}^k r_{cd}^k

    Args:
        variance: s ≥ 0, `(B, C)`.
        squares: q ≥ 0, `(B, D)`.
        inverse: r > 0, `(C, D)`.

    Returns:
        The sums, `(B,)` float64; None where a product s q r may exceed 0.1 and the series is too slow.
    """
    # Powers of q r as (q r_max)^k (r / r_max)^k, so that neither factor overflows.
    r_max = inverse.amax(0)
    q, r = squares.to(torch.float64) * r_max, (inverse / r_max).T
    largest = float(variance.amax() * q.amax())
    if not largest < 0.1:
        return None
    total = torch.zeros(len(squares), dtype=torch.float64, device=squares.device)
    s, q_k, r_k = variance.to(torch.float64), q, r
    for k in range(2, 13):  # 0.1¹² / 12 is below the rounding of the first term
        q_k, r_k = q_k * q, r_k * r
        total += (s**k * (q_k @ r_k)).sum(1) / k
        if largest ** (k - 1) < 1e-14:
            break
    return total


def diag_divergence(precision: Tensor, change: Tensor, delta: Tensor) -> Terms:
    r"""Return the divergence of two Gaussians with diagonal precisions.

    .. math:: \tfrac12 \sum_k \delta_k^2\, (P_1 + \Delta)_{kk},
              \qquad \tfrac12 \sum_k \phi(u_k), \quad u_k = \Delta_{kk} / (P_1)_{kk},
              \qquad \Delta = P_2 - P_1

    Args:
        precision: Diagonal of P₁, `(K,)`.
        change: Diagonal of Δ = P₂ − P₁, `(B, K)`.
        delta: δ, `(B, K)`.

    Returns:
        Both terms, in nats.
    """
    mean = 0.5 * (delta.square() * (precision + change)).sum(-1, dtype=torch.float64)
    u = (change / precision).clamp_min(LOWEST)
    return Terms(mean, 0.5 * excess(u).sum(-1, dtype=torch.float64))


def full_divergence(factor: Tensor, change: Tensor, delta: Tensor) -> Terms:
    r"""Return the divergence of two Gaussians with dense precisions.

    .. math:: \tfrac12 \bigl(\|L^\top \delta\|^2 + \delta^\top \Delta\, \delta\bigr),
              \qquad \tfrac12 \bigl[\mathrm{tr}\, M - \ln\det(I + M)\bigr], \quad M = L^{-1} \Delta L^{-\top},
              \qquad P_1 = L L^\top, \quad \Delta = P_2 - P_1

    Args:
        factor: L, the lower Cholesky factor of P₁, `(K, K)`.
        change: Δ = P₂ − P₁, `(B, K, K)`.
        delta: δ, `(B, K)`.

    Returns:
        Both terms, in nats.
    """
    # M = L⁻¹ Δ L⁻ᵀ by two triangular solves, made symmetric again.
    m = torch.linalg.solve_triangular(factor, change, upper=False)
    m = torch.linalg.solve_triangular(factor, m.mT.contiguous(), upper=False)
    m = 0.5 * (m + m.mT)
    covariance = torch.stack([_matrix_excess(one) for one in m])
    # δᵀ P₂ δ = ‖Lᵀδ‖² + δᵀ Δ δ.
    white = delta @ factor
    mean = 0.5 * (white.square().sum(-1) + torch.einsum("bi,bij,bj->b", delta, change, delta))
    return Terms(mean.clamp_min(0), 0.5 * covariance)


def _matrix_excess(m: Tensor) -> Tensor:
    r"""Return :math:`\mathrm{tr}\, M - \ln\det(I + M) \ge 0`, to full relative precision also for a small M.

    Shapes: m symmetric `(K, K)`, eigenvalues above −1; overwritten.
    """
    size, trace = float(torch.linalg.matrix_norm(m)), m.diagonal().sum()
    if size < 1e-2:
        # Trace and log-determinant would cancel: Σ_k (−1)^k tr(Mᵏ)/k up to k = 6, or 4 where that is enough.
        m2 = m @ m
        powers = [m * m, m * m2, m2 * m2]  # their entries add up to tr M², tr M³, tr M⁴
        if size > 1e-3:
            m3 = m2 @ m
            powers += [m2 * m3, m3 * m3]
        return torch.stack([(-1) ** k / k * power.sum() for k, power in enumerate(powers, 2)]).sum()
    m.diagonal().add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(m)
    if int(failed):
        # Rounding made an eigenvalue of I + M negative: take the eigenvalues, and limit them.
        return excess((torch.linalg.eigvalsh(m) - 1.0).clamp_min(LOWEST)).sum()
    return trace - 2.0 * factor.diagonal().log().sum()


def low_rank_covariance(curvature: Tensor, gram: Tensor) -> Tensor:
    r"""Return the covariance term where :math:`P_2 - P_1 = -E S E^\top`, by the matrix determinant lemma.

    .. math:: \tfrac12 \sum_k \phi(u_k), \qquad
              u = -\mathrm{eig}\bigl(S^{1/2} G S^{1/2}\bigr), \quad G = E^\top P_1^{-1} E

    These are the non-zero eigenvalues of :math:`-P_1^{-1/2} E S E^\top P_1^{-1/2}`.

    Args:
        curvature: S, positive semi-definite, `(B, C', C')`.
        gram: G, `(B, C', C')`.

    Returns:
        `(B,)` in nats.
    """
    # A root of S from its eigenvectors: R Rᵀ = S.
    values, vectors = torch.linalg.eigh(curvature.to(torch.float64))
    root = vectors * values.clamp_min(0).sqrt()[:, None, :]
    # RᵀGR has the eigenvalues of S^{1/2} G S^{1/2}.
    u = -torch.linalg.eigvalsh(root.mT @ gram.to(torch.float64) @ root)
    return 0.5 * excess(u.clamp(LOWEST, 0.0)).sum(-1)


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
        """Return the eigenvalues `f_cd = β_c α_d + τ`, `(…, C', D)`; for other β where they are given."""
        beta = self.class_values if class_values is None else class_values
        return beta[..., None] * self.feature_values + self.prior_precision


def kron_divergence(precision: KronPrecision, class_change: Tensor, removed: Tensor, delta: Tensor) -> Terms:
    r"""Return the divergence of two Kronecker-factored Gaussians, the second without one sample.

    The precisions are :math:`P_1 = B \otimes A + \tau I` and
    :math:`P_2 = B_2 \otimes (A - x x^\top) + \tau I`. The mean term is

    .. math:: \tfrac12 \bigl[\mathrm{tr}(\delta^\top B_2\, \delta A) + \tau \|\delta\|^2
              - (\delta x)^\top B_2\, (\delta x)\bigr]

    and the covariance term

    .. math:: \tfrac12 \Bigl[\sum_{c,e} q_{ce} \sum_d \phi\Bigl(\frac{h_{ce}\alpha_d}{f_{cd}}\Bigr)
              + \sum_e \phi(-s_e)
              - \sum_{c,e} q_{ce} \beta'_e h_{ce} \sum_d \frac{x_d^2 \alpha_d}{f'_{ed} f_{cd}}\Bigr],
              \qquad \phi(u) = u - \log(1 + u)

    where:

    * :math:`\alpha_d, \beta_c, \beta'_e` are the eigenvalues of :math:`A, B, B_2`,
    * :math:`q_{ce}` is the squared entry c of eigenvector e of :math:`B_2` (in the eigenbasis of B),
    * :math:`h_{ce} = \beta'_e - \beta_c`,
    * :math:`f_{cd} = \beta_c\alpha_d + \tau` and :math:`f'_{ed} = \beta'_e\alpha_d + \tau`,
    * :math:`s_e = \beta'_e \sum_d x_d^2 / f'_{ed}`.

    Rows and columns of q add up to one, so that no trace is left to cancel a log-determinant.

    Args:
        precision: P₁ in the eigenbasis of its factors.
        class_change: B₂ − B in the eigenbasis of B, `(N_b, C', C')`.
        removed: x in the eigenbasis of A, `(N_b, D)`.
        delta: δ in both eigenbases, `(N_b, C', D)`.

    Returns:
        Both terms of the N_b divergences, in nats.
    """
    beta, alpha, tau = precision.class_values, precision.feature_values, precision.prior_precision
    # B₂ and q from its eigenvectors V.
    b2 = torch.diag(beta) + class_change
    v = torch.linalg.eigh(b2)[1]
    q = v.square()
    # β'_e − β_e as a Rayleigh quotient of the change: the difference of the eigenvalues has lost its digits.
    beta_gaps = beta - beta[:, None]  # β_e − β_c
    beta_shift = (v * (class_change @ v)).sum(1) - (q * beta_gaps).sum(1)
    h = beta_shift[:, None, :] + beta_gaps
    new_beta = (beta + beta_shift).clamp_min(0)
    # s_e, from x_d² / f'_ed.
    x2_over_f = removed.square()[:, None, :] / precision.spectrum(new_beta)
    s = (new_beta * x2_over_f.sum(-1)).clamp_max(-LOWEST)
    # Σ_c q_ce β'_e h_ce Σ_d x_d² α_d / (f'_ed f_cd).
    mixed = ((x2_over_f @ (alpha / precision.spectrum()).T).mT * h * q).sum(1) * new_beta
    covariance = (q * _class_excess(precision, beta_shift, h)).sum((1, 2))
    covariance = covariance + (excess(-s) - mixed).sum(-1)
    # δᵀ P₂ δ.
    delta_x = torch.einsum("bcd,bd->bc", delta, removed)
    mean = (delta * (b2 @ delta * alpha + tau * delta)).sum((1, 2))
    mean = mean - torch.einsum("bc,bce,be->b", delta_x, b2, delta_x)
    return Terms((0.5 * mean).clamp_min(0), (0.5 * covariance).clamp_min(0))


@dataclass(frozen=True)
class KronFactors:
    """The factors of a Kronecker product, or changes of them: B `(C', C')` and A `(D, D)`, symmetric."""

    classes: Tensor
    features: Tensor


def kron_factor_divergence(
    factors: KronFactors, change: KronFactors, prior_precision: float, delta: Tensor, joined: bool = False
) -> Terms:
    r"""Return the divergence of two Kronecker-factored Gaussians whose factors both change by any matrix.

    With :math:`P_1 = B \otimes A + \tau I` and :math:`P_2 = (B + \Delta_B) \otimes (A + \Delta_A) + \tau I`,
    the trace is taken of the difference alone,

    .. math:: \mathrm{tr}\,P_1^{-1}(P_2 - P_1) = \sum_{cd} \frac{\Delta_{B,cc} A_{2,dd} + B_{cc}
              \Delta_{A,dd}}{\beta_c \alpha_d + \tau},

    in the eigenbases of B and A, and the log-determinants are sums over :math:`\log(\beta\alpha + \tau)`,
    taken as ratios of what has the same rank before and after. The two cancel: about 1e-16 for each weight is
    lost, in nats.

    Args:
        factors: B and A.
        change: Δ_B and Δ_A.
        prior_precision: τ > 0.
        delta: δ in the same coordinates, `(C', D)`.
        joined: Exchange the arguments: the divergence of the second from the first.

    Returns:
        Both terms, in nats, without a batch.
    """
    after = KronFactors(factors.classes + change.classes, factors.features + change.features)
    if joined:
        change = KronFactors(-change.classes, -change.features)
        factors, after = after, factors
    beta, classes = torch.linalg.eigh(factors.classes)
    alpha, features = torch.linalg.eigh(factors.features)
    before = beta.clamp_min(0)[:, None] * alpha.clamp_min(0) + prior_precision

    def inside(matrix: Tensor, basis: Tensor) -> Tensor:
        return torch.einsum("ik,ij,jk->k", basis, matrix, basis)

    moved = inside(change.classes, classes)[:, None] * inside(after.features, features)
    moved = moved + beta[:, None] * inside(change.features, features)
    new_beta = torch.linalg.eigvalsh(after.classes).clamp_min(0)
    new_alpha = torch.linalg.eigvalsh(after.features).clamp_min(0)
    spectrum = new_beta[:, None] * new_alpha + prior_precision
    covariance = (moved / before - (spectrum / before).log()).sum()
    mean = (delta * (after.classes @ delta @ after.features + prior_precision * delta)).sum()
    return Terms((0.5 * mean).clamp_min(0), (0.5 * covariance).clamp_min(0))


def _class_excess(precision: KronPrecision, beta_shift: Tensor, h: Tensor) -> Tensor:
    r"""Return :math:`\sum_d \phi(h_{ce} \alpha_d / f_{cd})` for all pairs of old and new class eigenvalues.

    Shapes: beta_shift `β'_e − β_e` `(B, C')`, h `β'_e − β_c` `(B, C', C')`.
    """
    f = precision.spectrum()
    ratio = precision.feature_values / f  # α_d / f_cd, (C', D)
    sum_ratio, sum_log_f = ratio.sum(-1), f.log().sum(-1)
    # Where h α/f is small for every d: the series of φ needs the sums over d of the powers of α/f only.
    small = h.abs() * ratio.amax(-1)[:, None] < 1e-2
    small_h = torch.where(small, h, torch.zeros_like(h))
    series = torch.zeros_like(h)
    for k in range(9, 1, -1):
        series = small_h * ((-1) ** k / k * ratio.pow(k).sum(-1)[:, None] + series)
    series *= small_h
    # The diagonal c = e, where h = β'_e − β_e is exact: the series, or φ entry by entry.
    own = series.diagonal(dim1=1, dim2=2)
    if not bool(small.diagonal(dim1=1, dim2=2).all()):
        own = excess((beta_shift[:, :, None] * ratio).clamp_min(LOWEST)).sum(-1)
    # All other pairs: Σ_d φ = h Σ_d α_d/f_cd − (Σ_d ln f'_ed − Σ_d ln f_cd); the diagonal gives Σ_d ln f'_ed.
    sum_log_new_f = sum_log_f + beta_shift * sum_ratio - own
    plain = h * sum_ratio[:, None] - (sum_log_new_f[:, None, :] - sum_log_f[:, None])
    pairs = torch.where(small, series, plain.clamp_min(0))
    pairs.diagonal(dim1=1, dim2=2).copy_(own)
    return pairs
