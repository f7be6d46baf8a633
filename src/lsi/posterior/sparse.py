r"""Divergences of first-order removals where there are many classes, from the classes that have a say.

Without sample i the weights of class c move by :math:`\delta_c = t_c + m_c T_c`: t comes from the
penalty and is the same for every sample, and :math:`m_c` is zero but for a few classes. The mean term
of all other classes is a constant, so that a sample costs a few products with D numbers, not C·D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsi.divergence import Terms, excess, separable_excess
from lsi.posterior.base import Posterior
from lsi.posterior.diag import DiagPosterior
from lsi.posterior.kron import KronPosterior
from lsi.probes.softmax.entries import Entries


@dataclass
class SparseRemoval:
    """First-order removals of n samples, entry by entry.

    Attributes:
        x: Rows, `(n, D)` float32.
        target: Class codes, `(n,)`.
        weight: Sample weights, `(n,)` float32.
        entries: Their classes that count, sorted by class.
        probabilities: All of them, `(n, C)` float32.
        class_of: Class of each entry, `(e,)`.
        multiplier: `m_c` of each entry, `(e,)`.
        reach: `T_c = H_c⁻¹ x` of each entry, `(e, D)`.
        logit_shift: `x · δ_c` for all classes, `(n, C)`.
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
        return total.index_add_(0, self.entries.row, values.to(torch.float64))


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
        variance = entries.variance * removal.weight[entries.row]
        mean = torch.empty_like(variance)
        covariance = torch.empty_like(variance, dtype=torch.float64)
        for c, which in entries.segments:
            squares = removal.x[entries.row[which]].square()
            own = removal.multiplier[which, None] * removal.reach[which]
            # What δ² has beyond t²: the constant holds t² of every class.
            beyond = own * (own + 2.0 * self.decay_step[c])
            mean[which] = beyond @ self.precision[c]
            mean[which] -= variance[which] * (squares * (own + self.decay_step[c]).square()).sum(1)
            covariance[which] = _excess(variance[which], squares, self.inverse[c])
        total = (self.constant + removal.by_row(mean)).clamp_min(0)
        return Terms(0.5 * total, 0.5 * removal.by_row(covariance))


def _excess(variance: Tensor, squares: Tensor, inverse: Tensor) -> Tensor:
    """Return `Σ_d excess(−s q_d r_d)` for the entries of one class."""
    series = separable_excess(variance[:, None], squares, inverse[None])
    if series is not None:
        return series
    change = -variance.to(torch.float64)[:, None] * squares * inverse
    return excess(change.clamp_min(-1 + 1e-15)).sum(1)


