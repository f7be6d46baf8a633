r"""Curvature of a probe of many classes: its class blocks, and products with the whole of it.

The curvature :math:`\bar H = \sum_j w_j S_j \otimes x_j x_j^\top + (n-1)\,\mathrm{wd}\,I` is written here
in all C classes. Its diagonal blocks

.. math:: H_c = \sum_j w_j p_{jc}(1 - p_{jc})\, x_j x_j^\top + (n-1)\,\mathrm{wd}\,I

take C·D² numbers, the whole C²·D². First-order removals of large problems use the blocks; products with the
whole correct them by conjugate gradients. With :math:`z_{jc} = x_j^\top v_c`, such a product is

.. math:: (\bar H v)_c = \sum_j w_j p_{jc} \Bigl(z_{jc} - \sum_k p_{jk} z_{jk}\Bigr) x_j
          + (n-1)\,\mathrm{wd}\, v_c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.probes.softmax.cg import Operator, conjugate_gradients
from lsi.probes.softmax.entries import ClassEntries, Entries, EntryChange
from lsi.probes.softmax.math import curvature_times
from lsi.probes.softmax.model import ROWS, SoftmaxModel
from lsi.system.device import add_rows

DENSE_BYTES = 1 << 28  # probabilities that may be kept from one product to the next
FARTHEST = 80.0  # change of a logit whose exponential float32 still holds
KEPT_BYTES = 1 << 30  # gathered rows that may be kept from one product to the next


@dataclass
class BlockCurvature:
    """Class blocks and sparse products at the weights of one model.

    Attributes:
        model: Data and weights.
        entries: The probabilities that matter.
        inverse: `H_c⁻¹` for each class, `(C, D, D)` float32.
        spread: `Σ_j x_j x_jᵀ / N`, `(D, D)` float32.
    """

    model: SoftmaxModel
    entries: ClassEntries
    inverse: Tensor
    spread: Tensor

    @classmethod
    def of(cls, model: SoftmaxModel, entries: ClassEntries | None = None) -> BlockCurvature:
        """Accumulate and invert the class blocks of `model`."""
        entries, spread = entries or ClassEntries.of(model), _spread(model)
        blocks = class_blocks(model, entries, spread)
        for block in blocks:
            block.copy_(_inverse(block.double(), model.loo_ridge))
        return cls(model, entries, blocks, spread.to(torch.float32))

    @cached_property
    def contrasts(self) -> Tensor:
        """Basis V of the class contrasts, float32 `(C, C − 1)`."""
        return self.model.contrasts.to(torch.float32)

    def precondition(self, right: Tensor) -> Tensor:
        """Return `H_c⁻¹ v_c` for `right` of shape `(B, C, D)`."""
        return torch.bmm(right.transpose(0, 1), self.inverse).transpose(0, 1)

    def product(self, v: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Return `H̄ v`, or `H₋ᵢ v` where each of the B vectors has a left-out sample i.

        Shapes: v `(B, C, D)`, left_out `(B,)`.
        """
        if len(v) == 1 and left_out is None:
            return self._whole(v)
        v_by_class = v.transpose(0, 1)
        total = torch.zeros_like(v_by_class)
        for which, block in enumerate(self.entries.blocks):
            z = self._logits(which, v_by_class)
            # w p (z − Σ_k p_k z_k), for every entry.
            z.sub_(_row_sums(block, z)).mul_(block.p[:, None])
            self._collect(which, z, left_out, total)
        return self._plain(v) + total.transpose(0, 1)

    def change(self, v: Tensor, left_out: Tensor, see: Callable[[EntryChange], None] | None = None) -> Tensor:
        r"""Return how the gradient without each sample i changes from θ to θ + v, at all orders, `(B, C, D)`.

        .. math:: \sum_{j \ne i} w_j\, \Delta p_{jc}\, x_j + (n-1)\,\mathrm{wd}\, v_c,\qquad
                  \Delta p_c = p_c \frac{e_c - \varepsilon}{1 + \varepsilon},\quad
                  e_c = \mathrm{expm1}(z_c - z_m),\quad \varepsilon = \sum_k p_k e_k

        over the entries, m the likeliest class, and what is left out of them to first order. `see` is called
        with each block's Δp.

        Shapes: v `(B, C, D)`, of sum zero over the classes: those without an entry in a row count as not
        moved; left_out, the position of each sample, `(B,)`.
        """
        v_by_class = v.transpose(0, 1)
        total = torch.zeros_like(v_by_class)
        for which, block in enumerate(self.entries.blocks):
            z = self._logits(which, v_by_class)
            # Beside the likeliest class: where it falls from nearly one, 1 + ε would lose its digits.
            highest = z[block.likeliest]
            moved = z.sub_(highest[block.row]).clamp_max_(FARTHEST).expm1_()
            rest = highest.neg_().clamp_max_(FARTHEST).expm1_().mul_(block.rest[:, None])
            mean = _row_sums(block, moved, rest)
            change = moved.sub_(mean).mul_(block.p[:, None]).div_(mean.add_(1.0))
            change.masked_fill_(_own(block, left_out), 0.0)
            if see is not None:
                see(EntryChange(block, self._gathered(which), self._weight(block), change))
            self._collect(which, change, None, total)
        return self._plain(v) + total.transpose(0, 1)

    def _plain(self, v: Tensor) -> Tensor:
        """Return the products of the penalty and of probabilities without an entry, spread over all rows."""
        return self.model.loo_ridge * v + self.entries.rest.to(v)[:, None] * (v @ self.spread)

    @cached_property
    def _whole(self) -> WholeCurvature:
        return WholeCurvature(self.model)

    @cached_property
    def _kept(self) -> dict[int, Tensor] | None:
        """Rows gathered once for all products; None where they take too much memory."""
        design = self.model.design
        room = 4 * self.entries.count * design.n_features <= KEPT_BYTES
        return {} if room and design.resident else None  # a file is mapped because it does not fit

    def _gathered(self, which: int) -> Tensor:
        """Return the row of each entry of a block, `(e, D)`."""
        if self._kept is not None and which in self._kept:
            return self._kept[which]
        block = self.entries.blocks[which]
        x = self.model.design.rows(block.rows.start, block.rows.stop).index_select(0, block.row)
        if self._kept is not None:
            self._kept[which] = x
        return x

    def _logits(self, which: int, v: Tensor) -> Tensor:
        """Return `x v_c` of each entry of a block, `(e, B)`. Shapes: v `(C, B, D)`."""
        gathered = self._gathered(which)
        z = torch.empty((len(gathered), v.shape[1]), dtype=gathered.dtype, device=gathered.device)
        for c, part in self.entries.blocks[which].segments:
            torch.mm(gathered[part], v[c].T, out=z[part])
        return z

    def _collect(self, which: int, image: Tensor, left_out: Tensor | None, total: Tensor) -> None:
        """Add `Σ_j w_j image_jc x_j` of a block to `total`, without the samples that are left out.

        Shapes: image `(e, B)`, overwritten; total `(C, B, D)`.
        """
        block, gathered = self.entries.blocks[which], self._gathered(which)
        image.mul_(self._weight(block)[:, None])
        if left_out is not None:
            image.masked_fill_(_own(block, left_out), 0.0)
        for c, part in block.segments:
            total[c].addmm_(image[part].T, gathered[part])

    def _weight(self, block: Entries) -> Tensor:
        """Return the sample weight of each entry, `(e,)` float32."""
        return self.model.weight[block.rows].to(torch.float32)[block.row]

    def solve(self, right: Tensor, goal: float = 1e-8) -> Tensor:
        """Return `H̄⁻¹ v` for `right` of shape `(C − 1, D)`, by conjugate gradients, in float64."""
        return self._whole.solve(right, self.precondition, goal)


