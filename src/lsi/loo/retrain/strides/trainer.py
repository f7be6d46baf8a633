r"""Heads without one sample each, followed as differences from the full-data head.

With :math:`\delta_i(t) = \theta_{-i}(t) - \theta(t)` after t epochs, the difference of the two gradients,

.. math:: \frac{1}{n-1} \Bigl[\sum_{j \ne i} w_j (p_j(\theta + \delta_i) - p_j(\theta)) \otimes x_j
          - w_i r_i \otimes x_i + \frac1n \sum_j w_j r_j \otimes x_j \Bigr] + \mathrm{wd}\, \delta_i,

with residuals r at the full-data weights, is computed at some epochs only: without approximation, or to first
order in δ from the curvature there (`lsi.loo.retrain.strides.tangent`), where that is much cheaper.
Between them its linear part is followed epoch by epoch in closed form (`lsi.loo.retrain.strides.filters`),
and the rest, which changes slowly, is a cubic polynomial through four of these epochs: a multistep method of
Adams' kind with one evaluation a stride.

Source: Hochbruck, Ostermann, *Exponential integrators*, Acta Numerica 19, 2010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Tick
from lsi.loo.newton.sweep import own_entries
from lsi.loo.retrain.copies import Record
from lsi.loo.retrain.strides.filters import Responses
from lsi.loo.retrain.strides.modes import Modes, curvature_modes, principal_axes
from lsi.loo.retrain.strides.tangent import Tangents
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.progress import Progress, ticks

if TYPE_CHECKING:
    from lsi.methods import Retrain

ELEMENTS = 1 << 20
MEMORY = 3  # earlier nodes that a forcing is drawn through
# What tangents neglect is measured at every so many nodes. Scores were off by at most seven times the largest
# ρ, and doubt is trusted up to twice the tolerance.
MEASURED, NEGLECTED = 8, 16.0
FRESH = 1.6  # modes are found anew after so many times the epochs


@dataclass
class Node:
    """Gradients and weights of B heads at an epoch, both in modes, `(K, B)`."""

    epoch: int
    gradient: Tensor
    weights: Tensor


@dataclass
class Heads:
    """B left-out heads on their way, as differences from the full-data head, in modes.

    Attributes:
        weights: `(K, B)`.
        velocity: `(K, B)`.
        past: The last nodes, the present one last.
        doubt: Largest correction of a stride so far, relative to the difference itself, `(B,)`.
    """

    weights: Tensor
    velocity: Tensor
    past: list[Node]
    doubt: Tensor

    def turn(self, before: Modes, after: Modes) -> None:
        """Pass over to other modes."""
        tensors = {id(each): each for node in self.past for each in (node.gradient, node.weights)}
        for each in ({id(self.weights): self.weights, id(self.velocity): self.velocity} | tensors).values():
            after.into(before.back(each))


@dataclass
class Path:
    """The training of the full-data head.

    Attributes:
        model: Data in principal coordinates, `(N, R)`.
        weights: Weights of all classes after some epochs, `(R, C)` each, by epoch, from 0.
        tangents: What takes the place of the data; None: nothing does.
    """

    model: SoftmaxModel
    weights: dict[int, Tensor]
    tangents: Tangents | None = None
    _modes: dict[int, Modes] = field(default_factory=dict)

    def modes(self, epoch: int) -> Modes:
        """Return the modes at an epoch."""
        if epoch not in self._modes:
            self._modes[epoch] = curvature_modes(self.model, self.weights[epoch])
        return self._modes[epoch]

    def find_tangents(self, progress: Progress | None) -> None:
        """Find the curvature at every node, which would else be found when it is first needed."""
        if self.tangents is None:
            return
        tick = ticks(progress, "curvature", len(self.weights))
        for epoch in self.weights:
            self.tangents.at(epoch)
            if tick is not None:
                tick()


class StrideTrainer:
    """Trains B left-out heads at a time, looking at the data after some epochs only.

    Args:
        model: Data and objective, in original coordinates.
        settings: The protocol.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings

    def path(self, wholes: Mapping[int, np.ndarray], tangents: bool = False) -> Path:
        """Return the training of the full-data head from its weights `(C, D)` by epoch."""
        axes = self._axes.to(torch.float64)
        device, dtype = self._model.design.device, self._model.design.dtype
        weights = {
            epoch: (torch.tensor(whole, dtype=torch.float64, device=device) @ axes).T.to(dtype).contiguous()
            for epoch, whole in sorted(wholes.items())
        }
        return Path(self._model, weights, Tangents(self._model, weights) if tangents else None)

    def train(
        self, path: Path, index: Tensor, tick: Tick | None, record: Record | None
    ) -> tuple[Tensor, Tensor]:
        """Return what leaving out changes at the end. Shapes: index `(B,)`."""
        nodes = list(path.weights)
        modes, found = path.modes(0), 0
        k, dtype = len(modes.rate), self._model.design.dtype
        zeros = [torch.zeros((k, len(index)), dtype=dtype, device=index.device) for _ in range(3)]
        first = Node(0, modes.into(self._gradient(path, 0, index, zeros[0])), zeros[0])
        heads = Heads(zeros[1], zeros[2], [first], zeros[0].new_zeros(len(index)))
        for number, (here, there) in enumerate(zip(nodes, nodes[1:], strict=False), start=1):
            if here >= FRESH * found + 2:
                fresh, found = path.modes(here), here
                heads.turn(modes, fresh)
                modes = fresh
            self._stride(heads, modes, path, index, there)
            if path.tangents is not None and (number % MEASURED == 0 or there == nodes[-1]):
                neglected = path.tangents.neglected(there, index, modes.back(heads.weights.clone()))
                heads.doubt = torch.maximum(heads.doubt, NEGLECTED * neglected.to(heads.doubt))
            if tick is not None:
                tick(there - here)
            if record is not None and self.settings.records(there):
                record(there, self._unfold(modes.back(heads.weights.clone())))
        return self._unfold(modes.back(heads.weights.clone())), heads.doubt

    def _stride(self, heads: Heads, modes: Modes, path: Path, index: Tensor, there: int) -> None:
        """Go on to the next node: predict from the past, look at the data there, and correct."""
        here = heads.past[-1].epoch
        epochs, rate = there - here, modes.rate.to(heads.weights.dtype)[:, None]
        past = heads.past[-MEMORY:] if epochs > 1 else heads.past[-1:]
        offsets = [node.epoch - here for node in past]
        forces = [torch.addcmul(node.gradient, rate, node.weights, value=-1.0) for node in past]
        responses = Responses.of(modes.rate, epochs, len(past), self.settings)
        ahead = responses.at(offsets)
        weights = _combine(ahead.weights, heads, forces)
        gradient = modes.into(self._gradient(path, there, index, modes.back(weights.clone())))
        if epochs > 1:
            forces.append(torch.addcmul(gradient, rate, weights, value=-1.0))
            ahead = responses.at([*offsets, epochs])
            correction = _combine(ahead.weights, heads, forces).sub_(weights)
            weights.add_(correction)
            gradient.addcmul_(rate, correction)
            size = weights.norm(dim=0).clamp(min=torch.finfo(weights.dtype).tiny)
            heads.doubt = torch.maximum(heads.doubt, correction.norm(dim=0) / size)
        heads.velocity = _combine(ahead.velocity, heads, forces)
        heads.weights = weights
        heads.past = [*heads.past[1 - MEMORY :], Node(there, gradient, weights)]

    def _gradient(self, path: Path, epoch: int, index: Tensor, change: Tensor) -> Tensor:
        """Return the difference of the gradients of the mean loss, `(K, B)`.

        Shapes: index `(B,)`, change `(K, B)`.
        """
        if path.tangents is not None:
            return path.tangents.gradient(epoch, index, change)
        model, whole, b = self._model, path.weights[epoch], len(index)
        n, c, r = model.n_samples, model.n_classes, model.design.n_features
        contrasts = model.contrasts.to(change.dtype)
        step = (contrasts @ change.view(r, c - 1, b)).view(r, c * b)
        total, mean = torch.zeros_like(step), torch.zeros_like(whole)
        for rows, x in model.design.blocks(max(64, ELEMENTS // (c * b))):
            p = torch.softmax(x @ whole, 1)
            moved = probability_shift(p, (x @ step).view(len(x), c, b))
            residual = p.clone()
            residual[torch.arange(len(x), device=x.device), model.target[rows]] -= 1.0
            own = own_entries(index, rows)
            # Without the sample its probabilities do not move, they and its label go.
            moved[own] = -residual[own[0]]
            if not model.unweighted:
                weight = model.weight[rows].to(x.dtype)
                moved.mul_(weight[:, None, None])
                residual.mul_(weight[:, None])
            total.addmm_(x.T, moved.view(len(x), c * b))
            mean.addmm_(x.T, residual)
        total = total.view(r, c, b).add_(mean[:, :, None], alpha=1.0 / n).mul_(1.0 / (n - 1))
        return (contrasts.T @ total).view(-1, b).add_(change, alpha=model.weight_decay)

    def _unfold(self, change: Tensor) -> Tensor:
        """Return differences of the weights `(K, B)` as `(B, C, D)`."""
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
        """Leave behind what a worker computes itself."""
        return {"model": self.model, "settings": self.settings}


def _combine(coefficients: Tensor, heads: Heads, forces: list[Tensor]) -> Tensor:
    """Return the sum of θ, v and forces by the columns of a filter, `(K, B)`."""
    out = coefficients[:, :1] * heads.weights
    for column, part in enumerate([heads.velocity, *forces], start=1):
        out.addcmul_(coefficients[:, column, None], part)
    return out
