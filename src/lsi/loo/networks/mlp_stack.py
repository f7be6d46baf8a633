"""Copies of a multi-layer perceptron, by hand-batched matrix products.

Activations are kept as `(B, width, n)`: the first layer, whose input all copies share, is then one
matrix product over all of them, and softmax and activations run along contiguous samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lsi.loo.networks.stack import Batch, LayerRoots, Stack
from lsi.probes.networks import mlp_module

Back = Callable[[Tensor, Tensor, Tensor], Tensor]


def _gelu_back(delta: Tensor, z: Tensor, a: Tensor) -> Tensor:
    normal = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
    return delta * (normal + z * torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi))


@dataclass(frozen=True)
class Activation:
    """A nonlinearity between layers.

    Attributes:
        function: Returns activations a of sums z, which it may overwrite.
        back: Returns the gradient by z from the gradient by a, from z (or what overwrote it) and from a.
    """

    function: Callable[[Tensor], Tensor]
    back: Back


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu_, lambda g, z, a: torch.ops.aten.threshold_backward(g, a, 0)),
    "tanh": Activation(torch.tanh_, lambda g, z, a: g * (1.0 - a.square())),
    "gelu": Activation(nn.functional.gelu, _gelu_back),
    "sigmoid": Activation(torch.sigmoid_, lambda g, z, a: g * (a * (1.0 - a))),
}


class MLPStack(Stack):
    """Copies of a perceptron with cross-entropy loss.

    Args:
        widths: D, hidden layers, C.
        activation: A key of `ACTIVATIONS`.
        bias: Whether layers have one.
        rows: Rows of one pass over the data; None: as many as stay in the caches.
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "relu", bias: bool = True, rows: int | None = None
    ) -> None:
        self.widths, self.activation, self.bias = tuple(widths), activation, bias
        shapes = []
        for wide, narrow in pairwise(self.widths):
            shapes += [torch.Size((narrow, wide))] + ([torch.Size((narrow,))] if bias else [])
        super().__init__(shapes, self.widths[-1], rows)

    @property
    def last(self) -> tuple[int, ...]:
        """Parameters of the last layer."""
        count = len(self.shapes)
        return (count - 2, count - 1) if self.bias else (count - 1,)

    def fresh(self) -> nn.Module:
        """Return one perceptron."""
        return mlp_module(self.widths, self.activation, self.bias)

    def start(self, seed: int) -> Tensor:
        """Return the weights of ``torch.manual_seed(seed)``, then the layers in order."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.fresh()
        return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])

    def outputs(self, flat: Tensor, n_copies: int, x: Tensor) -> Tensor:
        """Return the logits `(B, n, C)`."""
        return self._forward(self._layers(flat, n_copies), x).logits.mT

    def gradient(self, flat: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of the summed loss by backpropagation."""
        return self._summed(flat, batch, None)

    def clipped_gradient(self, flat: Tensor, batch: Batch, bound: float) -> Tensor:
        r"""Return the sum of clipped gradients, without forming a single one.

        A sample's gradient of a layer is :math:`\Delta a^\top`, of norm :math:`\|\Delta\| \|a\|`.
        """
        return self._summed(flat, batch, bound)

    def roots(self, copies: Tensor, batch: Batch, last_only: bool) -> list[LayerRoots]:
        """Return inputs and backpropagated columns of every layer, or of the last one."""
        layers = self._layers(self.scatter(copies), len(copies))
        forward = self._forward(layers, batch.x)
        columns = _root_columns(forward.logits, batch)
        deltas = [self._backward(layers, forward, column, last_only) for column in columns]
        out = []
        for place in [len(layers) - 1] if last_only else range(len(layers)):
            inputs = forward.inputs[place].mT
            inputs = inputs if inputs.ndim == 3 else inputs[None]
            if self.bias:
                inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], 2)
            stacked = torch.stack([delta[place - len(layers)] for delta in deltas], 1)  # (B, C, o, n)
            parameters = (2 * place, 2 * place + 1) if self.bias else (place,)
            out.append(LayerRoots(inputs, stacked.permute(0, 3, 1, 2), parameters))
        return out

    def diagonal(self, copies: Tensor, batch: Batch) -> Tensor:
        """Return the diagonal of the samples' summed curvature, layer by layer, `(B, K)`."""
        return torch.cat([layer.diagonal() for layer in self.roots(copies, batch, False)], 1)

    def jacobian_roots(self, copy: Tensor, batch: Batch) -> Tensor:
        """Return the outer products of columns and inputs, `(n, C, K)`."""
        return torch.cat([layer.outer() for layer in self.roots(copy[None], batch, False)], 2)

    def _layers(self, flat: Tensor, n_copies: int) -> list[Layer]:
        """Return weight and bias of every layer in a flat buffer."""
        views = self.views(flat, n_copies)
        return (
            list(zip(views[::2], views[1::2], strict=True)) if self.bias else [(view, None) for view in views]
        )

    def copies_in_cache(self, n_samples: int, itemsize: int) -> int:
        """Return how many copies keep weights and activations in the caches while they train."""
        each = itemsize * max(self.n_parameters, min(n_samples, 256) * max(self.widths[1:]))
        return max(8, _cache() // each)

    def _rows(self, flat: Tensor, n_copies: int) -> int:
        """Return how many rows of activations to compute at a time."""
        return self.rows or max(256, _cache() // (flat.element_size() * n_copies * max(self.widths[1:])))

    def _summed(self, flat: Tensor, batch: Batch, bound: float | None) -> Tensor:
        """Return the sum of the samples' gradients, clipped to `bound` where one is given, flat."""
        layers = self._layers(flat, batch.n_copies)
        total: Tensor | None = None
        for block in batch.blocks(self._rows(flat, batch.n_copies)):
            forward = self._forward(layers, block.x)
            deltas = self._backward(layers, forward, _residuals(forward.logits, block), False)
            if bound is not None:
                self._clip(forward.inputs, deltas, bound)
            part = self._products(forward.inputs, deltas)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _forward(self, layers: list[Layer], x: Tensor) -> Forward:
        """Compute `z = W a + b` and the next `a` layer by layer."""
        function = ACTIVATIONS[self.activation].function
        inputs, sums = [x.T], []
        weight, bias = layers[0]
        z = (weight.flatten(0, 1) @ x.T).view(*weight.shape[:2], -1)
        for following, next_bias in [*layers[1:], (None, None)]:
            if bias is not None:
                z.add_(bias[:, :, None])
            if following is None:
                break
            sums.append(z)
            inputs.append(function(z))
            z, bias = following @ inputs[-1], next_bias
        return Forward(z, inputs, sums)

    def _backward(
        self, layers: list[Layer], forward: Forward, delta: Tensor, last_only: bool
    ) -> list[Tensor]:
        """Return the gradients Δ by every layer's sums, `(B, o, n)` each; the last one is `delta`."""
        deltas, back = [delta], ACTIVATIONS[self.activation].back
        for place in range(len(layers) - 1, 0, -1):
            if last_only:
                break
            by_input = layers[place][0].mT @ deltas[0]
            deltas.insert(0, back(by_input, forward.sums[place - 1], forward.inputs[place]))
        return deltas

    def _clip(self, inputs: list[Tensor], deltas: list[Tensor], bound: float) -> None:
        """Scale the samples' gradients in place to a norm of at most `bound`, as Opacus does."""
        one = 1.0 if self.bias else 0.0
        squares = sum(
            delta.square().sum(1) * (a.square().sum(-2) + one)
            for a, delta in zip(inputs, deltas, strict=True)
        )
        assert isinstance(squares, Tensor)
        factor = (bound / (squares.sqrt() + 1e-6)).clamp_max(1.0)
        for delta in deltas:
            delta.mul_(factor[:, None, :])

    def _products(self, inputs: list[Tensor], deltas: list[Tensor]) -> Tensor:
        """Return the gradient as a flat buffer."""
        first = deltas[0].flatten(0, 1) @ inputs[0].T
        parts = [first.view(-1)] + ([deltas[0].sum(2).view(-1)] if self.bias else [])
        for a, delta in zip(inputs[1:], deltas[1:], strict=True):
            parts.append((delta @ a.mT).view(-1))
            if self.bias:
                parts.append(delta.sum(2).view(-1))
        return torch.cat(parts)


def _cache() -> int:
    """Return the bytes of one array that stay in the caches of all threads together."""
    return torch.get_num_threads() << 20


Layer = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Forward:
    """A forward pass: logits `(B, C, n)`, each layer's inputs, and the sums before each activation."""

    logits: Tensor
    inputs: list[Tensor]
    sums: list[Tensor]


def _residuals(logits: Tensor, batch: Batch) -> Tensor:
    """Return the weighted gradients of the losses by the logits, `(B, C, n)`, zero where left out."""
    delta = torch.softmax(logits, 1)
    delta[:, batch.y, torch.arange(len(batch.y), device=delta.device)] -= 1.0
    if batch.weight is not None:
        delta.mul_(batch.weight.to(delta.dtype))
    delta[batch.copies, :, batch.rows] = 0.0
    return delta


def _root_columns(logits: Tensor, batch: Batch) -> list[Tensor]:
    r"""Return the columns of :math:`R = \sqrt{w} (\mathrm{diag}(s) - p s^\top)`, `(B, C, n)` each.

    With :math:`s = \sqrt p`, of length 1, :math:`R R^\top = w (\mathrm{diag}(p) - p p^\top)`.
    """
    p = torch.softmax(logits, 1)
    s = p.sqrt() * batch.weights().sqrt()[:, None, :]
    columns = []
    for c in range(p.shape[1]):
        column = -p * s[:, c, None]
        column[:, c] += s[:, c]
        columns.append(column)
    return columns