class WholeCurvature:
    """Products with the whole curvature at the weights of one model, one vector at a time.

    Args:
        model: Data and weights.
    """

    def __init__(self, model: SoftmaxModel) -> None:
        self.model = model
        self._kept: list[Tensor] | None = None
        if 4 * model.n_samples * model.n_classes <= DENSE_BYTES:
            self._kept = [model.probabilities(x) for _, x in model.design.blocks(ROWS)]

    def __call__(self, v: Tensor) -> Tensor:
        """Return `H̄ v` for `v` of shape `(1, C, D)` float32."""
        model, vector = self.model, v[0]
        out = model.loo_ridge * vector
        for place, (rows, x) in enumerate(model.design.blocks(ROWS)):
            p = model.probabilities(x) if self._kept is None else self._kept[place]
            image = curvature_times(p, x @ vector.T).mul_(model.weight[rows, None].to(x.dtype))
            out.addmm_(image.T, x)
        return out[None]

    def solve(self, right: Tensor, precondition: Operator, goal: float) -> Tensor:
        """Return `H̄⁻¹ v` for `right` of shape `(C − 1, D)`, by conjugate gradients, in float64.

        Shapes: precondition `(1, C, D) → (1, C, D)`.
        """
        # Scaled to size one, because the square of a small gradient underflows in float32.
        size = right.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
        v = (self.model.contrasts @ (right / size)).to(torch.float32)[None]
        solution = conjugate_gradients(self, precondition, v, goal, 100)[0]
        return self.model.contrasts.T @ solution.to(torch.float64) * size


