r"""The contract of a posterior: a precision, how leaving a sample out changes it, and the divergence.

Every structure approximates the same dense matrix, the Gauss-Newton curvature of the summed loss plus the
prior precision,

.. math:: P = \sum_j w_j S_j \otimes x_j x_j^\top + \tau I, \qquad S_j = \mathrm{diag}(p_j) - p_j p_j^\top,

and fulfils, for a removal that moves the weights from :math:`\theta` to :math:`\theta + \delta`:

* ``posterior.to_dense()`` is P in that structure, ``(K, K)``, rows class-major;
* ``posterior.divergence(removal)`` is ``KL(N(θ, P⁻¹) ‖ N(θ + δ, P₂⁻¹))``, to rounding error, where P₂ is the
  same structure without the sample: at :math:`\theta + \delta` where the removal carries a shift, else at
  :math:`\theta`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.errors import InputError
from lsi.features.design import Design
from lsi.probes.softmax.entries import EntryChange
from lsi.probes.softmax.math import variances
from lsi.probes.softmax.model import ELEMENTS, ROWS, SoftmaxModel

# Share of a precision that a removal may leave: below, the logarithm of what is left has lost its digits.
LOST = 1e-13
EPS = torch.finfo(torch.float64).eps


@dataclass
class Removal:
    """B left-out samples and the weights found without each of them, in the model's coordinates.

    Attributes:
        index: Positions of the left-out samples, `(B,)`.
        x: Their rows, `(B, D)`.
        curvature: Their weighted curvature `w S'` at the full-data weights, `(B, C', C')`, or what
            `Posterior.own_curvature` returns.
        delta: δ, the change of the weights, `(B, C', D)`.
        shift: Change of the other samples' curvature, accumulated by `Posterior.add_shift`; None keeps their
            curvature as it was, which is an approximation.
        residual: Their weighted residuals `w g'`, `(B, C')`, if `delta` is the first-order step, for which
            `H₋ᵢ δ = g ⊗ x + wd θ` holds without a product; else None.
    """

    index: Tensor
    x: Tensor
    curvature: Tensor
    delta: Tensor
    shift: Any = None
    residual: Tensor | None = None


@dataclass
class Edit:
    """B changes of the data in which rows leave or join, and the weights found after each.

    Attributes:
        bounds: Where the rows of each change are among the R rows.
        x: Rows, `(R, D)`.
        sign: −1 where a row leaves, 1 where it joins, `(R,)`.
        curvature: `±w S'`, negative where a row leaves, `(R, C', C')`: at `θ + δ` if there is a shift, else
            at θ.
        gained: How many more samples there are after each change, `(B,)`.
        delta: δ, the change of the weights, `(B, C', D)`.
        shift: Change of the curvature of all samples of the data, those that leave among them, accumulated by
            `Posterior.add_shift`; None keeps their curvature as it was.
    """

    bounds: list[slice]
    x: Tensor
    sign: Tensor
    curvature: Tensor
    gained: Tensor
    delta: Tensor
    shift: Any = None


@dataclass
class Sensitivity:
    """First-order sensitivity of B divergences to weights and curvature.

    Attributes:
        gradient: `∂KL/∂δ = P₂ δ`, `(B, C', D)`.
        curvature: `∂KL/∂P₂` in the form that `Posterior.price` takes.
    """

    gradient: Tensor
    curvature: Tensor

    def select(self, keep: Any) -> Sensitivity:
        """Return those of the removals picked by a mask, an index or a slice."""
        curvature = self.curvature
        return Sensitivity(self.gradient[keep], curvature[keep] if curvature.numel() else curvature)


class Posterior(ABC):
    """A Gaussian weight posterior of a trained softmax probe.

    Args:
        model: The trained probe.
        prior_precision: τ > 0, precision of the isotropic Gaussian prior.
        basis: Orthonormal basis `(D₀, D)` of the model's coordinates in the original D₀ features; None: the
            model is in the original coordinates.

    Attributes:
        rounding: Relative error that double precision leaves in a divergence, where one sample holds nearly
            all of the precision somewhere: a share q of it remains, and `log q`, a part of the divergence, is
            off by about `ε / q`.
    """

    name: ClassVar[str]
    # Whether `divergence` computes the shifted curvature itself, at the removal's own weights (expensive and
    # exact), instead of taking what the last sweep accumulated.
    shift_is_current: ClassVar[bool] = False
    # Whether `sensitivity` counts the covariance term's response to the others' curvature.
    prices_covariance: ClassVar[bool] = False
    # Relative error that float32 products leave in the divergence.
    float32_floor: ClassVar[float] = 1e-5

    def __init__(self, model: SoftmaxModel, prior_precision: float, basis: Tensor | None = None) -> None:
        self.model = model
        self.prior_precision = prior_precision
        self.basis = basis
        self.rounding = 0.0
        self._refuse_lost_prior()

    def _refuse_lost_prior(self) -> None:
        """Refuse a prior that is lost beside the curvature of a sample that alone holds a column."""
        model = self.model
        most = max(
            float((x.square().amax(1).to(torch.float64) * model.weight[rows]).amax())
            for rows, x in model.design.blocks(ROWS)
        )
        if self.prior_precision >= EPS**0.5 * 0.25 * most * (1 if self.basis is None else len(self.basis)):
            return  # no variance is above a quarter
        total = largest = torch.zeros((), dtype=torch.float64, device=model.design.device)
        for rows, block in model.design.blocks(
            max(64, ELEMENTS // (model.n_classes * model.design.n_features))
        ):
            x = block.to(torch.float64)
            variance = model.weight[rows, None] * variances(model.probabilities(x))
            own = variance[:, :, None] * self.lift(x).square()[:, None, :]
            total, largest = total + own.sum(0), torch.maximum(largest, own.amax(0))
        alone = (total - largest).clamp_min(0) + self.prior_precision
        share = float((alone / (total + self.prior_precision)).amin())
        self.rounding = EPS / share
        if share < LOST:
            most = float(largest.amax())
            raise InputError(
                f"prior_precision={self.prior_precision:g} is lost in double precision: a lone sample holds "
                f"a feature with a curvature of up to {most:.1e}; without it only the prior is left. "
                f"Use a prior_precision of at least {LOST * most:.0e}."
            )

    @classmethod
    @abstractmethod
    def coordinates(cls, design: Design) -> Tensor | None:
        """Return the orthonormal basis `(D₀, D)` in which this structure is cheapest, or None."""

    def in_double(self) -> Posterior:
        """Return the same posterior, of a model whose features are in double precision."""
        double = copy.copy(self)
        double.model = replace(self.model, design=self.model.design.astype(torch.float64))
        return double

    @abstractmethod
    def new_shift(self, n_removed: int) -> Any:
        """Return an empty accumulator for `add_shift`."""

    @abstractmethod
    def add_shift(self, shift: Any, x: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor) -> None:
        """Add what a block of rows contributes to the change of the other samples' curvature.

        Args:
            shift: The accumulator.
            x: Rows, `(n, D)`.
            weight: Sample weights, `(n,)`.
            probabilities: At the full-data weights, `(n, C)`.
            change: Change of the probabilities for each removal, `(n, C, B)`; zero where the row is
                the left-out sample itself.
        """

    def add_entries(self, shift: Any, seen: EntryChange) -> None:
        """Add the same of the entries that matter, where there are many classes."""
        raise NotImplementedError  # a full posterior has no sparse form

    def own_curvature(self, index: Tensor) -> Tensor:
        """Return the part of the weighted curvature of the samples at `index` that `divergence` needs."""
        return self.model.curvature_at(index)[2]

    @abstractmethod
    def divergence(self, removal: Removal) -> Terms:
        """Return the two terms of the divergence for each left-out sample, in nats."""

    @abstractmethod
    def divergence_of(self, edit: Edit, joined: bool = False) -> Terms:
        """Return the two terms of the divergence for each change of the data, in nats.

        With P₂ the precision after the change: `KL(N(θ, P⁻¹) ‖ N(θ + δ, P₂⁻¹))`; where `joined`, with the
        arguments exchanged, which is the LSI of the rows as part of the data after the change. A structure
        that cannot keep the others' curvature cheaply (`shift_is_current`) gives the mean term alone where
        there is no shift.
        """

    @abstractmethod
    def sensitivity(self, removal: Removal) -> Sensitivity:
        """Return the derivatives of the divergence, with the other samples' curvature kept."""

    def row_image(self, x: Tensor) -> Tensor:
        """Return what `own_shift` and `row_price` need of rows, `(B, n, …)`. Shapes: x `(B, n, D)`."""
        return x[:, :, :0]

    def own_shift(self, image: Tensor, weight: Tensor, probabilities: Tensor, change: Tensor) -> Tensor:
        """Return what rows of each removal's own add to the change of the curvature, as in `add_shift`.

        Shapes: image of the rows `(B, n, …)`, weight `(B, n)`, probabilities and change `(B, C, n)`.
        """
        raise NotImplementedError(f"{self.name} computes the shifted curvature itself")

    def shift_products(self, shifts: Tensor) -> Tensor:
        r"""Return :math:`\tfrac14 \mathrm{tr}\, P_1^{-1} \Delta_a P_1^{-1} \Delta_b`, `(B, m, m)`.

        That of a shift with itself is its covariance term, to lowest order. Shapes: shifts `(B, m, …)`.
        """
        raise NotImplementedError(f"{self.name} computes the shifted curvature itself")

    @abstractmethod
    def row_price(self, sensitivity: Sensitivity, image: Tensor, probabilities: Tensor, z: Tensor) -> Tensor:
        r"""Return what a changed probability of each class adds to the divergence, `(B, C, n)`.

        To first order, a row whose probabilities change by :math:`\Delta p` adds
        :math:`\sum_c \Delta p_c\, \mathrm{price}_c` to the divergence through its curvature in :math:`P_2`.

        Args:
            sensitivity: Of the removals.
            image: Of rows of each removal's own, `(B, n, …)`.
            probabilities: At the full-data weights, `(B, C, n)`.
            z: Change of the logits minus its mean under `probabilities`, `(B, C, n)`.
        """

    @abstractmethod
    def row_leverage(self, x: Tensor, weight: Tensor, probabilities: Tensor) -> Tensor:
        """Return at least `‖P₁^{-½} h_j P₁^{-½}‖_F` of each row, `(n,)`; zeros where its leverage is that.

        It counts what a changed curvature of the row does to the divergence.

        Shapes: x `(n, D)`, weight `(n,)`, probabilities `(n, C)`.
        """

    def draws(self, count: int) -> Tensor:
        """Return draws of N(0, P₁⁻¹), `(count, C', D)`, where the shift is not accumulated; else none."""
        model = self.model
        return torch.zeros((0, *model.theta.shape), dtype=model.design.dtype, device=model.design.device)

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Return the precision as a dense `(K, K)` matrix in all classes; for tests only."""

    def lift(self, rows: Tensor) -> Tensor:
        """Return vectors of feature space in the original coordinates, `(…, D) → (…, D₀)`."""
        return rows if self.basis is None else rows @ self.basis.T.to(rows.dtype)

    def project(self, rows: Tensor) -> Tensor:
        """Return vectors of the original feature space in the model's coordinates."""
        return rows if self.basis is None else rows @ self.basis.to(rows.dtype)

    def _classes(self, matrix: Tensor) -> Tensor:
        """Return a `(C'·D, C'·D)` matrix in all C classes and the original features, `(C·D₀, C·D₀)`."""
        contrasts = self.model.contrasts.to(matrix.dtype)
        k, d = self.model.theta.shape
        blocks = self.lift(matrix.view(k, d, k, d))
        blocks = self.lift(blocks.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        size = self.model.n_classes * blocks.shape[1]
        return torch.einsum("cr,rdse,fs->cdfe", contrasts, blocks, contrasts).reshape(size, size)
