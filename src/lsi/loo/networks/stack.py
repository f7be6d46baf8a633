r"""The contract of a stack: what training and posteriors need of B copies of one network.

The weights of B copies are in one flat buffer, parameter by parameter and copy by copy within each. An
optimizer is then a few elementwise operations on the whole buffer, and the weights of one layer are one
contiguous `(B, …)` block. A single copy is the concatenation of its parameters in the order of
``module.parameters()``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """The rows of a step, and which copy leaves out which of them.

    Attributes:
        x: Features, `(n, D)`.
        y: Class codes, `(n,)`.
        weight: Sample weights `(n,)`, or None where all are one.
        copies: Copies that leave out a sample of this batch, `(m,)`.
        rows: The row that each of them leaves out, `(m,)`.
        n_copies: B.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None
    copies: Tensor
    rows: Tensor
    n_copies: int

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weight: Tensor | None, where: Tensor, index: Tensor) -> Batch:
        """Return the batch of the samples at `where` for copies that leave out `index`.

        Shapes: x `(n, D)`, where `(n,)`, index `(B,)`.
        """
        copies, rows = torch.nonzero(index[:, None] == where[None, :], as_tuple=True)
        return cls(x, y, weight, copies, rows, len(index))

    @property
    def count(self) -> Tensor:
        """Number of samples that each copy sees, `(B,)`."""
        count = torch.full((self.n_copies,), float(len(self.x)), dtype=self.x.dtype, device=self.x.device)
        count[self.copies] -= 1.0
        return count

    def weights(self) -> Tensor:
        """Return the weight of every sample in every copy, `(B, n)`, zero where it is left out."""
        plain = self.x.new_ones(len(self.x)) if self.weight is None else self.weight.to(self.x.dtype)
        weights = plain.expand(self.n_copies, -1).clone()
        weights[self.copies, self.rows] = 0.0
        return weights

    def of_copy(self, copy: int) -> Batch:
        """Return the batch as one copy sees it."""
        rows = self.rows[self.copies == copy]
        return Batch(self.x, self.y, self.weight, torch.zeros_like(rows), rows, 1)

    def blocks(self, size: int) -> Iterator[Batch]:
        """Yield the batch in pieces of at most `size` rows."""
        if len(self.x) <= size:
            yield self
            return
        for low in range(0, len(self.x), size):
            inside = (self.rows >= low) & (self.rows < low + size)
            piece = slice(low, low + size)
            weight = None if self.weight is None else self.weight[piece]
            rows = self.rows[inside] - low
            yield Batch(self.x[piece], self.y[piece], weight, self.copies[inside], rows, self.n_copies)


@dataclass(frozen=True)
class LayerRoots:
    r"""One linear layer's part of the curvature's square root.

    With inputs :math:`a_j` and backpropagated columns :math:`\Delta_{jc}` of the root :math:`R_j` of the
    loss's curvature (:math:`R_j R_j^\top = S_j`), sample j's Gauss-Newton matrix of this layer is
    :math:`\sum_c (\Delta_{jc} \Delta_{jc}^\top) \otimes (a_j a_j^\top)`.

    Attributes:
        inputs: a, `(B or 1, n, d)`, with a column of ones where the layer has a bias.
        columns: Δ, `(B, n, C, o)`, zero for left-out samples.
        parameters: Which parameters of the network these are: weight, and bias where there is one.
    """

    inputs: Tensor
    columns: Tensor
    parameters: tuple[int, ...]

    def diagonal(self) -> Tensor:
        """Return the diagonal of the samples' summed curvature, `(B, k)`, weight before bias."""
        return self._split(self.columns.square().sum(2).mT @ self.inputs.square())

    def outer(self) -> Tensor:
        """Return the rows `R_jᵀ J_j` of a single copy, `(n, C, k)`, weight before bias."""
        return self._split(self.columns[0, :, :, :, None] * self.inputs[0, :, None, None, :])

    def _split(self, entries: Tensor) -> Tensor:
        """Return `(…, o, d)` flattened as the parameters are, a bias last."""
        if len(self.parameters) == 1:
            return entries.flatten(-2)
        return torch.cat([entries[..., :-1].flatten(-2), entries[..., -1]], -1)


