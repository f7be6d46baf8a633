r"""Solves with the curvature after a change of the data, from the factorised curvature before it.

.. math:: H_b = \bar H + \sum_{r \in b} E_r C_r E_r^\top, \qquad C_r = \pm w_r S_r

Few rows change it by a matrix of low rank (Woodbury); for many, conjugate gradients with the true product,
preconditioned by :math:`\bar H^{-1}`, are cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lsi.loo.edits.edits import Edits
from lsi.loo.newton.dense import DenseSolver
from lsi.probes.softmax.cg import conjugate_gradients
from lsi.probes.softmax.math import curvature_times
from lsi.probes.softmax.model import ELEMENTS, SoftmaxModel

GOAL, LIMIT = 1e-4, 60  # of conjugate gradients: they only precondition


@dataclass(frozen=True, eq=False)
class Prepared:
    """B changes with what solving for them takes: the `Removed` of a `Refiner`.

    Attributes:
        edits: The changes.
        middle: For each change `(I + C G)⁻¹ C` with `G = EᵀH̄⁻¹E`, `(R_b C', R_b C')`; None for a change of
            many rows.
        delta: Steps `(B, C', D)` that the walk starts from.
    """

    edits: Edits
    middle: tuple[Tensor | None, ...]
    delta: Tensor

    @property
    def index(self) -> Tensor:
        """One entry for each change, `(B,)`."""
        return torch.arange(len(self.edits), device=self.delta.device)

    @property
    def x(self) -> Tensor:
        """The rows, `(R, D)`."""
        return self.edits.x

    def select(self, keep: Tensor) -> Prepared:
        """Return the changes picked by a mask or an index."""
        picked = self.index[keep].tolist()
        return Prepared(self.edits.select(keep), tuple(self.middle[b] for b in picked), self.delta[keep])


class EditSolver:
    """Solves for changes of one model's data.

    Args:
        solver: The factorised curvature before any change.
    """

    def __init__(self, solver: DenseSolver) -> None:
        self.solver, self.model, self.contraction = solver, solver.model, solver.contraction

    def prepare(self, edits: Edits) -> Prepared:
        """Return the changes with their first-order steps."""
        k, d = self.model.theta.shape
        curvature = edits.taken(self.solver.inverse.built)
        middle = tuple(
            # Forming and inverting G costs as much as a few dozen products with all rows.
            self._middle(edits.x[rows], curvature[rows]) if (rows.stop - rows.start) * 2 <= d else None
            for rows in edits.bounds
        )
        nothing = torch.zeros((len(edits), k, d), dtype=edits.x.dtype, device=edits.x.device)
        prepared = Prepared(edits, middle, nothing)
        step = self.solve(prepared, edits.first_gradient().to(edits.x.dtype))
        return replace(prepared, delta=-step)

    def _middle(self, x: Tensor, curvature: Tensor) -> Tensor:
        """Return `(I + C G)⁻¹ C`, `(R C', R C')`, float64."""
        size = x.shape[0] * curvature.shape[1]
        gram = self.solver.grams(x).reshape(size, size).to(torch.float64)
        whole = torch.block_diag(*curvature)
        eye = torch.eye(size, dtype=torch.float64, device=x.device)
        return torch.linalg.solve(eye + whole @ gram, whole)

    def solve(self, prepared: Prepared, right: Tensor) -> Tensor:
        """Return about `H_b⁻¹ v_b` for `right` of shape `(B, C', D)`."""
        out = torch.empty_like(right)
        few = torch.tensor([m is not None for m in prepared.middle], device=right.device)
        if bool(few.any()):
            out[few] = self._by_rank(prepared.select(few), right[few])
        if not bool(few.all()):
            out[~few] = self._by_products(prepared.select(~few).edits, right[~few])
        return out

    def _by_rank(self, prepared: Prepared, right: Tensor) -> Tensor:
        """Return `H̄⁻¹v − H̄⁻¹E (I + C G)⁻¹ C Eᵀ H̄⁻¹v`."""
        edits, plain = prepared.edits, self.solver.plain(right)
        own = edits.logits(plain).to(torch.float64)
        lift = torch.cat(
            [
                (middle @ own[rows].reshape(-1)).view(-1, own.shape[1])
                for middle, rows in zip(prepared.middle, edits.bounds, strict=True)
                if middle is not None
            ]
        )
        return plain - self.solver.plain(edits.summed(lift).to(right.dtype))

    def _by_products(self, edits: Edits, right: Tensor) -> Tensor:
        """Return `H_b⁻¹ v_b` by conjugate gradients."""
        curvature = edits.curvature(edits.probabilities()).to(right.dtype)
        ridge = ((self.model.n_samples + edits.gained) * self.model.weight_decay).to(right.dtype)

        def product(v: Tensor) -> Tensor:
            own = torch.einsum("rkl,rl->rk", curvature, edits.logits(v))
            return data_curvature_times(self.model, v) + edits.summed(own) + ridge[:, None, None] * v

        return conjugate_gradients(product, partial(self.solver.plain), right, GOAL, LIMIT)


def data_curvature_times(model: SoftmaxModel, v: Tensor) -> Tensor:
    """Return `Σ_j w_j (S_j ⊗ x_j x_jᵀ) v_b` at θ for B vectors `(B, C', D)`."""
    b, k, d = v.shape
    c = model.n_classes
    contrasts = model.contrasts.to(v.dtype)
    flat = (contrasts @ v).transpose(0, 1).reshape(c * b, d)
    out = torch.zeros_like(flat)
    for rows, block in model.design.blocks(max(64, ELEMENTS // (b * c))):
        x = block.to(v.dtype)
        image = curvature_times(model.probabilities(x)[:, :, None], (x @ flat.T).view(len(x), c, b))
        if not model.unweighted:
            image = image * model.weight[rows, None, None].to(v.dtype)
        out.addmm_(image.view(len(x), c * b).T, x)
    return (contrasts.T @ out.view(c, b * d)).view(k, b, d).transpose(0, 1)
