r"""All first-order steps in N·C' numbers, and what they do to single queries.

A step is :math:`\delta_i = t + \bar H^{-1}(m_i \otimes x_i)` with :math:`m_i` of size C', so the logits of
query q change by :math:`E_q^\top \delta_i = E_q^\top t + T_q^\top (m_i \otimes x_i)` with
:math:`T_q = \bar H^{-1}E_q`, computed once for each query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.attribution.queries import Queries
from lsi.loo.attribution.walks import energy
from lsi.loo.newton.dense import DenseSolver
from lsi.system.progress import Progress

TOGETHER = 128  # queries that are asked together
ELEMENTS = 1 << 22  # numbers of one block's rows `m_i ⊗ x_i`


@dataclass
class Steps:
    """The first-order steps of all samples of one trained head.

    Attributes:
        solver: Of the head.
        m: `m_i`, `(N, C')` in the design's type.
        decay: t, `(C', D)`.
        longest: Length of the longest step in the metric of H̄.
    """

    solver: DenseSolver
    m: Tensor
    decay: Tensor
    longest: float

    @classmethod
    def of(cls, solver: DenseSolver, progress: Progress | None = None) -> Steps:
        """Return the steps of all samples."""
        model = solver.model
        decay = solver.plain((model.weight_decay * model.theta)[None].to(model.design.dtype))[0]
        n, size, parts, longest = model.n_samples, solver.block_size, [], 0.0
        for low in range(0, n, size):
            index = torch.arange(low, min(low + size, n), device=decay.device)
            first = solver.first_order(index)
            # m = (I − S Q)⁻¹(g + S Eᵀt)
            right = first.residual + (first.curvature @ (first.x @ decay.T)[:, :, None])[:, :, 0]
            parts.append((first.downdate @ right.to(torch.float64)[:, :, None])[:, :, 0].to(decay.dtype))
            longest = max(longest, float(energy(model, first).amax().sqrt()))
            if progress is not None:
                progress("first-order steps", int(index[-1]) + 1, n)
        return cls(solver, torch.cat(parts), decay, longest)

    def shifts(self, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of samples, and how the queries' logits change without each, `(M, C, b)`."""
        model, (k, d) = self.solver.model, self.decay.shape
        m_queries = len(queries)
        reach = self.reach(queries.x).flatten(2).flatten(0, 1)  # T_q, (M·C', K')
        own = queries.x @ self.decay.T  # E_qᵀt, (M, C')
        contrasts = model.contrasts.to(reach.dtype)
        for rows, x in model.design.blocks(max(64, ELEMENTS // (k * d))):
            right = (self.m[rows][:, :, None] * x[:, None, :]).flatten(1)
            inner = (reach @ right.T).view(m_queries, k, -1) + own[:, :, None]
            yield rows, contrasts @ inner

    def reach(self, x: Tensor) -> Tensor:
        """Return `H̄⁻¹E_q` of rows, `(M, C', C', D)`: one solution for each class. Shapes: x `(M, D)`."""
        k, d = self.decay.shape
        right = torch.zeros((len(x), k, k, d), dtype=x.dtype, device=x.device)
        for c in range(k):
            right[:, c, c] = x
        return self.solver.plain(right.view(-1, k, d)).view(right.shape)
