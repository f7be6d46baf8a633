r"""First-order leave-one-out steps with the exact downdate, for all samples from one factorisation.

In class-contrast coordinates, with :math:`E_i = I \otimes x_i`, weighted residual :math:`g_i`,
weighted curvature :math:`S_i`, and :math:`\bar H = \sum_j h_j + (n-1)\,\mathrm{wd}\, I`, the curvature
without sample i is :math:`H_{-i} = \bar H - E_i S_i E_i^\top`, and

.. math:: \delta_i = H_{-i}^{-1}(E_i g_i + \mathrm{wd}\,\theta) = t + T_i m_i,\quad
          m_i = (I - S_i Q_i)^{-1}(g_i + S_i E_i^\top t)

with :math:`T_i = \bar H^{-1}E_i`, :math:`Q_i = E_i^\top T_i`, :math:`t = \bar H^{-1}\mathrm{wd}\,\theta`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.built import Built
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.model import SoftmaxModel

TOGETHER = 64  # rows of matrices that are inverted several at a time
BLOCK_BYTES = 96 << 20  # largest tensor of a block of first-order steps
MOST = 512  # samples of a block
PROBES = 64  # random vectors that Q_j is measured with: good to a sixth
# Below NARROW samples at a time, reading the inverse takes longer than multiplying with it. Then only one
# class's rows of T_i are held at a time, for SLAB samples, so that they stay in the cache.
NARROW, SLAB = 48, 128


@dataclass
class FirstOrder:
    """First-order removal of B samples, with what later solves with the same downdate need.

    Attributes:
        index: Positions, `(B,)`.
        x: Rows, `(B, D)`.
        residual: `w g'`, `(B, C')`.
        curvature: `w S'`, `(B, C', C')`.
        taken: What of H̄ is the sample's own, `(B, C', C')`: that, unless the inverse is of a former
            curvature.
        gram: `Q_i`, `(B, C', C')`.
        downdate: `(I − S_i Q_i)⁻¹` with S as it is taken, `(B, C', C')`, float64.
        delta: The step `δ_i`, `(B, C', D)`.
        slot: Their places in the block that they were computed in, `(B,)`.
        block: Number of that block, whose `T_i` the solver may still hold.
    """

    index: Tensor
    x: Tensor
    residual: Tensor
    curvature: Tensor
    taken: Tensor
    gram: Tensor
    downdate: Tensor
    delta: Tensor
    slot: Tensor
    block: int

    @property
    def leverage(self) -> Tensor:
        """`tr(S_i Q_i)`, `(B,)`: the share of its own prediction that the sample determines."""
        return (self.curvature * self.gram.mT).sum((1, 2))

    def select(self, keep: Tensor) -> FirstOrder:
        """Return the removals picked by a mask or an index."""
        names = [name for name in self.__dataclass_fields__ if name != "block"]
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


@dataclass(frozen=True, eq=False)
class Inverse:
    """`H̄⁻¹` with what a solver takes from it: all that is left of a curvature, and all that is stored.

    Attributes:
        matrix: `H̄⁻¹`, `(K', K')` in the design's type.
        probes: Draws of N(0, H̄⁻¹), `(PROBES, C', D)`, with which `Q_j` can be measured for any row.
        decay_step: `t = H̄⁻¹ wd θ`, `(C', D)`.
        drift: Estimated relative error of the curvature.
        built: What curvature it is the inverse of; None: that of the model.
        contraction: Share of an error that a step with it may leave, because that curvature is another one.
    """

    matrix: Tensor
    probes: Tensor
    decay_step: Tensor
    drift: float
    built: Built | None = None
    contraction: float = 0.0

    @classmethod
    def of(cls, model: SoftmaxModel, curvature: Curvature) -> Inverse:
        """Return the inverse of a curvature, whose memory it takes: the curvature is unusable afterwards."""
        dtype, normal = model.design.dtype, _normal(model).to(curvature.factor)
        # L⁻ᵀ v with standard normal v
        probes = torch.linalg.solve_triangular(curvature.factor.mT, normal, upper=True).T
        return cls._with(model, curvature.into_inverse(), probes.to(dtype), curvature.drift)

    @classmethod
    def updated(
        cls, model: SoftmaxModel, matrix: Tensor, root: Tensor, drift: float, built: Built | None = None
    ) -> Inverse:
        """Return the inverse `matrix` of a curvature that was never factorised itself.

        Shapes: matrix `(K', K')`, and its lower Cholesky factor root `(K', K')`.
        """
        probes = (root @ _normal(model).to(root)).T  # R v with R Rᵀ = H̄⁻¹
        return cls._with(model, matrix, probes.to(model.design.dtype), drift, built)

    @classmethod
    def _with(
        cls, model: SoftmaxModel, matrix: Tensor, probes: Tensor, drift: float, built: Built | None = None
    ) -> Inverse:
        dtype, shape = model.design.dtype, model.theta.shape
        decay = model.weight_decay * model.theta
        step = (matrix @ decay.reshape(-1).to(matrix)).view(shape).to(dtype)
        if dtype != torch.float64 and built is None:
            # It is part of every δ, and all of those of the lowest scores.
            whole = step.to(torch.float64)
            left = decay - model.hessian_product(whole) - model.loo_ridge * whole
            step = (whole + (matrix @ left.reshape(-1).to(matrix)).view(shape).to(whole)).to(dtype)
        return cls(matrix.to(dtype), probes.reshape(PROBES, *shape), step, drift, built)


def _normal(model: SoftmaxModel) -> Tensor:
    """Return standard normal vectors, `(K', PROBES)`; every time the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((model.theta.numel(), PROBES), generator=generator, dtype=torch.float64)


