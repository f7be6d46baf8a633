r"""Posteriors of networks by the generalised Gauss-Newton matrix, and their divergences.

Every copy has its own weights, so that both precisions are computed in float64 from all of their samples, at
their own weights, and only then subtracted. A relative change of 1e-8 keeps half of its digits this way, and
adds 1e-16 nats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, full_divergence
from lsi.loo.networks.stack import Batch, LayerRoots, Stack
from lsi.loo.networks.trainer import Data

_ENTRIES = 1 << 24  # entries of one block of roots: 128 MiB


class NetworkPosterior(ABC):
    r"""A Gaussian posterior of a network's weights, with precision :math:`\sum_j J_j^\top S_j J_j + \tau I`.

    Args:
        stack: The network.
        data: The samples, in float64.
        prior_precision: τ > 0.
        last_only: Whether the posterior is over the weights of the last layer only.
        rows: Rows whose roots are computed together; None: as many as fit in memory.
    """

    name: ClassVar[str]

    def __init__(
        self, stack: Stack, data: Data, prior_precision: float, last_only: bool, rows: int | None = None
    ) -> None:
        self.stack, self.data, self.prior_precision, self.last_only = stack, data, prior_precision, last_only
        self.rows = rows
        parameters = stack.last if last_only else range(len(stack.shapes))
        self.columns = stack.columns_of(parameters).to(data.x.device)

    @abstractmethod
    def precision(self, copies: Tensor, index: Tensor) -> Any:
        """Return the precisions of copies. Shapes: copies `(B, K)`, index `(B,)`."""

    @abstractmethod
    def divergence(self, first: Any, second: Any, delta: Tensor) -> Terms:
        """Return ``KL(N(θ, P₁⁻¹) ‖ N(θ + δ, P₂⁻¹))``. Shapes: delta `(B, K)`."""

    @abstractmethod
    def copies_at_once(self) -> int:
        """Return how many copies' precisions to compute together, as memory allows."""

    def score(self, whole: Tensor, copies: Tensor, index: Tensor, first: Any) -> Terms:
        """Return the divergence of copies from the full-data weights, by blocks of copies."""
        parts = []
        for where in torch.arange(len(index)).split(self.copies_at_once()):
            second = self.precision(copies[where], index[where])
            parts.append(self.divergence(first, second, copies[where] - whole))
        return Terms(torch.cat([part.mean for part in parts]), torch.cat([part.covariance for part in parts]))

    def batch(self, index: Tensor) -> Batch:
        """Return all samples as one batch for copies that leave out `index`."""
        data = self.data
        where = torch.arange(len(data.x), device=data.x.device)
        return Batch.of(data.x, data.y, data.weight, where, index)

    def rows_at_once(self, n_copies: int) -> int:
        """Return how many rows' roots to compute together for some copies."""
        if self.rows is not None:
            return self.rows
        widest = max(shape[0] for shape in self.stack.shapes) + self.data.x.shape[1]
        return max(16, _ENTRIES // (n_copies * self.stack.n_outputs * widest))


class DiagNetwork(NetworkPosterior):
    """The diagonal of the precision."""

    name = "diag"

    def copies_at_once(self) -> int:
        """Return how many copies are handled together."""
        return max(1, min(64, _ENTRIES // max(1, self.stack.n_parameters)))

    def precision(self, copies: Tensor, index: Tensor) -> Tensor:
        """Return the diagonals `(B, k)`."""
        total = torch.full_like(copies[:, self.columns], self.prior_precision)
        for block in self.batch(index).blocks(self.rows_at_once(len(index))):
            if self.last_only:
                total += self.stack.roots(copies, block, True)[0].diagonal()
            else:
                total += self.stack.diagonal(copies, block)
        return total

    def divergence(self, first: Tensor, second: Tensor, delta: Tensor) -> Terms:
        """Return the divergence of diagonals."""
        return diag_divergence(first[0], second - first, delta[:, self.columns])


class FullNetwork(NetworkPosterior):
    """The whole precision, `k` by `k`."""

    name = "full"

    def copies_at_once(self) -> int:
        """Return how many copies are handled together."""
        return max(1, _ENTRIES // len(self.columns) ** 2)

    def precision(self, copies: Tensor, index: Tensor) -> Tensor:
        """Return the precisions `(B, k, k)`."""
        k = len(self.columns)
        total = self.prior_precision * torch.eye(k, dtype=copies.dtype, device=copies.device)
        total = total.repeat(len(copies), 1, 1)
        rows = max(16, _ENTRIES // (self.stack.n_outputs * self.stack.n_parameters))
        for place, copy in enumerate(copies):
            for block in self.batch(index[place : place + 1]).blocks(rows):
                total[place] += self._gram(copy, block)
        return total

    def _gram(self, copy: Tensor, block: Batch) -> Tensor:
        if self.last_only:
            root = self.stack.roots(copy[None], block, True)[0].outer()
        else:
            root = self.stack.jacobian_roots(copy, block)
        root = root.flatten(0, 1)
        return root.T @ root

    def divergence(self, first: Tensor, second: Tensor, delta: Tensor) -> Terms:
        """Return the divergence of dense precisions."""
        factor = torch.linalg.cholesky(first[0])
        return full_divergence(factor, second - first, delta[:, self.columns])


class KronNetwork(NetworkPosterior):
    r"""Layer by layer, `B ⊗ A + τI`.

    .. math:: B = \frac1n \sum_j \Delta_j \Delta_j^\top, \qquad A = \sum_j a_j a_j^\top

    These are the factors of K-FAC, with inputs :math:`a_j` of the layer and backpropagated columns
    :math:`\Delta_j` of the root of the loss's curvature (`LayerRoots`); weights of different layers are
    independent. Without hidden layers this is the `KronPosterior` of the linear probe.
    """

    name = "kron"

    def copies_at_once(self) -> int:
        """Return how many copies are handled together."""
        return max(1, min(64, _ENTRIES // sum(max(shape) ** 2 for shape in self.stack.shapes)))

    def precision(self, copies: Tensor, index: Tensor) -> list[Factors]:
        """Return the factors of every layer."""
        total: list[Factors] = []
        batch = self.batch(index)
        for block in batch.blocks(self.rows_at_once(len(index))):
            layers = self.stack.roots(copies, block, self.last_only)
            part = [Factors.of(layer, block, self.stack) for layer in layers]
            total = part if not total else [old.plus(new) for old, new in zip(total, part, strict=True)]
        return [factors.averaged(batch.count) for factors in total]

    def divergence(self, first: list[Factors], second: list[Factors], delta: Tensor) -> Terms:
        """Return the sum of the layers' divergences."""
        terms = [
            kron_layer_divergence(a, b, b.matrix(delta), self.prior_precision)
            for a, b in zip(first, second, strict=True)
        ]
        mean = torch.stack([term.mean for term in terms]).sum(0)
        return Terms(mean, torch.stack([term.covariance for term in terms]).sum(0))


class Factors:
    """Kronecker factors of one layer for B copies.

    Args:
        outputs: B, `(B, o, o)`.
        inputs: A, `(B, d, d)`.
        columns: Positions of the layer's weights and bias in a copy, `(o·d₀ (+ o),)`.
        has_bias: Whether the last of the d inputs is the bias.
    """

    def __init__(self, outputs: Tensor, inputs: Tensor, columns: Tensor, has_bias: bool) -> None:
        self.outputs, self.inputs, self.columns, self.has_bias = outputs, inputs, columns, has_bias

    @classmethod
    def of(cls, layer: LayerRoots, block: Batch, stack: Stack) -> Factors:
        """Return the sums over a block of rows."""
        flat = layer.columns.flatten(1, 2)
        a = layer.inputs
        gram = (a.mT @ a).expand(block.n_copies, -1, -1).clone()
        for copy, row in zip(block.copies.tolist(), block.rows.tolist(), strict=True):
            removed = a[min(copy, len(a) - 1), row]
            gram[copy] -= torch.outer(removed, removed)
        columns = stack.columns_of(layer.parameters).to(flat.device)
        return cls(flat.mT @ flat, gram, columns, len(layer.parameters) == 2)

    def plus(self, other: Factors) -> Factors:
        """Return the sums over both blocks of rows."""
        return Factors(self.outputs + other.outputs, self.inputs + other.inputs, self.columns, self.has_bias)

    def averaged(self, count: Tensor) -> Factors:
        """Return the factors with B divided by the number of samples that each copy sees."""
        return Factors(self.outputs / count[:, None, None], self.inputs, self.columns, self.has_bias)

    def matrix(self, delta: Tensor) -> Tensor:
        """Return the layer's part of weights `(B, K)` as `(B, o, d)`."""
        o, part = self.outputs.shape[-1], delta[:, self.columns]
        if not self.has_bias:
            return part.view(len(part), o, -1)
        return torch.cat([part[:, :-o].view(len(part), o, -1), part[:, -o:, None]], 2)


def kron_layer_divergence(first: Factors, second: Factors, delta: Tensor, prior_precision: float) -> Terms:
    r"""Return the divergence of two Gaussians with precisions `B ⊗ A + τI`, where all factors differ.

    .. math:: \tfrac12 \bigl[\mathrm{tr}(\delta^\top B_2\, \delta A_2) + \tau \|\delta\|^2\bigr],
              \qquad \tfrac12 \sum_{cd} \Bigl[\frac{b_c \alpha_d + (B_2)_{cc}\, a_d}{f_{cd}}
              - \log\Bigl(1 + \frac{\beta'_c \alpha'_d - \beta_c \alpha_d}{f_{cd}}\Bigr)\Bigr]

    in the eigenbases of the first factors, where:

    * :math:`\beta, \alpha` and :math:`\beta', \alpha'` are the eigenvalues of both factors, ascending,
    * :math:`f_{cd} = \beta_c \alpha_d + \tau`,
    * b and a are the diagonals of :math:`B_2 - B_1` and :math:`A_2 - A_1`.

    The first part is :math:`\mathrm{tr}(P_1^{-1}(P_2 - P_1))`. To first order both parts cancel: the rest is
    good to about 1e-16 of their size, which is K/N for one sample of N.

    Shapes: delta `(B, o, d)`.
    """
    tau = prior_precision
    # Eigenbases U, V of B₁ and A₁.
    beta, u = torch.linalg.eigh(first.outputs[0])
    alpha, v = torch.linalg.eigh(first.inputs[0])
    beta, alpha = beta.clamp_min(0), alpha.clamp_min(0)
    f = beta[:, None] * alpha + tau
    # Diagonal of P₂ − P₁ = (B₂ − B₁) ⊗ A₁ + B₂ ⊗ (A₂ − A₁).
    b2 = _diagonals(u.T @ second.outputs @ u)
    b = _diagonals(u.T @ (second.outputs - first.outputs) @ u)
    a = _diagonals(v.T @ (second.inputs - first.inputs) @ v)
    change = b[:, :, None] * alpha + b2[:, :, None] * a[:, None, :]
    # Differences of the eigenvalues β'α' − βα.
    new_beta = torch.linalg.eigvalsh(second.outputs).clamp_min(0)
    new_alpha = torch.linalg.eigvalsh(second.inputs).clamp_min(0)
    shift = new_beta[:, :, None] * new_alpha[:, None, :] - beta[:, None] * alpha
    covariance = (change / f - torch.log1p(shift / f)).sum((1, 2))
    mean = (delta * (second.outputs @ delta @ second.inputs + tau * delta)).sum((1, 2))
    return Terms(0.5 * mean.clamp_min(0), 0.5 * covariance.clamp_min(0))


def _diagonals(matrices: Tensor) -> Tensor:
    """Return the diagonals `(B, k)` of matrices `(B, k, k)`."""
    return matrices.diagonal(dim1=1, dim2=2)


NETWORK_POSTERIORS: dict[str, type[NetworkPosterior]] = {
    kind.name: kind for kind in (DiagNetwork, KronNetwork, FullNetwork)
}
