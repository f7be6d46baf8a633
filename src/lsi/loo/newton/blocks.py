r"""First-order leave-one-out steps from class blocks, where the whole Hessian does not fit in memory.

The Hessian is approximated by its class blocks :math:`H_c`, and the sample's own curvature is taken out of
each of them exactly. In class c

.. math:: \delta_c = t_c + m_c H_c^{-1} x,\qquad m_c = \frac{g_c + (S\,t x)_c}{1 - v_c\, x^\top H_c^{-1} x},
          \qquad v_c = p_c (1 - p_c)

The step of the penalty, :math:`t = \bar H^{-1}\mathrm{wd}\,\theta`, is common to all samples and is solved
with the whole Hessian; otherwise all tiny scores would be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lsi.posterior.sparse import SparseRemoval
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.cg import conjugate_gradients
from lsi.probes.softmax.entries import entries_of
from lsi.probes.softmax.math import variances

GOAL = 1e-3  # squared residual that conjugate gradients leave: each step then gains a digit and a half
PRODUCTS = 60  # products of one solve, at most
ALL_OWN = 1e-6  # least share of a class block that remains without the sample: float32 resolves no less


@dataclass
class BlockRemoval:
    """First-order removal of B samples in class contrasts, for the solvers that go on from there.

    Attributes:
        index: Positions, `(B,)`.
        x: Rows, `(B, D)`.
        residual: `w g'`, `(B, C')`.
        reach: `H_c⁻¹ x`, `(B, C, D)`.
        downdate: `v_c / (1 − v_c x H_c⁻¹ x)`, `(B, C)`.
        delta: The step `δ_i`, `(B, C', D)`.
    """

    index: Tensor
    x: Tensor
    residual: Tensor
    reach: Tensor
    downdate: Tensor
    delta: Tensor

    def select(self, keep: Tensor) -> BlockRemoval:
        """Return the removals picked by a mask or an index."""
        return BlockRemoval(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


class BlockSolver:
    """Approximate `H₋ᵢ⁻¹` for every sample from the class blocks.

    Args:
        curvature: Class blocks at the trained weights.
    """

    def __init__(self, curvature: BlockCurvature) -> None:
        self.curvature, self.model = curvature, curvature.model
        decay = self.model.weight_decay * self.model.theta
        self.decay_step = (self.model.contrasts @ curvature.solve(decay)).to(torch.float32)

    def sparse(self, index: Tensor) -> tuple[SparseRemoval, Tensor]:
        """Return the removals of the samples at `index`, entry by entry, and their leverage `(n,)`."""
        model = self.model
        x = model.design.take(index)
        p = model.probabilities(x)
        weight = model.weight[index].to(x.dtype)
        entries = entries_of(slice(0, len(index)), p, model.target[index])
        class_of = entries.classes
        reach = torch.empty((len(entries.row), x.shape[1]), dtype=x.dtype, device=x.device)
        for c, which in entries.segments:
            torch.mm(x[entries.row[which]], self.curvature.inverse[c], out=reach[which])
        own = torch.bmm(x[entries.row][:, None, :], reach[:, :, None])[:, 0, 0]
        shift = x @ self.decay_step.T
        pulled = p * (shift - (p * shift).sum(1, keepdim=True))
        scale = weight[entries.row]
        right = scale * (entries.residual + pulled[entries.row, class_of])
        leverage = scale * entries.variance * own
        multiplier = right / (1.0 - leverage).clamp_min(ALL_OWN)
        shift[entries.row, class_of] += multiplier * own
        removal = SparseRemoval(
            x, model.target[index], weight, entries, p, class_of, multiplier, reach, shift
        )
        return removal, removal.by_row(leverage)

    def first_order(self, index: Tensor) -> BlockRemoval:
        """Return the same steps for all classes, in class contrasts."""
        x, residual, exact = self.model.residual_at(index)
        weight, p = self.model.weight[index, None].to(x.dtype), exact.to(x.dtype)
        variance = variances(exact).to(x.dtype) * weight
        reach = self._reach(x)
        own = (reach @ x[:, :, None])[:, :, 0]
        left = (1.0 - variance * own).clamp_min(ALL_OWN)
        contrasts = self.curvature.contrasts
        shift = x @ self.decay_step.T
        pulled = weight * p * (shift - (p * shift).sum(1, keepdim=True))
        right = residual @ contrasts.T + pulled
        delta = contrasts.T @ (self.decay_step + (right / left)[:, :, None] * reach)
        return BlockRemoval(index, x, residual, reach, variance / left, delta)

    def solve(self, removal: BlockRemoval, right: Tensor) -> Tensor:
        """Return `H₋ᵢ⁻¹ v_i` for `right` of shape `(B, C', D)`, by conjugate gradients, roughly.

        Solving roughly only costs further steps of whoever asks.
        """
        contrasts = self.curvature.contrasts
        # In units of its own size: the square of a small gradient underflows in float32.
        unit = right.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(right.dtype).tiny)
        product = partial(self.curvature.product, left_out=removal.index)
        scaled = contrasts @ (right / unit).to(torch.float32)
        step = conjugate_gradients(product, partial(self.precondition, removal), scaled, GOAL, PRODUCTS)
        return (contrasts.T @ step).to(right.dtype) * unit

    def precondition(self, removal: BlockRemoval, right: Tensor) -> Tensor:
        """Return about `H₋ᵢ⁻¹ v_i` from the class blocks alone, for `right` of shape `(B, C, D)`."""
        plain = self.curvature.precondition(right)
        x = removal.x.to(torch.float32)
        lift = (plain @ x[:, :, None])[:, :, 0] * removal.downdate.to(torch.float32)
        return torch.addcmul(plain, lift[:, :, None], removal.reach)

    def _reach(self, x: Tensor) -> Tensor:
        """Return `H_c⁻¹ x` for all classes, `(B, C, D)`."""
        return (x.to(torch.float32) @ self.curvature.inverse).transpose(0, 1)