def class_blocks(model: SoftmaxModel, entries: ClassEntries, spread: Tensor | None = None) -> Tensor:
    """Return `Σ_j w_j p_jc (1 − p_jc) x_j x_jᵀ` for each class, `(C, D, D)` float32, without any ridge."""
    d, spread = model.design.n_features, _spread(model) if spread is None else spread
    blocks = torch.zeros((model.n_classes, d, d), dtype=torch.float32, device=model.design.device)
    for block in entries.blocks:
        x = model.design.rows(block.rows.start, block.rows.stop)
        weight = block.variance * model.weight[block.rows].to(x.dtype)[block.row]
        for c, which in block.segments:
            rows = x[block.row[which]]
            blocks[c].addmm_((rows * weight[which, None]).T, rows)
    for block_of_class, rest in zip(blocks, entries.rest.tolist(), strict=True):
        block_of_class.copy_(block_of_class.double() + rest * spread)
    return blocks


def _row_sums(block: Entries, z: Tensor, total: Tensor | None = None) -> Tensor:
    """Return `Σ_k p_k z_k` of each entry's row, added to `total`, `(e, B)`.

    Shapes: z `(e, B)`, total `(n, B)`, overwritten.
    """
    if total is None:
        total = torch.zeros((block.n_rows, z.shape[1]), dtype=z.dtype, device=z.device)
    return add_rows(total, block.row, z * block.p[:, None])[block.row]


def _own(block: Entries, left_out: Tensor) -> Tensor:
    """Return the mask `(e, B)` of entries that belong to the left-out sample itself."""
    n_rows = block.n_rows
    where = left_out - block.rows.start
    inside = (where >= 0) & (where < n_rows)
    owner = torch.full((n_rows,), -1, dtype=torch.int64, device=left_out.device)
    owner[where[inside]] = inside.nonzero()[:, 0]
    columns = torch.arange(len(left_out), device=left_out.device)
    return owner[block.row][:, None] == columns


def _spread(model: SoftmaxModel) -> Tensor:
    """Return `Σ_j x_j x_jᵀ / N`, float64 `(D, D)`."""
    d = model.design.n_features
    total = torch.zeros((d, d), dtype=torch.float64, device=model.design.device)
    for _, x in model.design.blocks(8 * ROWS):
        total += x.T @ x
    return total / model.n_samples


def _inverse(block: Tensor, ridge: float) -> Tensor:
    """Return `(H + λI)⁻¹`; H is overwritten."""
    block.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(block)
    if int(failed):
        raise InputError(
            "The probe's curvature is singular: the weight decay is too small for the features' scale. "
            "Standardise the features or raise weight_decay."
        )
    return torch.cholesky_inverse(factor)