class KronScorer:
    r"""Divergence of Kronecker-factored posteriors, with the other samples' curvature kept.

    The mean term is exact. The covariance term keeps the loss of :math:`x x^\top` by A in closed form and
    what B loses, of order 1/N, to second order: with u the eigenvalues of the relative change,
    :math:`\tfrac12 \sum (u - \log(1 + u)) \approx \tfrac14 \sum u^2`.

    Args:
        posterior: The posterior, in the eigenbasis of A.
        decay_step: t, `(C, D)` float32.
    """

    RANK = 1e-7  # relative size of an eigenvalue of the kernel below which it is left out

    def __init__(self, posterior: KronPosterior, decay_step: Tensor) -> None:
        precision, model = posterior.precision, posterior.model
        self.n, self.prior = model.n_samples, posterior.prior_precision
        self.alpha = precision.feature_values
        self.beta = precision.class_values
        self.basis = model.contrasts @ posterior.class_basis  # (C, C')
        self.factor = self.n * (self.basis * self.beta) @ self.basis.T
        self.step = decay_step
        step = decay_step.to(torch.float64)
        self.pull = ((self.factor @ step) * self.alpha).to(torch.float32)
        self.constant = float((step * (self.factor @ step) * self.alpha).sum())
        self.length = float(step.square().sum())
        spectrum = precision.spectrum()
        self.flat = spectrum.reciprocal()  # (C', D)
        self.ratio = self.alpha / spectrum
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
        entries, c = removal.entries, removal.class_of
        own = removal.multiplier[:, None] * removal.reach
        alpha = self.alpha.to(own.dtype)
        linear = removal.by_row(_dots(own, self.pull, c))
        length = removal.by_row(own.square().sum(1) + 2.0 * _dots(own, self.step, c))
        total = self.constant + 2.0 * linear
        across = torch.zeros_like(total)
        for rows, slots, mask in _padded(entries.row, len(removal.x)):
            part = own[slots] * mask[..., None]
            gram = (part * alpha) @ part.mT
            classes = c[slots]
            across[rows] = (gram * self.factor.to(gram.dtype)[classes[:, :, None], classes[:, None, :]]).sum(
                (1, 2), dtype=torch.float64
            )
        total += across - self._own_share(removal, own) - self._removed(removal)
        return 0.5 * (total / (self.n - 1) + self.prior * (self.length + length))

    def _own_share(self, removal: SparseRemoval, own: Tensor) -> Tensor:
        """Return `tr(S δ A δᵀ)`, what B loses with the sample."""
        entries, alpha = removal.entries, self.alpha.to(own.dtype)
        moved = own + self.step[removal.class_of]
        scaled = removal.by_row(entries.p * (moved.square() @ alpha))
        mean = torch.zeros_like(removal.x).index_add_(0, entries.row, entries.p[:, None] * moved)
        return removal.weight * (scaled - mean.square() @ alpha)

    def _removed(self, removal: SparseRemoval) -> Tensor:
        """Return `(δx)ᵀ (N B − S) δx`, what A loses with the sample."""
        along, p = removal.logit_shift, removal.probabilities
        whole = (along * (along @ self.factor.to(along.dtype))).sum(1)
        own = (p * along.square()).sum(1) - (p * along).sum(1).square()
        return (whole - removal.weight * own).to(torch.float64)

    def _covariance(self, removal: SparseRemoval) -> Tensor:
        squares, p = removal.x.to(torch.float64).square(), removal.probabilities.to(torch.float64)
        share = self.beta * (squares @ self.flat.T)
        own = removal.weight[:, None] * (p @ self.basis.square() - (p @ self.basis).square())
        cross = ((self.beta - own) * self.beta * (squares @ (self.ratio * self.flat).T)).sum(1)
        first = self.diagonal - 2.0 * (own * self.beta) @ self.kernel.diagonal() + self._pairs(removal)
        second = first / (self.n - 1) ** 2 - 2.0 * cross / (self.n - 1)
        return 0.5 * excess((-share).clamp_min(-1 + 1e-15)).sum(1) + 0.25 * second

    def _pairs(self, removal: SparseRemoval) -> Tensor:
        r"""Return :math:`\sum_{cc'} \tilde S_{cc'}^2 R_{cc'}`, R the kernel in the eigenbasis of B."""
        entries, out = removal.entries, torch.zeros(len(removal.x), dtype=torch.float64)
        out = out.to(removal.x.device)
        for rows, slots, mask in _padded(entries.row, len(removal.x)):
            p, classes = entries.p[slots] * mask, removal.class_of[slots]
            for mode in self.modes:
                inner = mode[classes[:, :, None], classes[:, None, :]]
                image = (inner @ p[:, :, None])[:, :, 0]
                squares = (p[:, :, None] * p[:, None, :] * inner.square()).sum((1, 2))
                out[rows] += squares - 2.0 * (p * image.square()).sum(1) + (p * image).sum(1).square()
        return removal.weight.to(torch.float64).square() * out


def _dots(values: Tensor, table: Tensor, which: Tensor) -> Tensor:
    """Return `values_e · table[which_e]`, `(e,)`."""
    return torch.bmm(values[:, None, :], table[which][:, :, None])[:, 0, 0]


def _padded(row: Tensor, n_rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Group samples by how many entries they have. Shapes: row `(e,)`."""
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
    """Return the scorer of a posterior. Shapes: decay_step `(C, D)`."""
    if isinstance(posterior, KronPosterior):
        return KronScorer(posterior, decay_step)
    assert isinstance(posterior, DiagPosterior)
    return DiagScorer(posterior, decay_step)
