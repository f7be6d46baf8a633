r"""Posterior precisions of the two heads, and the divergences that leaving out a pair causes.

Each structure gives three divergences for a pair: of the left head (the right one held), of the right head,
and of both as one vector. Diagonal and Kronecker-factored precisions have no entries between the heads, so
the third is the sum of the first two; the full precision has such entries.

* `exact(position, theta)` builds P₂, the precision without the pair, at the weights without it.
* `frozen(side, …)` takes P₂ at the full-data weights: the fast method uses it where building P₂ again for
  every pair is too expensive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lsi.divergence import KronPrecision, Terms, diag_divergence, full_divergence, kron_divergence
from lsi.loo.contrastive.curvature import dense_curvature, diagonal, output_curvature
from lsi.loo.contrastive.model import PairModel
from lsi.loo.contrastive.removal import diagonal_change
from lsi.loo.contrastive.state import Side

Divergences = tuple[Terms, Terms, Terms]
"""Of the left head, the right head and both, each of `(B,)` terms."""


@dataclass(frozen=True)
class Block:
    """Left-out pairs of one batch.

    Attributes:
        positions: Their positions among all pairs, `(B,)`.
        at: Their places in the batch, `(B,)`.
        candidates: `Side.candidate_means()` of the left and of the right head.
    """

    positions: Tensor
    at: Tensor
    candidates: tuple[Tensor, Tensor]


def add_terms(left: Terms, right: Terms) -> Divergences:
    """Return the divergences of both heads and their sum, where P has no entries between the heads."""
    return left, right, Terms(left.mean + right.mean, left.covariance + right.covariance)


class PairPrecision(ABC):
    """Precision of both heads on all pairs.

    Args:
        model: Pairs.
        theta: Trained heads, `(K,)` float64.
        prior_precision: τ.
        dtype: Type in which products are computed.
    """

    name: ClassVar[str]
    has_frozen: ClassVar[bool] = True

    def __init__(self, model: PairModel, theta: Tensor, prior_precision: float, dtype: torch.dtype) -> None:
        self.model, self.theta, self.prior_precision, self.dtype = model, theta, prior_precision, dtype

    @abstractmethod
    def exact(self, position: int, theta: Tensor) -> Divergences:
        """Return the divergences to the posterior at `theta` without a pair, each `(1,)`."""

    def lsi(self, position: int, theta: Tensor) -> float:
        """Return LSI of both heads to the posterior at `theta` without a pair."""
        return float(self.exact(position, theta)[2].total)

    def frozen(self, side: Side, block: Block, delta: Tensor, right: bool) -> Terms:
        """Return the divergence of one head, the curvature taken at the full-data weights, `(B,)`.

        Shapes: delta `(B, d·D)`.
        """
        raise TypeError(f"{self.name} has no frozen form")

    def _halves(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector[..., : self.model.n_left], vector[..., self.model.n_left :]


class DiagPairs(PairPrecision):
    """Diagonal of the Gauss-Newton matrix plus τ."""

    name = "diag"

    def __init__(self, model: PairModel, theta: Tensor, prior_precision: float, dtype: torch.dtype) -> None:
        super().__init__(model, theta, prior_precision, dtype)
        self.data = diagonal(model, theta, dtype).to(torch.float64)
        self.precision = self.data + prior_precision

    def exact(self, position: int, theta: Tensor) -> Divergences:
        """Return the divergences to the posterior at `theta` without a pair."""
        change = diagonal(self.model.without(position), theta, self.dtype).to(torch.float64) - self.data
        parts = (self._halves(v) for v in (self.precision, change[None], (theta - self.theta)[None]))
        left, right = zip(*parts, strict=True)
        return add_terms(diag_divergence(*left), diag_divergence(*right))

    def frozen(self, side: Side, block: Block, delta: Tensor, right: bool) -> Terms:
        """Return the divergence of one head; P₂ − P₁ is exact at the full-data weights."""
        change = diagonal_change(side, block.candidates[right], block.at).flatten(1)
        return diag_divergence(self._halves(self.precision)[right], change.to(torch.float64), delta)


class KronPairs(PairPrecision):
    """For each head `B ⊗ A + τ I`: B is the mean of the pairs' own `(d, d)` blocks, `A = Σ x xᵀ`."""

    name = "kron"

    def __init__(self, model: PairModel, theta: Tensor, prior_precision: float, dtype: torch.dtype) -> None:
        super().__init__(model, theta, prior_precision, dtype)
        self.mean = output_curvature(model, theta, torch.float64)
        self.bases, self.precisions = [], []
        for mean, x in zip(self.mean, (model.x, model.y), strict=True):
            beta, outputs = torch.linalg.eigh(mean)
            alpha, inputs = torch.linalg.eigh(x.T @ x)
            self.bases.append((outputs, inputs))
            self.precisions.append(KronPrecision(beta.clamp_min(0), alpha.clamp_min(0), prior_precision))

    def exact(self, position: int, theta: Tensor) -> Divergences:
        """Return the divergences to the posterior at `theta` without a pair."""
        means = output_curvature(self.model.without(position), theta, torch.float64)
        delta = self._halves(theta - self.theta)
        at = torch.tensor([position])
        terms = [self._terms(i, means[i] - self.mean[i], at, delta[i][None]) for i in (0, 1)]
        return add_terms(terms[0], terms[1])

    def frozen(self, side: Side, block: Block, delta: Tensor, right: bool) -> Terms:
        """Return the divergence of one head; only the pair's own block is taken out of the mean block."""
        n = self.model.n_pairs
        change = (self.mean[right] - side.own_curvature(block.at).to(torch.float64)) / (n - 1)
        return self._terms(int(right), change, block.positions, delta)

    def _terms(self, head: int, change: Tensor, positions: Tensor, delta: Tensor) -> Terms:
        outputs, inputs = self.bases[head]
        removed = (self.model.x, self.model.y)[head][positions] @ inputs
        weights = delta.view(len(positions), self.model.dim, -1)
        turned = outputs.T @ weights @ inputs
        change = outputs.T @ change.view(-1, self.model.dim, self.model.dim) @ outputs
        return kron_divergence(self.precisions[head], change, removed, turned)


class FullPairs(PairPrecision):
    """The whole Gauss-Newton matrix plus τ, entries between the heads included."""

    name = "full"
    has_frozen = False

    def __init__(self, model: PairModel, theta: Tensor, prior_precision: float, dtype: torch.dtype) -> None:
        super().__init__(model, theta, prior_precision, torch.float64)
        self.data = dense_curvature(model, theta, newton=False, dtype=torch.float64)
        k, size = model.n_left, len(theta)
        self.blocks = (slice(0, k), slice(k, size), slice(0, size))
        matrix = self.data + prior_precision * torch.eye(size, dtype=torch.float64)
        self.factors = [torch.linalg.cholesky(matrix[part, part]) for part in self.blocks]

    def exact(self, position: int, theta: Tensor) -> Divergences:
        """Return the divergences to the posterior at `theta` without a pair."""
        model = self.model.without(position)
        change = dense_curvature(model, theta, newton=False, dtype=torch.float64) - self.data
        delta = theta - self.theta
        left, right, both = (
            full_divergence(factor, change[part, part][None], delta[part][None])
            for factor, part in zip(self.factors, self.blocks, strict=True)
        )
        return left, right, both


PAIR_PRECISIONS: dict[str, type[PairPrecision]] = {
    kind.name: kind for kind in (DiagPairs, KronPairs, FullPairs)
}