def inverses(matrices: Tensor) -> Tensor:
    """Return the inverse of each of `matrices`, `(B, C, C)`.

    Large matrices are inverted one by one: batched LU in several threads silently gave wrong inverses for C ≥
    160 (torch 2.13 with oneMKL).
    """
    if matrices.shape[-1] <= TOGETHER or matrices.device.type != "cpu":
        return torch.linalg.inv(matrices)
    return torch.stack([torch.linalg.inv(matrix) for matrix in matrices])


def block_of(n_contrasts: int, n_features: int, dtype: torch.dtype, block_bytes: int) -> tuple[int, bool]:
    """Return how many samples one block holds, and whether their `T_i` are held in memory."""
    reach = block_bytes // (n_contrasts**2 * n_features * dtype.itemsize)
    if reach >= NARROW:
        return min(MOST, reach), True
    largest = max(n_contrasts * n_features * dtype.itemsize, 8 * n_contrasts**2)
    return max(1, min(SLAB, block_bytes // largest)), False


class DenseSolver:
    """`H₋ᵢ⁻¹` for every sample from one dense inverse.

    Args:
        model: The trained probe.
        inverse: The inverse of its curvature.
        block_bytes: Bytes of the largest tensor of a block.

    Attributes:
        inverse: As given.
        block_size: How many samples a block holds.
        probes: Draws of N(0, H̄⁻¹), `(PROBES, C', D)`, with which `Q_j` can be measured for any row.
    """

    def __init__(self, model: SoftmaxModel, inverse: Inverse, block_bytes: int = BLOCK_BYTES) -> None:
        self.model, self.inverse = model, inverse
        k, d = model.theta.shape
        dtype = model.design.dtype
        self.block_size, self._holds_reach = block_of(k, d, dtype, block_bytes)
        self.probes, self._decay_step, self._inverse = inverse.probes, inverse.decay_step, inverse.matrix
        self._reach = torch.empty(0, dtype=dtype, device=inverse.matrix.device)
        self._block = 0  # number of the last block
        self._held = -1  # number of the block whose reach the buffer holds

    def __getstate__(self) -> dict[str, Any]:
        """Leave the scratch memory behind: workers make their own."""
        empty = torch.empty(0, dtype=self._inverse.dtype, device=self._inverse.device)
        return {**self.__dict__, "_reach": empty, "_held": -1}

    def first_order(self, index: Tensor) -> FirstOrder:
        """Return the exact-downdate Newton step of each sample at `index`."""
        x, residual, curvature = self.model.curvature_at(index)  # x_i, g_i, S_i
        taken, built = curvature, self.inverse.built
        if built is not None:
            taken = built.curvature_at(index, self.model.contrasts).to(x.dtype)
        b, k = residual.shape
        self._block += 1
        slot = torch.arange(b, device=x.device)
        # T_i = H̄⁻¹E_i and Q_i = E_iᵀT_i
        if self._holds_reach:
            reach = self._reach_of(x)
            self._held = self._block
            gram = torch.stack([(block.view(b, k, -1) @ x[:, :, None])[:, :, 0] for block in reach], 1)
            gram = 0.5 * (gram + gram.mT)
        else:
            gram = self._gram_of(x)
        eye = torch.eye(k, dtype=torch.float64, device=x.device)
        downdate = inverses(eye - taken.to(torch.float64) @ gram.to(torch.float64))  # (I − S_i Q_i)⁻¹
        decay_logit = x @ self._decay_step.T  # E_iᵀt
        # m_i = (I − S_i Q_i)⁻¹(g_i + S_i E_iᵀt)
        m = residual + (taken @ decay_logit[:, :, None])[:, :, 0]
        m = (downdate @ m.to(torch.float64)[:, :, None])[:, :, 0].to(x.dtype)
        # δ_i = t + T_i m_i
        none = x.new_empty(0)
        first = FirstOrder(index, x, residual, curvature, taken, gram, downdate, none, slot, self._block)
        delta = self._with_reach(self._decay_step.reshape(1, -1).repeat(b, 1), first, m)
        return replace(first, delta=delta.view(b, k, -1))

    def _with_reach(self, sums: Tensor, removal: FirstOrder, coefficients: Tensor) -> Tensor:
        """Return `sums + T_i m_i`, `(B, K')`, from the held `T_i` if they are those of the removals."""
        if removal.block != self._held:
            right = (coefficients[:, :, None] * removal.x[:, None, :]).flatten(1)
            return sums.addmm_(right, self._inverse)
        for reach, coefficient in zip(self._reach, coefficients.T, strict=True):
            sums.addcmul_(self._of(reach, removal), coefficient[:, None])
        return sums

    def _of(self, reach: Tensor, removal: FirstOrder) -> Tensor:
        """Return the removals' rows of one class's held `T_i`."""
        whole = torch.arange(len(reach), device=reach.device)
        return reach if torch.equal(removal.slot, whole) else reach[removal.slot]

    def _gram_of(self, x: Tensor) -> Tensor:
        """Return `Q_i = E_iᵀH̄⁻¹E_i`, `(B, C', C')`, from the rows of one class at a time."""
        b, d = x.shape
        k = len(self._inverse) // d
        gram, room = x.new_empty((b, k, k)), x.new_empty(b * k * d)
        for c in range(k):
            slab = room[: b * (k - c) * d].view(b, -1)
            torch.mm(x, self._inverse[c * d : (c + 1) * d, c * d :], out=slab)
            gram[:, c, c:] = torch.bmm(slab.view(b, k - c, d), x[:, :, None])[:, :, 0]
            gram[:, c:, c] = gram[:, c, c:].clone()  # the two share an entry
        return gram

    def _reach_of(self, x: Tensor) -> Tensor:
        """Return `T_i = H̄⁻¹E_i` as `(C', B, K')`, the input class first, in a buffer that is reused."""
        b, d = x.shape
        k = len(self._inverse) // d
        self._held = -1
        # A new tensor of this size would have to be mapped into memory for every block.
        if self._reach.shape[1:2] != (b,):
            self._reach = self._reach.new_empty(0)  # freed before the new buffer is allocated
            self._reach = torch.empty((k, b, k * d), dtype=x.dtype, device=x.device)
        for c in range(k):
            torch.mm(x, self._inverse[c * d : (c + 1) * d], out=self._reach[c])
        return self._reach

    def solve(self, removal: FirstOrder, right: Tensor) -> Tensor:
        r"""Return `H₋ᵢ⁻¹ v_i` for `right` of shape `(B, C', D)`.

        .. math:: H_{-i}^{-1} v = \bar H^{-1}\bigl(v + E_i (I - S_iQ_i)^{-1} S_i E_i^\top \bar H^{-1} v\bigr)
        """
        return self.downdated(removal, (right.flatten(1) @ self._inverse).view(right.shape))

    def downdated(self, removal: FirstOrder, plain: Tensor) -> Tensor:
        """Return `H₋ᵢ⁻¹ v_i` from `H̄⁻¹ v_i` of shape `(B, C', D)`, whose memory it may take."""
        own = (plain @ removal.x[:, :, None]).to(torch.float64)
        lift = (removal.downdate @ (removal.taken.to(torch.float64) @ own))[:, :, 0].to(plain.dtype)
        return self._with_reach(plain.view(len(plain), -1), removal, lift).view(plain.shape)

    def plain(self, right: Tensor) -> Tensor:
        """Return `H̄⁻¹ v_b` for `right` of shape `(B, C', D)`, in its type."""
        return (right.flatten(1).to(self._inverse) @ self._inverse).view(right.shape).to(right.dtype)

    @property
    def is_current(self) -> bool:
        """Whether the inverse is that of the model's own curvature."""
        return self.inverse.built is None

    @property
    def contraction(self) -> float:
        """Share of an error that a step may leave, as in `Inverse`."""
        return self.inverse.contraction

    @property
    def decay_step(self) -> Tensor:
        """`t = H̄⁻¹ wd θ`, `(C', D)`."""
        return self._decay_step

    def own_grams(self, x: Tensor) -> Tensor:
        """Return `Q = Eᵀ H̄⁻¹ E` of each row, `(B, C', C')`. Shapes: x `(B, D)`."""
        return torch.cat([self._gram_of(part) for part in x.to(self._inverse).split(MOST)])

    def grams(self, x: Tensor) -> Tensor:
        """Return `E_aᵀ H̄⁻¹ E_b` of all pairs of rows, `(R, C', R, C')`. Shapes: x `(R, D)`."""
        k, d = self.model.theta.shape
        x, gram = x.to(self._inverse), self._inverse.new_empty((len(x), k, len(x), k))
        for c in range(k):
            reach = (x @ self._inverse[c * d : (c + 1) * d]).view(len(x), k, d)  # T of one class
            gram[:, c] = (reach @ x.T).transpose(1, 2)
        return gram

    def own_logits(self, removal: FirstOrder, right: Tensor) -> Tensor:
        """Return `E_iᵀ H₋ᵢ⁻¹ v_i`, `(B, C')`, for `right` `(B, C', D)`; cheap where `T_i` is held."""
        if removal.block != self._held:
            return (self.solve(removal, right) @ removal.x[:, :, None])[:, :, 0]
        # E_iᵀ H₋ᵢ⁻¹ = (I − S_i Q_i)⁻ᵀ T_iᵀ
        flat = right.reshape(len(right), -1)
        plain = torch.stack([(self._of(reach, removal) * flat).sum(1) for reach in self._reach], 1)
        return (removal.downdate.mT @ plain.to(torch.float64)[:, :, None])[:, :, 0].to(right.dtype)
