"""The trained linear softmax probe and its sums over the data, in class-contrast coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.probes.softmax.math import (
    Others,
    class_contrasts,
    contrast_curvature,
    curvature_times,
    probability_shift,
    residuals,
)

PANEL = 129  # features of one panel of a symmetric product: small enough to skip most of the other half
MANY = 64  # classes above which contrasts are applied to sums instead of rows
ELEMENTS = 1 << 21  # probabilities of one block of rows: more would not stay in cache
ROWS = 2048  # rows read at a time: large enough for matrix products, small enough for caches
ClassWeights = Callable[[slice, int], Tensor]
Panels = list[tuple[int, Tensor]]


@dataclass
class SoftmaxModel:
    r"""Data, objective and weights of a linear softmax probe.

    The objective in sum form is
    :math:`F(\theta) = \sum_j w_j \ell_j(\theta) + \tfrac{\lambda}{2}\|\theta\|^2` with
    :math:`\lambda = n\,\mathrm{wd}`.

    Attributes:
        design: `(N, D)` design matrix.
        target: `(N,)` class codes.
        weight: `(N,)` float64 sample weights.
        weight_decay: `wd`, on the scale of the mean loss.
        contrasts: `(C, C − 1)` basis V; the weights of all classes are `V @ theta`.
        theta: `(C − 1, D)` float64 weights.
    """

    design: Design
    target: Tensor
    weight: Tensor
    weight_decay: float
    contrasts: Tensor
    theta: Tensor
    _last: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def start(
        cls, design: Design, target: Tensor, weight: Tensor, weight_decay: float, n_classes: int
    ) -> SoftmaxModel:
        """Return the untrained model: all weights zero."""
        contrasts = class_contrasts(n_classes).to(design.device)
        theta = torch.zeros((n_classes - 1, design.n_features), dtype=torch.float64, device=design.device)
        return cls(design, target, weight, weight_decay, contrasts, theta)

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self.design.n_samples

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return self.contrasts.shape[0]

    @property
    def outputs(self) -> Tensor:
        """Basis of the probe's own rows of weights, `(O, C − 1)`: these are `outputs @ theta`."""
        return self.contrasts

    @property
    def observed(self) -> slice:
        """Which of the C probabilities belong to the outputs."""
        return slice(None)

    @cached_property
    def unweighted(self) -> bool:
        """Whether every sample weight is one."""
        return bool((self.weight == 1).all())

    @property
    def ridge(self) -> float:
        """The penalty of the full problem in sum form, `n · weight_decay`."""
        return self.n_samples * self.weight_decay

    @property
    def loo_ridge(self) -> float:
        """The penalty of a leave-one-out problem in sum form, `(n − 1) · weight_decay`."""
        return (self.n_samples - 1) * self.weight_decay

    def probabilities(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Return `softmax(V θ x)` for rows `x`, `(B, C)` in the type of `x`."""
        weights = self._all_classes(self.theta) if theta is None else self.contrasts @ theta
        return torch.softmax(x @ weights.T.to(x.dtype), -1)

    def _all_classes(self, theta: Tensor) -> Tensor:
        """Return `V θ`, kept for the next call because it is expensive where there are many classes."""
        if self._last is None or self._last[0] is not theta:
            self._last = theta, self.contrasts @ theta
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        """Drop what is kept between calls."""
        return {**self.__dict__, "_last": None}

    def objective_and_gradient(
        self, theta: Tensor, dtype: torch.dtype = torch.float64
    ) -> tuple[float, Tensor]:
        """Return `F(θ)` and `∇F(θ)` of shape `(C − 1, D)`, both in sum form."""
        many = self.n_classes > MANY
        contrasts = self.contrasts if many else self.contrasts.to(dtype)
        gradient = torch.zeros_like(self.contrasts @ theta if many else theta)
        total = torch.zeros((), dtype=torch.float64, device=theta.device)  # read once, at the end
        weights = (self.contrasts @ theta).to(dtype)
        for rows, block in self.design.blocks(max(64, min(ROWS, ELEMENTS // self.n_classes))):
            x, y, w = block.to(dtype), self.target[rows], self.weight[rows].to(dtype)
            log_p = torch.log_softmax(x @ weights.T, -1)
            residual = residuals(log_p.exp(), y)
            total += (w * _losses(log_p, residual, y)).sum(dtype=torch.float64)
            residual *= w[:, None]
            gradient += ((residual if many else residual @ contrasts).T @ x).to(gradient.dtype)
        if many:  # contrasts of every row would cost as much as the sums themselves
            gradient = self.contrasts.T.to(gradient.dtype) @ gradient
        loss = float(total + 0.5 * self.ridge * (theta.to(torch.float64) ** 2).sum())
        return loss, gradient + self.ridge * theta

    def hessian(self, dtype: torch.dtype = torch.float64) -> Tensor:
        r"""Return `Σ_j w_j S'_j ⊗ x_j x_jᵀ` at the current weights, without any ridge."""
        return self.assembled(self.class_rows(self.curvature_weights(self.theta)), dtype)

    def hessian_product(self, v: Tensor) -> Tensor:
        """Return the product of `hessian()` with v, in float64. Shapes: v and the result `(C − 1, D)`."""
        out, weights = torch.zeros_like(v), self.contrasts @ v
        for rows, block in self.design.blocks(ROWS):
            x = block.to(torch.float64)
            image = curvature_times(self.probabilities(x), x @ weights.T) * self.weight[rows, None]
            out += (image @ self.contrasts).T @ x
        return out

    def curvature_weights(self, theta: Tensor) -> ClassWeights:
        """Return a function that computes `S'_j[r, : r + 1]` of some rows at `theta`, `(n, r + 1)`."""
        probabilities = torch.cat([self.probabilities(x, theta) for _, x in self.design.blocks(ROWS)])

        def weights(rows: slice, r: int) -> Tensor:  # row r of S' as in `contrast_curvature`
            v = self.contrasts.to(self.design.dtype)
            others = Others.of(probabilities[rows], v[:, : r + 1])
            v_m, v_mr = others.likeliest, others.likeliest[:, r, None]
            p_vv = others.rest @ (v[:, r, None] * v[:, : r + 1]) + others.share * v_mr * v_m
            l_vm = v_mr * others.lean + others.lean[:, r, None] * v_m
            return p_vv - l_vm - others.apart[:, r, None] * others.apart

        return weights

    def hessian_change(self, delta: Tensor) -> Tensor:
        r"""Return `Σ_j w_j (S'_j(θ + δ) − S'_j(θ)) ⊗ x_j x_jᵀ`, summed as differences.

        Shapes: delta `(C − 1, D)`.
        """
        ps, dps = [], []
        step = (self.contrasts @ delta).to(self.design.dtype)
        for _, x in self.design.blocks(ROWS):
            ps.append(self.probabilities(x))
            dps.append(probability_shift(ps[-1], (x @ step.T)[:, :, None])[:, :, 0])
        p, dp = torch.cat(ps), torch.cat(dps)

        def weights(rows: slice, r: int) -> Tensor:  # row r of ΔS' = Vᵀ(diag(Δp) − p Δpᵀ − Δp (p + Δp)ᵀ)V
            v = self.contrasts.to(dp.dtype)
            p_v, dp_v = p[rows] @ v[:, : r + 1], dp[rows] @ v[:, : r + 1]
            outer = p_v[:, r, None] * dp_v + dp_v[:, r, None] * (p_v + dp_v)
            return dp[rows] @ (v[:, r, None] * v[:, : r + 1]) - outer

        return self.assembled(self.class_rows(weights))

    def class_rows(self, weights: ClassWeights) -> Iterator[tuple[int, Panels]]:
        """Yield every class row of `Σ_j w_j M_j ⊗ x_j x_jᵀ` with its number.

        `weights(rows, r)` returns `M_j[r, : r + 1]` of some rows, `(n, r + 1)`.
        """
        for r in range(self.contrasts.shape[1]):
            yield r, self.class_row(r, weights)

    def class_row(self, r: int, weights: ClassWeights) -> Panels:
        """Return the class blocks `(r, 0 … r)` in panels of features, upper triangle only."""
        d, dtype = self.design.n_features, self.design.dtype
        lows = range(0, d, PANEL)
        panels = [
            torch.zeros((min(PANEL, d - low), (d - low) * (r + 1)), dtype=dtype, device=self.design.device)
            for low in lows
        ]
        for rows, x in self.design.blocks(ROWS):
            m = weights(rows, r) * self.weight[rows, None].to(dtype)
            weighted = (m[:, None, :] * x[:, :, None]).view(len(x), -1)
            for low, panel in zip(lows, panels, strict=True):
                panel.addmm_(x[:, low : low + PANEL].T, weighted[:, low * (r + 1) :])
        return [(low, panel.view(len(panel), -1, r + 1)) for low, panel in zip(lows, panels, strict=True)]

    def assembled(
        self, class_rows: Iterable[tuple[int, Panels]], dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Return the whole symmetric matrix from its class rows, `(K', K')`."""
        k, d = self.contrasts.shape[1], self.design.n_features
        out = torch.empty((k, d, k, d), dtype=dtype, device=self.design.device)
        for r, panels in class_rows:
            for low, panel in panels:
                high = low + len(panel)
                out[r, low:high, : r + 1, low:] = panel.mT
                # Every class block is symmetric in the features, and the whole matrix in the classes.
                out[r, low:, : r + 1, low:high] = panel.permute(1, 2, 0)
                out[: r + 1, low:, r, low:high] = panel.permute(2, 1, 0)
                out[: r + 1, low:high, r, low:] = panel.permute(2, 0, 1)
        return out.view(k * d, k * d)

    def curvature_at(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows x, weighted residuals `w g'` and weighted curvatures `w S'` of some samples."""
        x, residual, p = self.residual_at(index)
        curvature = contrast_curvature(p, self.contrasts) * self.weight[index][:, None, None]
        return x, residual, curvature.to(x.dtype)

    def residual_at(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows x, weighted residuals `w g'` and probabilities p of some samples."""
        x = self.design.take(index)
        p = self.probabilities(x.to(torch.float64))
        residual = (residuals(p, self.target[index]) @ self.contrasts) * self.weight[index][:, None]
        return x, residual.to(x.dtype), p


def _losses(log_p: Tensor, residual: Tensor, target: Tensor) -> Tensor:
    """Return `−log p_y`, `(n,)`; from `1 − p_y` where p_y is near one and its logarithm lost its digits."""
    missing = residual.gather(1, target[:, None])[:, 0]  # p_y − 1
    plain = -log_p.gather(1, target[:, None])[:, 0]
    return torch.where(missing > -0.5, -torch.log1p(missing.clamp_min(-0.5)), plain)
