"""Ridge regression: settings of the probe, and its exact solution for every penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError, nearest
from lsi.features.design import Design
from lsi.validation.settings import check_weight_decay, described_decay

ESTIMATE = "estimate"  # the noise precision that is estimated from the data
ROWS = 4096  # rows factorised at a time, at least: enough that the triangle on top of them costs little
SINGULAR = 1e-13  # relative singular value below which weights without a penalty are undetermined
LARGE = 3e9  # N·D² above which XᵀX is tried first: its products are ten times as fast
CONDITION = 1e6  # of XᵀX, up to which squaring costs no more digits than the rounding of the data
Solution = tuple[Tensor, Tensor, Tensor, Tensor]
"""Singular values s, basis V, image UᵀY and residual of a `RidgeModel`."""


@dataclass(frozen=True)
class RidgeProbe:
    r"""A linear head for numeric targets: least squares with a penalty, for one target or several.

    .. math:: \min_\theta \frac{1}{n} \sum_i \tfrac12 \|y_i - \theta x_i\|^2
              + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2

    The noise precision :math:`\beta_t` (one over the variance of target t around its prediction) scales the
    likelihood and with it the posterior: sample j's curvature is
    :math:`h_j = \mathrm{diag}(\beta) \otimes x_j x_j^\top`. It does not move the optimum, which depends on
    `weight_decay` alone.

    The intercept belongs to :math:`\theta`: it decays too, as in ``torch.optim.SGD``. Centre targets that are
    far from zero.

    Args:
        weight_decay: Strength of the penalty on the scale of the mean loss; 0 needs more samples than
            features; ``"auto"``: that of the highest leave-one-out likelihood.
        fit_intercept: Whether a column of ones is appended to the features.
        noise_precision: β > 0, one for all targets or one for each; or ``"estimate"``:
            :math:`\beta_t = (n - \mathrm{df}) / \mathrm{RSS}_t` with the effective degrees of freedom of
            the fit, estimated once from all samples and kept when one is left out.

    Raises:
        InputError: A negative or non-finite weight decay, or a noise precision that is not positive.
    """

    weight_decay: float | Literal["auto"] = 1e-4
    fit_intercept: bool = True
    noise_precision: float | str | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        check_weight_decay(self.weight_decay)
        if isinstance(self.noise_precision, str):
            if self.noise_precision != ESTIMATE:
                raise InputError(
                    f"Unknown noise_precision {self.noise_precision!r}. "
                    f"{nearest(self.noise_precision, [ESTIMATE])} Or give a positive number."
                )
            return
        given = np.asarray(self.noise_precision, dtype=np.float64)
        if given.ndim > 1 or given.size == 0 or not np.all(np.isfinite(given) & (given > 0)):
            raise InputError(
                f"noise_precision must be a positive finite number, one for each target, or 'estimate'; "
                f"got {self.noise_precision!r}."
            )

    def noise(self, n_targets: int) -> np.ndarray | None:
        """Return the given noise precision of each target.

        Args:
            n_targets: Number of targets T.

        Returns:
            `(T,)` precisions, or None if they are to be estimated.

        Raises:
            InputError: There are not as many precisions as targets.
        """
        if isinstance(self.noise_precision, str):
            return None
        given = np.asarray(self.noise_precision, dtype=np.float64)
        if given.ndim == 1 and len(given) != n_targets:
            raise InputError(
                f"noise_precision has {len(given)} entries but y has {n_targets} targets. Give one for each."
            )
        return np.broadcast_to(given, (n_targets,)).copy()

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        noise = self.noise_precision
        return {
            "kind": "ridge",
            "weight_decay": described_decay(self.weight_decay),
            "fit_intercept": bool(self.fit_intercept),
            "noise_precision": noise if isinstance(noise, str) else np.asarray(noise, dtype=float).tolist(),
        }


@dataclass(frozen=True, eq=False)
class RidgeModel:
    r"""Data and exact solutions of a ridge regression, in the right singular vectors of X.

    With :math:`X = U\,\mathrm{diag}(s)\,V^\top` the optimum under a penalty :math:`\lambda` is

    .. math:: \theta^\top = V\, \mathrm{diag}\Bigl(\frac{s_k}{s_k^2 + \lambda}\Bigr) U^\top Y .

    The product :math:`X^\top X`, which squares the condition number, is formed only for large data whose
    condition allows it.

    Attributes:
        design: X, `(N, D)` float64.
        target: Y, `(N, T)` float64.
        weight_decay: `wd`, on the scale of the mean loss.
        singular: s, `(R,)`, R ≤ min(N, D).
        basis: V, `(D, R)`.
        image: `Uᵀ Y`, `(R, T)`.
        beyond: `‖Y − U Uᵀ Y‖²` of each target, which no weights can fit, `(T,)`.
    """

    design: Design
    target: Tensor
    weight_decay: float
    singular: Tensor
    basis: Tensor
    image: Tensor
    beyond: Tensor

    @classmethod
    def of(cls, design: Design, target: Tensor, weight_decay: float) -> RidgeModel:
        """Factorise the data, block by block. Shapes: design `(N, D)`, target `(N, T)`."""
        n, d = design.n_samples, design.n_features
        parts = _from_gram(design, target) if n * d**2 > LARGE else None
        model = cls(design, target, weight_decay, *(parts or _from_triangle(design, target)))
        smallest = float(model.singular[-1]) if len(model.singular) == d else 0.0
        if smallest**2 + model.loo_ridge <= (SINGULAR * float(model.singular[0])) ** 2:
            raise InputError(
                "weight_decay=0 leaves the weights undetermined: there are fewer samples than features, or "
                "columns depend on each other. Use a small positive weight_decay such as 1e-6."
            )
        return model

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self.design.n_samples

    @property
    def ridge(self) -> float:
        """λ of the full problem in sum form, `n · weight_decay`."""
        return self.n_samples * self.weight_decay

    @property
    def loo_ridge(self) -> float:
        """λ of a leave-one-out problem in sum form, `(n − 1) · weight_decay`."""
        return (self.n_samples - 1) * self.weight_decay

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows in the basis V, `(M, R)`, and their parts outside of its span, `(M, D)`.

        Shapes: x `(M, D)`.
        """
        rows = x @ self.basis
        if self.basis.shape[0] == self.basis.shape[1]:
            return rows, torch.zeros_like(x)
        outside = x - rows @ self.basis.T
        outside = outside - (outside @ self.basis) @ self.basis.T  # what rounding left of the first
        noticed = outside.norm(dim=1) > 1e-12 * x.norm(dim=1)
        return rows, torch.where(noticed[:, None], outside, 0.0)

    def weights(self, ridge: float) -> Tensor:
        """Return `θᵀ` under a penalty λ, in the basis V, `(R, T)`."""
        return (self.singular / (self.singular.square() + ridge))[:, None] * self.image

    def degrees_of_freedom(self) -> float:
        """Return `df = tr X (XᵀX + λI)⁻¹ Xᵀ = Σ_k s_k² / (s_k² + λ)`."""
        squares = self.singular.square()
        return float((squares / (squares + self.ridge)).sum())

    def squared_residuals(self) -> Tensor:
        """Return `RSS`, the residual sum of squares of each target, `(T,)`."""
        shrunk = self.ridge / (self.singular.square() + self.ridge) if self.ridge else 0.0 * self.singular
        return self.beyond + (shrunk[:, None] * self.image).square().sum(0)

    def noise_precision(self) -> Tensor:
        """Return the estimated noise precisions `(n − df) / RSS`, `(T,)`; infinite for a perfect fit."""
        return (self.n_samples - self.degrees_of_freedom()) / self.squared_residuals()


