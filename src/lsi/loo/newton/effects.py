r"""What single rows add to the corrections of B removals, and sums of it over a sample of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.rows import centred
from lsi.probes.softmax.math import probability_shift


@dataclass
class Effects:
    """What n rows add for B removals, `(n, B)` where not said, without any weight.

    Attributes:
        change: Δp, `(n, C, B)`.
        rest: `ρ = Δp − S z`, `(n, C, B)`.
        moved: `y·ρ`.
        priced: `Δp·price`.
        unexplained: `|ρ|²` in the metric of S⁻.
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
    def of(cls, p: Tensor, z: Tensor, y: Tensor, price: Tensor, draws: Tensor, own: Tensor) -> Effects:
        """Return them; nothing where a row is the left-out sample itself.

        Shapes: p `(n, C)`; changes of the logits along δ, z, and a, y, and price `(n, C, B)`; of the draws of
        a full posterior `(n, C, R)`; own `(n, B)`.
        """
        own = own[:, None, :]
        change = probability_shift(p, z).masked_fill_(own, 0.0)
        z, y, price = (centred(each, p).masked_fill_(own, 0.0) for each in (z, y, price))
        weight, inverse = p[:, :, None], 1.0 / p.clamp_min(1e-30)[:, :, None]
        rest = change - weight * z
        growth = change.square().mul_(inverse)  # Δp²/p
        whole = growth.sum(1)

        def bent(v: Tensor) -> Tensor:
            # ΔS v = Δp (v − m) − p m with m = Δp·v, so that |ΔS v|² = Σ Δp²/p (v − m)² − m²
            mean, image = (change * v).sum(1), growth * v
            return (image * v).sum(1) + mean * (mean * whole - 2.0 * image.sum(1) - mean)

        turned = [bent(draw[:, :, None].expand_as(z)) for draw in draws.unbind(2)]
        return cls(
            change,
            rest,
            (y * rest).sum(1),
            (change * price).sum(1),
            (rest.square() * inverse).sum(1),
            bent(y),
            bent(z),
            torch.bmm(p[:, None, :], price.square())[:, 0],
            torch.stack(turned).mean(0) if turned else torch.zeros_like(whole),
        )

    @property
    def each(self) -> Tensor:
        """What each row adds to the divergence, `(n, B)`."""
        return self.priced - self.moved


@dataclass
class Sums:
    """Sums over the rows, each weighted by one over its chance to be drawn, `(B,)` float64 where not said.

    Attributes:
        moved: `Σ y·ρ`.
        priced: `Σ Δp·price`.
        unexplained: `Σ |ρ|²` in the metric of S⁻, which bounds `‖η‖²`.
        bent: `Σ |ΔS y|²` in that metric.
        bent_step: `Σ |ΔS z|²` in that metric.
        response: `Σ |price|²` in the metric of S.
        turned: `Σ |ΔS φ|²` in the metric of S⁻, mean over draws φ of a full posterior; else zero.
        square: `Σ (1 − π) e²` with e what a drawn row adds to the divergence, weight included.
        mean: `Σ (1 − π) e`.
        gradient: `Σ ρ ⊗ x`, `(B, C, D)`.
        shift: What the posterior accumulated.
        noise: Differences of its groups, each as noisy as itself.
        probes: Mean square of `Σ ρ·Φ` over the probes less half of its noise, which estimates `‖η‖²`.
    """

    moved: Tensor
    priced: Tensor
    unexplained: Tensor
    bent: Tensor
    bent_step: Tensor
    response: Tensor
    turned: Tensor
    square: Tensor
    mean: Tensor
    gradient: Tensor
    shift: Any
    noise: list[Any]
    probes: Tensor

    SCALARS = ("moved", "priced", "unexplained", "bent", "bent_step", "response", "turned", "square", "mean")

    def select(self, keep: Tensor) -> Sums:
        """Return the removals picked by a mask or an index."""
        names = set(self.__dataclass_fields__)
        picked: dict[str, Any] = {name: getattr(self, name) for name in names}
        picked["noise"] = [part[keep] for part in self.noise]
        for name in names - {"noise"}:
            picked[name] = None if picked[name] is None else picked[name][keep]
        return Sums(**picked)

    @property
    def length(self) -> Tensor:
        """An upper estimate of `‖η‖` in the metric of H₋ᵢ."""
        return torch.minimum(self.unexplained.clamp_min(0), 1.5 * self.probes).sqrt()
