r"""Divergences of first-order removals where there are many classes, from the few classes that matter.

Without sample i the weights of class c move by :math:`\delta_c = t_c + m_c T_c`, where

* :math:`t` is the step of the penalty, the same for every sample,
* :math:`T_c = H_c^{-1} x_i`,
* :math:`m_c` is a multiplier that is zero for all but a few classes.

The mean term of the other classes is a constant, so that a sample costs a few products with D numbers, not
with C·D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsi.divergence import LOWEST, Terms, excess, separable_excess
from lsi.posterior.base import Posterior
from lsi.posterior.diag import DiagPosterior
from lsi.posterior.kron import KronPosterior
from lsi.probes.softmax.entries import Entries
from lsi.system.device import add_rows


@dataclass
class SparseRemoval:
    """First-order removals of n samples, entry by entry.

    Attributes:
        x: Rows, `(n, D)` float32.
        target: Class codes, `(n,)`.
        weight: Sample weights, `(n,)` float32.
        entries: The classes that matter for each sample, sorted by class.
        probabilities: p of all classes, `(n, C)` float32.
        class_of: Class of each entry, `(e,)`.
        multiplier: `m_c` of each entry, `(e,)`.
        reach: `T_c = H_c⁻¹ x` of each entry, `(e, D)`.
        logit_shift: `δ x`, `(n, C)`.
    """

    x: Tensor
    target: Tensor
    weight: Tensor
    entries: Entries
    probabilities: Tensor
    class_of: Tensor
    multiplier: Tensor
    reach: Tensor
    logit_shift: Tensor

    def by_row(self, values: Tensor) -> Tensor:
        """Return the sums over each sample's entries, `(n,)` float64."""
        total = torch.zeros(len(self.x), dtype=torch.float64, device=values.device)
        return add_rows(total, self.entries.row, values.to(torch.float64))


class SparseScorer(Protocol):
    """Divergence of sparse removals."""

    def divergence(self, removal: SparseRemoval) -> Terms:
        """Return the two terms for each left-out sample, `(n,)` each, in nats."""


class DiagScorer:
    """Divergence of diagonal posteriors, with the other samples' curvature kept.

    Args:
        posterior: The posterior, in the original features.
        decay_step: t, `(C, D)` float32.
    """

    def __init__(self, posterior: DiagPosterior, decay_step: Tensor) -> None:
        self.precision = posterior.precision.to(torch.float32)
        self.inverse = posterior.precision.reciprocal()
        self.decay_step = decay_step
        self.constant = float((posterior.precision * decay_step.to(torch.float64).square()).sum())

    def divergence(self, removal: SparseRemoval) -> Terms:
        """Return the two terms; classes without an entry add a constant."""
        entries = removal.entries
        s = entries.variance * removal.weight[entries.row]
        mean = torch.empty_like(s)
        covariance = torch.empty_like(s, dtype=torch.float64)
        for c, which in entries.segments:
            x2 = removal.x[entries.row[which]].square()
            m_t = removal.multiplier[which, None] * removal.reach[which]  # δ − t
            # δ² − t²; the constant holds t² of every class.
            delta2_beyond = m_t * (m_t + 2.0 * self.decay_step[c])
            mean[which] = delta2_beyond @ self.precision[c]
            mean[which] -= s[which] * (x2 * (m_t + self.decay_step[c]).square()).sum(1)
            covariance[which] = _excess(s[which], x2, self.inverse[c])
        total = (self.constant + removal.by_row(mean)).clamp_min(0)
        return Terms(0.5 * total, 0.5 * removal.by_row(covariance))


def _excess(s: Tensor, x2: Tensor, inverse: Tensor) -> Tensor:
    """Return `Σ_d φ(−s x_d² r_d)`, `(e,)`, for one class. Shapes: s `(e,)`, x2 `(e, D)`, inverse r `(D,)`."""
    series = separable_excess(s[:, None], x2, inverse[None])
    if series is not None:
        return series
    u = -s.to(torch.float64)[:, None] * x2 * inverse
    return excess(u.clamp_min(LOWEST)).sum(1)


