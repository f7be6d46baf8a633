r"""The contrastive objective: data, heads, value and gradient, with or without one pair.

Objectives are in sum form,
:math:`F(\theta) = \sum_i \ell_i + \tfrac12 n\,\mathrm{wd}\,\|\theta-\theta_0\|^2`, with n the number of pairs
that take part; :math:`\theta` holds the left head `(d, D1)`, then the right one `(d, D2)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lsi.probes.contrastive import ContrastiveProbe


def unit_rows(features: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return rows scaled to length `√D`, `(N, D)`; rows of zeros stay zero."""
    rows = torch.from_numpy(np.require(features, np.float64, "W"))
    length = rows.norm(dim=1, keepdim=True)
    return (rows * (rows.shape[1] ** 0.5 / torch.where(length > 0, length, 1.0))).to(dtype)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings `z / ρ`, `(n, d)`, and their `ρ = sqrt(‖z‖² + ε²)`, `(n, 1)`."""

    unit: Tensor
    length: Tensor

    @classmethod
    def of(cls, z: Tensor, floor: float) -> Embeddings:
        """Normalise projections `(…, d)`; a zero projection without a floor stays zero."""
        square = z.square().sum(-1, keepdim=True) + floor**2
        length = square.clamp_min(torch.finfo(z.dtype).tiny).sqrt()
        return cls(z / length, length)

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Return the gradient by z, given the gradient by the embedding. Shapes: both `(n, d)`."""
        inward = (self.unit * gradient).sum(-1, keepdim=True)
        return (gradient - self.unit * inward) / self.length


@dataclass(frozen=True)
class PairModel:
    """Pairs, and the objective of two heads on them.

    Attributes:
        x: Left features with rows of length √D1, `(N, D1)`.
        y: Right features, `(N, D2)`.
        dim: d.
        temperature: T.
        floor: ε.
        weight_decay: wd, on the scale of the mean loss.
        initial: θ₀, `(K,)`.
        batches: Positions of the pairs of each batch.
        left_out: Position of the pair that does not take part, or None.
    """

    x: Tensor
    y: Tensor
    dim: int
    temperature: float
    floor: float
    weight_decay: float
    initial: Tensor
    batches: list[Tensor]
    left_out: int | None = None

    @classmethod
    def build(cls, left: np.ndarray, right: np.ndarray, probe: ContrastiveProbe) -> PairModel:
        """Return the model in float64 on checked features."""
        heads = probe.initial_weights(left.shape[1], right.shape[1])
        initial = torch.cat([head.flatten() for head in heads]).to(torch.float64)
        floor = probe.norm_floor * (probe.dim / 3) ** 0.5
        x, y = unit_rows(left, torch.float64), unit_rows(right, torch.float64)
        batches = probe.batches(len(x))
        return cls(x, y, probe.dim, probe.temperature, floor, probe.weight_decay, initial, batches)

    @property
    def n_pairs(self) -> int:
        """Number of pairs that take part."""
        return len(self.x) - (self.left_out is not None)

    @property
    def ridge(self) -> float:
        """Pull to the initial weights in the sum form, `n · weight_decay`."""
        return self.n_pairs * self.weight_decay

    @property
    def n_left(self) -> int:
        """Number of weights of the left head."""
        return self.dim * int(self.x.shape[1])

    def without(self, position: int) -> PairModel:
        """Return the model in which one pair is neither anchor nor candidate."""
        return replace(self, left_out=position)

    def parts(self) -> Iterator[Tensor]:
        """Yield the positions of each batch, without the pair that is left out."""
        for batch in self.batches:
            yield batch if self.left_out is None else batch[batch != self.left_out]

    def batch_of(self, position: int) -> Tensor:
        """Return the batch that a pair belongs to."""
        return next(batch for batch in self.batches if bool((batch == position).any()))

    def heads(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two heads `(d, D1)` and `(d, D2)`."""
        return theta[: self.n_left].view(self.dim, -1), theta[self.n_left :].view(self.dim, -1)

    def embed(self, theta: Tensor, rows: Tensor) -> tuple[Embeddings, Embeddings]:
        """Return the embeddings of both sides at `rows`."""
        left, right = self.heads(theta)
        z, w = self.x[rows] @ left.T.to(self.x.dtype), self.y[rows] @ right.T.to(self.y.dtype)
        return Embeddings.of(z, self.floor), Embeddings.of(w, self.floor)

    def value_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return `F(θ)` and its gradient `(K,)`."""
        away = theta - self.initial.to(theta.dtype)
        value, gradient = 0.5 * self.ridge * away.square().sum(), self.ridge * away
        for rows in self.parts():
            u, v = self.embed(theta, rows)
            loss, by_u, by_v = _symmetric_loss(u.unit, v.unit, self.temperature)
            value = value + loss
            by_left, by_right = u.pull_back(by_u).T @ self.x[rows], v.pull_back(by_v).T @ self.y[rows]
            gradient += torch.cat([by_left.flatten(), by_right.flatten()])
        return value, gradient


def _symmetric_loss(u: Tensor, v: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss of a batch and its gradients by both embeddings."""
    # Logits are at most 1/T, so exp(logit − 1/T) cannot overflow; rows and columns share it.
    weight = (u @ v.T).div_(temperature).sub_(1.0 / temperature).exp_()
    row, column = weight.sum(1, keepdim=True), weight.sum(0)[:, None]
    match = (u * v).sum() / temperature
    loss = 0.5 * (row.log().sum() + column.log().sum()) + len(u) / temperature - match
    by_u = (0.5 * ((weight @ v) / row + weight @ (v / column)) - v) / temperature
    by_v = (0.5 * ((weight.T @ u) / column + weight.T @ (u / row)) - u) / temperature
    return loss, by_u, by_v
