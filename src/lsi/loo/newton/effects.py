r"""What single rows add to the corrections of B removals, and sums of it over the rows that are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.rows import centred
from lsi.probes.softmax.math import probability_shift


@dataclass
class Effects:
    """What n rows of each removal's own add to it, `(B, n)` where not said, without any weight.

    Attributes:
        change: Δp, `(B, C, n)`.
        rest: `ρ = Δp − S̃ z`, `(B, C, n)`, S̃ the row's curvature in the inverse that steps are taken with.
        moved: `y·ρ`.
        priced: `Δp·price`.
        unexplained: `|Δp − S z|²` in the metric of S⁻.
        bent: `|ΔS y|²` in that metric.
        bent_step: `|ΔS z|²` in that metric.
        response: `|price|²` in the metric of S.
        turned: `|ΔS φ|²` in the metric of S⁻, mean over the draws.
    """

    change: Tensor
    rest: Tensor
    moved: Tensor
    priced: Tensor
    unexplained: Tensor
    bent: Tensor
    bent_step: Tensor
    response: Tensor
    turned: Tensor

    @classmethod
    def of(
        cls,
        p: Tensor,
        z: Tensor,
        y: Tensor,
        price: Tensor,
        draws: list[Tensor],
        former: tuple[Tensor, Tensor] | None = None,
    ) -> Effects:
        """Return them.

        Shapes: p, changes of the logits along δ, z, and a, y, and price, and the draws of a full posterior
        `(B, C, n)`; former, the probabilities `(B, C, n)` that S̃ is of, and its weight over that of the row
        `(B, 1, n)`; None: it is S.
        """
        change = probability_shift(p, z)
        z, y, price = (centred(each, p) for each in (z, y, price))
        beyond = change - p * z
        rest = beyond if former is None else change - former[1] * former[0] * centred(z, former[0])
        growth = change / p.clamp_min(1e-30)  # Δp/p
        square = growth * change  # Δp²/p
        whole = square.sum(1)

        def bent(v: Tensor) -> Tensor:
            # ΔS v = Δp (v − m) − p m with m = Δp·v, so that |ΔS v|² = Σ Δp²/p (v − m)² − m²
            mean, image = (change * v).sum(1), square * v
            return (image * v).sum(1) + mean * (mean * whole - 2.0 * image.sum(1) - mean)

        turned = [bent(centred(draw, p)) for draw in draws]
        return cls(
            change,
            rest,
            (y * rest).sum(1),
            (change * price).sum(1),
            (beyond * (growth - z)).sum(1),  # (Δp − S z)/p = Δp/p − z
            bent(y),
            bent(z),
            (p * price.square()).sum(1),
            torch.stack(turned).mean(0) if turned else torch.zeros_like(whole),
        )

    @property
    def each(self) -> Tensor:
        """What each row adds to the divergence, `(B, n)`."""
        return self.priced - self.moved


@dataclass
class Sums:
    """Sums over the rows, each weighted by one over its chance π, `(B,)` float64 where not said.

    Attributes:
        moved: `Σ y·ρ`.
        priced: `Σ Δp·price`.
        unexplained: `Σ |Δp − S z|²` in the metric of S⁻, which bounds `‖η‖²` where S̃ is S.
        bent: `Σ |ΔS y|²` in that metric.
        bent_step: `Σ |ΔS z|²` in that metric.
        response: `Σ |price|²` in the metric of S.
        turned: `Σ |ΔS φ|²` in the metric of S⁻, mean over draws φ of a full posterior; else zero.
        square: `Σ (1 − π) e²` with e what a row adds to the divergence, weight included: its variance.
        largest: Largest `|e|` of the rows that are not certain to be read.
        square_pool: What would be left of `square` if the whole pool were read.
        largest_pool: What would be left of `largest`.
        gradient: `Σ ρ ⊗ x`, `(B, C, D)`.
        shift: Change of the other samples' curvature; None where the posterior computes it itself.
        products: `shift_products` of the parts of the shift: of rows that are certain, and of groups of the
            others, `(B, 1 + GROUPS, 1 + GROUPS)`; None as above.
    """

    moved: Tensor
    priced: Tensor
    unexplained: Tensor
    bent: Tensor
    bent_step: Tensor
    response: Tensor
    turned: Tensor
    square: Tensor
    largest: Tensor
    square_pool: Tensor
    largest_pool: Tensor
    gradient: Tensor
    shift: Any
    products: Any

    SUMMED = ("moved", "priced", "unexplained", "bent", "bent_step", "response", "turned")

    @classmethod
    def joined(cls, parts: list[Sums], order: Tensor) -> Sums:
        """Return the sums of several blocks of removals, in the order `order`."""
        columns: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            each = [getattr(part, name) for part in parts]
            columns[name] = None if each[0] is None else torch.cat(each)[order]
        return cls(**columns)