class KronScorer:
    r"""Divergence of Kronecker-factored posteriors, with the other samples' curvature kept.

    The mean term is exact. In the covariance term, the loss of :math:`x x^\top` in A is exact, and the change
    of B, of order 1/N, is kept to second order,
    :math:`\tfrac12 \sum_k \phi(u_k) \approx \tfrac14 \sum_k u_k^2`.

    In the eigenbasis V of B, with :math:`f_{cd} = \beta_c \alpha_d + \tau` and
    :math:`R_{cc'} = \sum_d (\alpha_d/f_{cd})(\alpha_d/f_{c'd})`, that part is

    .. math:: \tfrac14 \sum_{cc'} (\Delta B)_{cc'}^2 R_{cc'}, \qquad \Delta B = \frac{B - V^\top S V}{N - 1}.

    Args:
        posterior: The posterior, in the eigenbasis of A.
        decay_step: t, `(C, D)` float32.
    """

    RANK = 1e-7  # smaller eigenvalues of the kernel R are left out, relative to the largest

    def __init__(self, posterior: KronPosterior, decay_step: Tensor) -> None:
        precision, model = posterior.precision, posterior.model
        self.n, self.prior = model.n_samples, posterior.prior_precision
        self.alpha = precision.feature_values
        self.beta = precision.class_values
        self.basis = model.contrasts @ posterior.class_basis  # V in all classes, (C, C')
        self.sum_s = self.n * (self.basis * self.beta) @ self.basis.T  # N B = Σ_j w_j S_j, (C, C)
        self.step = decay_step
        # tr(tᵀ N B t A), ‖t‖² and N B t A.
        t = decay_step.to(torch.float64)
        self.sum_s_t_a = ((self.sum_s @ t) * self.alpha).to(torch.float32)
        self.constant = float((t * (self.sum_s @ t) * self.alpha).sum())
        self.length = float(t.square().sum())
        f = precision.spectrum()
        self.inverse = f.reciprocal()  # (C', D)
        self.ratio = self.alpha / f
        # R, and its root in all classes.
        self.kernel = self.ratio @ self.ratio.T
        values, vectors = torch.linalg.eigh(self.kernel)
        large = values > self.RANK * values[-1]
        roots = vectors[:, large] * values[large].sqrt()
        self.modes = torch.einsum("cr,rm,er->mce", self.basis, roots, self.basis).to(torch.float32)
        self.diagonal = self.beta.square() @ self.kernel.diagonal()

    def divergence(self, removal: SparseRemoval) -> Terms:
        """Return the two terms."""
        return Terms(self._mean(removal).clamp_min(0), self._covariance(removal).clamp_min(0))

    def _mean(self, removal: SparseRemoval) -> Tensor:
        """Return `½ [(tr(δᵀ (N B − S) δ A) − (δx)ᵀ (N B − S) δx) / (N − 1) + τ ‖δ‖²]`, `(n,)`."""
        entries, c = removal.entries, removal.class_of
        m_t = removal.multiplier[:, None] * removal.reach  # δ − t
        alpha = self.alpha.to(m_t.dtype)
        # tr(δᵀ N B δ A) by δ = t + mT: the constant, twice the mixed part, and the sum over pairs of entries.
        linear = removal.by_row(_dots(m_t, self.sum_s_t_a, c))
        total = self.constant + 2.0 * linear
        quadratic = torch.zeros_like(total)
        for rows, slots, mask in _padded(entries.row, len(removal.x)):
            part, classes = m_t[slots] * mask[..., None], c[slots]
            gram = (part * alpha) @ part.mT
            sum_s = self.sum_s.to(gram.dtype)[classes[:, :, None], classes[:, None, :]]
            quadratic[rows] = (gram * sum_s).sum((1, 2), dtype=torch.float64)
        total += quadratic - self._lost_by_classes(removal, m_t) - self._lost_by_features(removal)
        # ‖δ‖² = ‖t‖² + ‖mT‖² + 2 t·mT.
        length = self.length + removal.by_row(m_t.square().sum(1) + 2.0 * _dots(m_t, self.step, c))
        return 0.5 * (total / (self.n - 1) + self.prior * length)

    def _lost_by_classes(self, removal: SparseRemoval, m_t: Tensor) -> Tensor:
        """Return `tr(δᵀ S δ A)`, which B loses with the sample, `(n,)`."""
        entries, alpha = removal.entries, self.alpha.to(m_t.dtype)
        delta = m_t + self.step[removal.class_of]
        p_delta2 = removal.by_row(entries.p * (delta.square() @ alpha))
        p_delta = add_rows(torch.zeros_like(removal.x), entries.row, entries.p[:, None] * delta)
        return removal.weight * (p_delta2 - p_delta.square() @ alpha)

    def _lost_by_features(self, removal: SparseRemoval) -> Tensor:
        """Return `(δx)ᵀ (N B − S) δx`, which A loses with the sample, `(n,)`."""
        delta_x, p = removal.logit_shift, removal.probabilities
        by_b = (delta_x * (delta_x @ self.sum_s.to(delta_x.dtype))).sum(1)
        by_s = (p * delta_x.square()).sum(1) - (p * delta_x).sum(1).square()
        return (by_b - removal.weight * by_s).to(torch.float64)

    def _covariance(self, removal: SparseRemoval) -> Tensor:
        """Return `½ Σ_c φ(−s_c)` and the part of second order in the change of B, added up, `(n,)`."""
        x2, p = removal.x.to(torch.float64).square(), removal.probabilities.to(torch.float64)
        # s_c = β_c Σ_d x_d² / f_cd.
        s = self.beta * (x2 @ self.inverse.T)
        # Diagonal of VᵀSV, and the mixed second-order part of both changes.
        own = removal.weight[:, None] * (p @ self.basis.square() - (p @ self.basis).square())
        mixed = ((self.beta - own) * self.beta * (x2 @ (self.ratio * self.inverse).T)).sum(1)
        # Σ_cc' (B − VᵀSV)²_cc' R_cc', multiplied out.
        squares = self.diagonal - 2.0 * (own * self.beta) @ self.kernel.diagonal() + self._pairs(removal)
        second = squares / (self.n - 1) ** 2 - 2.0 * mixed / (self.n - 1)
        return 0.5 * excess((-s).clamp_min(LOWEST)).sum(1) + 0.25 * second

    def _pairs(self, removal: SparseRemoval) -> Tensor:
        """Return `Σ_cc' (VᵀSV)²_cc' R_cc'`, from the entries and the root of R, `(n,)`."""
        entries, out = removal.entries, torch.zeros(len(removal.x), dtype=torch.float64)
        out = out.to(removal.x.device)
        for rows, slots, mask in _padded(entries.row, len(removal.x)):
            p, classes = entries.p[slots] * mask, removal.class_of[slots]
            for mode in self.modes:
                inner = mode[classes[:, :, None], classes[:, None, :]]
                inner_p = (inner @ p[:, :, None])[:, :, 0]
                squares = (p[:, :, None] * p[:, None, :] * inner.square()).sum((1, 2))
                out[rows] += squares - 2.0 * (p * inner_p.square()).sum(1) + (p * inner_p).sum(1).square()
        return removal.weight.to(torch.float64).square() * out