class Stack(ABC):
    """The functions of one network with a loss, for B copies whose weights are passed in.

    Args:
        shapes: Shapes of one copy's parameters, in their order.
        n_outputs: C.
        rows: Rows of one pass over the data; None: as many as fit in caches or memory.
    """

    def __init__(self, shapes: Sequence[torch.Size], n_outputs: int, rows: int | None = None) -> None:
        self.shapes, self.n_outputs, self.rows = tuple(shapes), n_outputs, rows
        self.sizes = tuple(prod(shape) for shape in self.shapes)

    @property
    def n_parameters(self) -> int:
        """Number of weights K of one copy."""
        return sum(self.sizes)

    def spread(self, start: Tensor, n_copies: int) -> Tensor:
        """Return the flat buffer of copies that are all equal to `start`, `(K,)`."""
        parts = start.split(self.sizes)
        return torch.cat([part.expand(n_copies, -1).reshape(-1) for part in parts])

    def views(self, flat: Tensor, n_copies: int) -> list[Tensor]:
        """Return the parameters in a flat buffer, `(B, *shape)` each, without a copy."""
        parts = flat.split([n_copies * size for size in self.sizes])
        return [part.view(n_copies, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def gather(self, flat: Tensor, n_copies: int) -> Tensor:
        """Return the copies one a row, `(B, K)`."""
        return torch.cat([view.flatten(1) for view in self.views(flat, n_copies)], 1)

    def scatter(self, copies: Tensor) -> Tensor:
        """Return the flat buffer of copies `(B, K)`: the inverse of `gather`."""
        return torch.cat([part.reshape(-1) for part in copies.split(self.sizes, 1)])

    def scale(self, flat: Tensor, factor: Tensor) -> Tensor:
        """Multiply every copy in place by its entry of `factor`, `(B,)`."""
        for part in flat.split([len(factor) * size for size in self.sizes]):
            part.view(len(factor), -1).mul_(factor[:, None])
        return flat

    def norm(self, flat: Tensor, n_copies: int) -> Tensor:
        """Return the Euclidean norm of every copy, `(B,)`."""
        return torch.stack([view.flatten(1).norm(dim=1) for view in self.views(flat, n_copies)]).norm(dim=0)

    def copies_in_cache(self, n_samples: int, itemsize: int) -> int:
        """Return how many copies are trained fastest together."""
        return 64

    @abstractmethod
    def fresh(self) -> nn.Module:
        """Return one copy as a module, initialised from torch's generator as it is."""

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the losses of a batch, `(n,)`, from logits `(n, C)`."""
        return nn.functional.cross_entropy(output, target, reduction="none")

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """Return the initial weights `(K,)` in float32, on the CPU."""

    @abstractmethod
    def outputs(self, flat: Tensor, n_copies: int, x: Tensor) -> Tensor:
        """Return the logits `(B, n, C)` of all copies for rows `x`, `(n, D)`."""

    @abstractmethod
    def gradient(self, flat: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of every copy's summed loss, as a flat buffer."""

    @abstractmethod
    def clipped_gradient(self, flat: Tensor, batch: Batch, bound: float) -> Tensor:
        """Return the sum of the samples' gradients, each scaled to a norm of at most `bound`, flat."""

    @abstractmethod
    def roots(self, copies: Tensor, batch: Batch, last_only: bool) -> list[LayerRoots]:
        """Return the square roots of the curvature by layers. Shapes: copies `(B, K)`."""

    @abstractmethod
    def jacobian_roots(self, copy: Tensor, batch: Batch) -> Tensor:
        """Return `R_jᵀ J_j` of one copy `(K,)`, with the weights' roots, `(n, C, K)`."""

    def diagonal(self, copies: Tensor, batch: Batch) -> Tensor:
        """Return the diagonal of the samples' summed curvature, `(B, K)`. Shapes: copies `(B, K)`."""
        singles = [self.jacobian_roots(copy, batch.of_copy(b)) for b, copy in enumerate(copies)]
        return torch.stack([single.square().sum((0, 1)) for single in singles])

    @property
    @abstractmethod
    def last(self) -> tuple[int, ...]:
        """Parameters of the last linear layer: weight, and bias where there is one."""

    def columns_of(self, parameters: Sequence[int]) -> Tensor:
        """Return where some parameters lie in a copy, as positions `(k,)`."""
        offsets = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        return torch.cat([torch.arange(offsets[i], offsets[i] + self.sizes[i]) for i in parameters])