def _from_triangle(design: Design, target: Tensor) -> Solution:
    """Return s, V, `Uᵀ Y` and what is beyond them from R of `[X Y] = QR`, which holds the whole problem."""
    d, width = design.n_features, design.n_features + target.shape[1]
    triangle = target.new_empty((0, width))
    for rows, x in design.blocks(max(ROWS, 4 * width)):
        block = torch.cat([triangle, torch.cat([x, target[rows]], 1)])
        triangle = torch.linalg.qr(block, mode="r")[1]
    left, singular, right = torch.linalg.svd(triangle[:, :d], full_matrices=False)
    image = left.T @ triangle[:, d:]
    beyond = (triangle[:, d:] - left @ image).square().sum(0)
    return singular, right.T.contiguous(), image, beyond


def _from_gram(design: Design, target: Tensor) -> Solution | None:
    """Return the same from `XᵀX = V diag(s²) Vᵀ`, or None if its condition would cost digits."""
    d = design.n_features
    gram, moment = target.new_zeros((d, d)), target.new_zeros((d, target.shape[1]))
    for rows, x in design.blocks(ROWS):
        gram.addmm_(x.T, x)
        moment.addmm_(x.T, target[rows])
    s2, v = torch.linalg.eigh(gram)
    s2, v = s2.flip(0), v.flip(1).contiguous()
    if not float(s2[-1]) * CONDITION > float(s2[0]):
        return None
    # UᵀY = diag(1/s) Vᵀ XᵀY; the weights without a penalty leave what is beyond.
    s = s2.sqrt()
    image = (v.T @ moment) / s[:, None]
    plain, beyond = v @ (image / s[:, None]), torch.zeros_like(image[0])
    for rows, x in design.blocks(ROWS):
        beyond += (target[rows] - x @ plain).square().sum(0)
    return s, v, image, beyond