def _dots(values: Tensor, table: Tensor, which: Tensor) -> Tensor:
    """Return `values_e · table[which_e]`, `(e,)`."""
    return torch.bmm(values[:, None, :], table[which][:, :, None])[:, 0, 0]


def _padded(row: Tensor, n_rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Group samples by their number of entries: their positions, entries `(g, h)` and mask `(g, h)` by group.

    Shapes: row `(e,)`.
    """
    order = row.argsort(stable=True)
    counts = torch.bincount(row, minlength=n_rows)
    first = counts.cumsum(0) - counts
    groups, low, high = [], 0, 1
    while low < int(counts.max()):
        members = ((counts > low) & (counts <= high)).nonzero()[:, 0]
        for part in members.split(max(1, 65536 // high)):
            slot = torch.arange(high, device=row.device)
            mask = slot < counts[part, None]
            where = (first[part, None] + slot).clamp_max(len(row) - 1)
            groups.append((part, order[where], mask.to(torch.float32)))
        low, high = high, 2 * high
    return groups


def sparse_scorer(posterior: Posterior, decay_step: Tensor) -> SparseScorer:
    """Return the scorer of a posterior. Shapes: decay_step t `(C, D)`."""
    if isinstance(posterior, KronPosterior):
        return KronScorer(posterior, decay_step)
    assert isinstance(posterior, DiagPosterior)
    return DiagScorer(posterior, decay_step)
