r"""Rows that a model's answers are asked for, and how the answers change with the weights.

With logits :math:`z`, probabilities p and a change s of the logits, the loss of label y changes by

.. math:: \Delta\ell = \log \sum_c p_c\, e^{s_c} - s_y = \log\bigl(1 + \sum_c p_c\,
          \mathrm{expm1}(s_c - s_y)\bigr)

in all orders of s, and in a form that keeps the digits of a small change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.probes.softmax.math import LARGE_SHIFT, residuals
from lsi.probes.softmax.model import SoftmaxModel

ELEMENTS = 1 << 20  # numbers in one (rows, C, B) block: a few MiB, so that it stays in the cache
TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class Queries:
    """M rows with labels, and what a model answers to them now. Rows of the least sure answers come first.

    Attributes:
        model: The trained model.
        x: The rows in the model's coordinates, `(M, D)`.
        target: Class codes, `(M,)`.
        log_p: Logarithms of their probabilities, `(M, C)` float64.
        lead: How far the likeliest class is ahead of the next, in logits, `(M,)` float64, ascending.
        place: Where each row was in the order given, `(M,)`.
    """

    model: SoftmaxModel
    x: Tensor
    target: Tensor
    log_p: Tensor
    lead: Tensor
    place: Tensor

    @classmethod
    def of(cls, model: SoftmaxModel, x: Tensor, target: Tensor | None = None) -> Queries:
        """Return the queries; where no label is given, it is the likeliest class.

        Shapes: x `(M, D)` in the model's coordinates, target `(M,)`.
        """
        logits = x.to(torch.float64) @ (model.contrasts @ model.theta).T
        log_p = torch.log_softmax(logits, 1)
        best = log_p.topk(2, 1)
        lead = best.values[:, 0] - best.values[:, 1]
        target = best.indices[:, 0] if target is None else target.to(x.device)
        order = lead.argsort(stable=True)
        return cls(model, x[order], target[order], log_p[order], lead[order], order)

    def __len__(self) -> int:
        return len(self.x)

    def select(self, which: Tensor) -> Queries:
        """Return some of the queries, by their places in this order; they keep it."""
        place = torch.arange(len(which), device=self.x.device)
        x, target, log_p, lead = (each[which] for each in (self.x, self.target, self.log_p, self.lead))
        return Queries(self.model, x, target, log_p, lead, place)

    @property
    def residual(self) -> Tensor:
        """Gradient of each loss in class contrasts, `p − e_y`, `(M, C')` float64."""
        return residuals(self.log_p.exp(), self.target) @ self.model.contrasts

    def gradient(self) -> Tensor:
        """Return the gradient of the mean loss, `(C', D)` float64."""
        return self.residual.T @ self.x.to(torch.float64) / len(self)

    def curvature_times(self, v: Tensor) -> Tensor:
        """Return the products of the mean loss's curvature with R vectors, `(R, C', D)` float64."""
        r, k, d = v.shape
        contrasts = self.model.contrasts
        flat = (contrasts.to(self.x.dtype) @ v.to(self.x.dtype)).reshape(-1, d)
        out = torch.zeros((len(flat), d), dtype=torch.float64, device=v.device)
        for rows in self.blocks(r):
            p = self.log_p[rows].exp()[:, None, :]
            image = (self.x[rows] @ flat.T).view(p.shape[0], r, -1).to(torch.float64)
            image = p * (image - (p * image).sum(2, keepdim=True))
            out += (image.flatten(1).T.to(self.x.dtype) @ self.x[rows]).to(torch.float64)
        return contrasts.T @ out.view(r, -1, d) / len(self)

    def blocks(self, width: int) -> Iterator[slice]:
        """Yield blocks of rows, each of which can be seen by `width` models at a time."""
        size = max(64, ELEMENTS // (width * self.model.n_classes))
        yield from (slice(low, min(low + size, len(self))) for low in range(0, len(self), size))

    def shift(self, rows: slice, delta: Tensor) -> Tensor:
        """Return how the logits change at `θ + δ_b`, `(m, C, B)`. Shapes: delta `(B, C', D)`."""
        b, _, d = delta.shape
        x = self.x[rows]
        step = (self.model.contrasts.to(x.dtype) @ delta.to(x.dtype)).transpose(0, 1).reshape(-1, d)
        return (x @ step.T).view(len(x), -1, b)

    def loss_change(self, rows: slice, shift: Tensor) -> Tensor:
        """Return how the losses change, `(m, B)`, for changes of the logits `(m, C, B)`."""
        log_p = self.log_p[rows].to(shift.dtype)
        label = self.target[rows][:, None, None].expand(-1, 1, shift.shape[2])
        apart = shift - shift.gather(1, label)
        if float(apart.amax()) > LARGE_SHIFT:  # its exponential would overflow
            return (log_p[:, :, None] + apart).logsumexp(1)
        return torch.bmm(log_p.exp()[:, None, :], apart.expm1_())[:, 0].log1p_()

    def odds_change(self, rows: slice, shift: Tensor) -> Tensor:
        """Return how the labels' log-odds `log p_y/(1 − p_y)` change, `(m, B)`, for shifts `(m, C, B)`."""
        label = self.target[rows][:, None]
        others = self.log_p[rows].scatter(1, label, -torch.inf)
        others = torch.log_softmax(others, 1).to(shift.dtype)  # among the other classes
        change = (others[:, :, None] + shift).logsumexp(1)
        return shift.gather(1, label[:, :, None].expand(-1, 1, shift.shape[2]))[:, 0] - change

    def prediction(self, rows: slice, shift: Tensor) -> Tensor:
        """Return the likeliest class after changes of the logits, `(m, B)`. Shapes: shift `(m, C, B)`."""
        return (self.log_p[rows].to(shift.dtype)[:, :, None] + shift).argmax(1)

    def mean_change(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the change of the mean loss and of the accuracy at `θ + δ_b`, `(B,)` float64 each."""
        b = len(delta)
        loss = torch.zeros(b, dtype=torch.float64, device=delta.device)
        right = torch.zeros_like(loss)
        for rows in self.blocks(b):
            shift = self.shift(rows, delta)
            # No answer changes whose lead is above twice the largest shift.
            open_ = int(torch.searchsorted(self.lead[rows], 2.0 * shift.abs().amax().to(torch.float64)))
            if open_:
                part = slice(rows.start, rows.start + open_)
                target = self.target[part][:, None]
                after = self.prediction(part, shift[:open_]) == target
                before = self.log_p[part].argmax(1, keepdim=True) == target
                right += after.to(torch.float64).sum(0) - before.to(torch.float64).sum()
            loss += self.loss_change(rows, shift).sum(0).to(torch.float64)
        return loss / len(self), right / len(self)
