r"""Heads without one sample each, followed as differences from the full-data head.

With :math:`\delta_i(t) = \theta_{-i}(t) - \theta(t)` after t epochs, the difference of the two gradients,

.. math:: \frac{1}{n-1} \Bigl[\sum_{j \ne i} w_j (p_j(\theta + \delta_i) - p_j(\theta)) \otimes x_j
          - w_i r_i \otimes x_i + \frac1n \sum_j w_j r_j \otimes x_j \Bigr] + \mathrm{wd}\, \delta_i,

where:

* :math:`r_j = p_j(\theta) - e_{y_j}` is a residual at the full-data weights,
* :math:`w_j` a sample weight and wd the weight decay,

is computed at some epochs only, the nodes. Between two nodes, a stride, the part of it that is linear in
:math:`\delta_i` is followed epoch by epoch in closed form (`lsi.loo.retrain.strides.filters`). The rest, the
forcing, changes slowly and is interpolated by a cubic polynomial through four nodes: an Adams-type multistep
method with one gradient a stride.

Source: Hochbruck, Ostermann, *Exponential integrators*, Acta Numerica 19, 2010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Tick
from lsi.loo.newton.sweep import own_entries
from lsi.loo.retrain.copies import Record
from lsi.loo.retrain.strides.filters import Responses
from lsi.loo.retrain.strides.modes import Modes, curvature_modes, principal_axes
from lsi.methods.retrain import Retrain
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel

ELEMENTS = 1 << 20  # logits of one block of rows
MEMORY = 3  # past nodes, the present one included, that the forcing is interpolated through
FRESH = 1.6  # modes are computed again once the number of epochs has grown by this factor


@dataclass
class Node:
    """Differences of gradients and weights of B heads at an epoch, both in modes, `(K, B)`."""

    epoch: int
    gradient: Tensor
    weights: Tensor


@dataclass
class Heads:
    """B left-out heads during training, as differences from the full-data head, in modes.

    Attributes:
        weights: δ, `(K, B)`.
        velocity: Difference of the momentum buffers, `(K, B)`.
        past: The last nodes, the present one last.
        doubt: Largest correction of a stride so far, relative to δ itself, `(B,)`.
    """

    weights: Tensor
    velocity: Tensor
    past: list[Node]
    doubt: Tensor

    def turn(self, before: Modes, after: Modes) -> None:
        """Change from the modes `before` to the modes `after`, in place."""
        tensors = {id(each): each for node in self.past for each in (node.gradient, node.weights)}
        for each in ({id(self.weights): self.weights, id(self.velocity): self.velocity} | tensors).values():
            after.into(before.back(each))


@dataclass
class Path:
    """The training of the full-data head.

    Attributes:
        model: Data in principal coordinates, `(N, R)`.
        weights: Weights θ of all classes at the nodes, `(R, C)` each, by epoch, from 0.
    """

    model: SoftmaxModel
    weights: dict[int, Tensor]
    _modes: dict[int, Modes] = field(default_factory=dict)

    def modes(self, epoch: int) -> Modes:
        """Return the modes at an epoch."""
        if epoch not in self._modes:
            self._modes[epoch] = curvature_modes(self.model, self.weights[epoch])
        return self._modes[epoch]


class StrideTrainer:
    """Trains B left-out heads at a time, with gradients computed from the data at the nodes only.

    Args:
        model: Data and objective, in original coordinates.
        settings: The protocol.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings

    def path(self, wholes: Mapping[int, np.ndarray]) -> Path:
        """Return the training of the full-data head from its weights `(C, D)` by epoch."""
        axes = self._axes.to(torch.float64)
        device, dtype = self._model.design.device, self._model.design.dtype
        weights = {
            epoch: (torch.tensor(whole, dtype=torch.float64, device=device) @ axes).T.to(dtype).contiguous()
            for epoch, whole in sorted(wholes.items())
        }
        return Path(self._model, weights)

    def train(
        self, path: Path, index: Tensor, tick: Tick | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
        """Return δ at the end, `(B, C, D)`, and the doubt of every head, `(B,)`. Shapes: index `(B,)`."""
        nodes = list(path.weights)
        modes, found = path.modes(0), 0
        k, dtype = len(modes.rate), self._model.design.dtype
        zeros = [torch.zeros((k, len(index)), dtype=dtype, device=index.device) for _ in range(3)]
        first = Node(0, modes.into(self._gradient(path, 0, index, zeros[0])), zeros[0])
        heads = Heads(zeros[1], zeros[2], [first], zeros[0].new_zeros(len(index)))
        for here, there in pairwise(nodes):
            if here >= FRESH * found + 2:
                fresh, found = path.modes(here), here
                heads.turn(modes, fresh)
                modes = fresh
            self._stride(heads, modes, path, index, there)
            if tick is not None:
                tick(there - here)
            if record is not None and self.settings.records(there):
                record(there, self._unfold(modes.back(heads.weights.clone())))
        return self._unfold(modes.back(heads.weights.clone())), heads.doubt

    def _stride(self, heads: Heads, modes: Modes, path: Path, index: Tensor, there: int) -> None:
        """Go on to the next node: predict from the past, compute the gradient there, and correct."""
        here = heads.past[-1].epoch
        epochs, rate = there - here, modes.rate.to(heads.weights.dtype)[:, None]
        # Forcing f = g − λ δ at the past nodes. A stride of one epoch needs the present one only.
        past = heads.past[-MEMORY:] if epochs > 1 else heads.past[-1:]
        offsets = [node.epoch - here for node in past]
        forcing = [torch.addcmul(node.gradient, rate, node.weights, value=-1.0) for node in past]
        # Predict δ with the polynomial through these.
        responses = Responses.of(modes.rate, epochs, len(past), self.settings)
        stride = responses.at(offsets)
        delta = _combine(stride.weights, heads, forcing)
        gradient = modes.into(self._gradient(path, there, index, modes.back(delta.clone())))
        if epochs > 1:
            # Correct δ with the polynomial that also goes through the forcing at the prediction.
            forcing.append(torch.addcmul(gradient, rate, delta, value=-1.0))
            stride = responses.at([*offsets, epochs])
            correction = _combine(stride.weights, heads, forcing).sub_(delta)
            delta.add_(correction)
            gradient.addcmul_(rate, correction)  # to first order
            size = delta.norm(dim=0).clamp(min=torch.finfo(delta.dtype).tiny)
            heads.doubt = torch.maximum(heads.doubt, correction.norm(dim=0) / size)
        heads.velocity = _combine(stride.velocity, heads, forcing)
        heads.weights = delta
        heads.past = [*heads.past[1 - MEMORY :], Node(there, gradient, delta)]

    def _gradient(self, path: Path, epoch: int, index: Tensor, delta: Tensor) -> Tensor:
        """Return the difference of the gradients of the mean losses at θ + δ and θ, `(K, B)`, in weights.

        Shapes: index `(B,)`, delta `(K, B)`.
        """
        model, theta, b = self._model, path.weights[epoch], len(index)
        n, c, r = model.n_samples, model.n_classes, model.design.n_features
        contrasts = model.contrasts.to(delta.dtype)
        all_delta = (contrasts @ delta.view(r, c - 1, b)).view(r, c * b)
        total, sum_r = torch.zeros_like(all_delta), torch.zeros_like(theta)
        for rows, x in model.design.blocks(max(64, ELEMENTS // (c * b))):
            # Δp_j of all samples, but −r_i of the left-out one.
            p = torch.softmax(x @ theta, 1)
            dp = probability_shift(p, (x @ all_delta).view(len(x), c, b))
            residual = p.clone()
            residual[torch.arange(len(x), device=x.device), model.target[rows]] -= 1.0
            own = own_entries(index, rows)
            dp[own] = -residual[own[0]]
            if not model.unweighted:
                weight = model.weight[rows].to(x.dtype)
                dp.mul_(weight[:, None, None])
                residual.mul_(weight[:, None])
            total.addmm_(x.T, dp.view(len(x), c * b))
            sum_r.addmm_(x.T, residual)
        # [total + Σ_j w_j r_j ⊗ x_j / n] / (n − 1) + wd δ.
        total = total.view(r, c, b).add_(sum_r[:, :, None], alpha=1.0 / n).mul_(1.0 / (n - 1))
        return (contrasts.T @ total).view(-1, b).add_(delta, alpha=model.weight_decay)

    def _unfold(self, change: Tensor) -> Tensor:
        """Return differences of weights `(K, B)` in original coordinates, `(B, C, D)`."""
        model = self._model
        change = change.view(model.design.n_features, -1, change.shape[1])
        axes = self._axes.to(change.dtype)
        return torch.einsum("cr,krb,dk->bcd", model.contrasts.to(change.dtype), change, axes)

    @cached_property
    def _axes(self) -> Tensor:
        return principal_axes(self.model.design)

    @cached_property
    def _model(self) -> SoftmaxModel:
        """The model in principal coordinates."""
        return replace(self.model, design=self.model.design.rotated(self._axes))

    def __getstate__(self) -> dict[str, object]:
        """Drop what a worker computes itself."""
        return {"model": self.model, "settings": self.settings}


def _combine(coefficients: Tensor, heads: Heads, forcing: list[Tensor]) -> Tensor:
    """Return the sum of δ, its velocity and the forcings, weighted by the columns of a filter, `(K, B)`."""
    out = coefficients[:, :1] * heads.weights
    for column, part in enumerate([heads.velocity, *forcing], start=1):
        out.addcmul_(coefficients[:, column, None], part)
    return out
