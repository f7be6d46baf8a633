r"""Corrections of first-order removals from a sample of rows, with a certificate that counts what was not seen.

The gradient that a first-order step leaves is exactly a sum over the other rows, at all orders,

.. math:: r_i = \sum_{j \ne i} w_j\, \rho_j \otimes x_j, \qquad \rho_j = p_j(\theta + \delta_i) - p_j(\theta) - S_j z_j,
          \qquad z_j = x_j \delta_i .

Rows that are drawn estimate it, and with it three things: what the step :math:`\eta = -H_{-i}^{-1} r_i` to the optimum
adds to the divergence, :math:`-\sum_j w_j\, y_j \cdot \rho_j` with :math:`y_j = x_j H_{-i}^{-1} P_2 \delta_i`; the
posterior's own response to the rows' changed curvature; and how long that step is, :math:`\|\eta\|_{H_{-i}}`, which
bounds what a second one would add. docs/method.md derives the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.neighbours import Neighbours
from lsi.loo.newton.rows import Drawn, Reach, centred, draw, probe_logits
from lsi.posterior.base import Posterior, Removal, Sensitivity
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel

LEVELS = (256, 1024, 4096)  # rows that are read, until the certificate is within the tolerance
MORE_SHARE = 0.5  # share of all rows from which a sweep over them costs hardly more
TILE = 192  # rows priced at a time: their logits for a block of removals stay in cache
SURPRISE = 6.0  # −ln of the chance that the sample misleads
DRAWS = 4  # of a full posterior, whose covariance term is bounded with them
TINY = torch.finfo(torch.float64).tiny


@dataclass
class Corrected:
    """Removals corrected from sampled rows.

    Attributes:
        terms: The divergence's two terms, `(B,)` each.
        certificate: Upper estimate of the relative error, `(B,)`.
        gradient: What the first-order step leaves of the gradient, `(B, C', D)`.
    """

    terms: Terms
    certificate: Tensor
    gradient: Tensor


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
        shift: What the posterior accumulated, and the difference of its two halves.
        probes: Mean square of `Σ ρ·Φ` over the probes, which estimates `‖η‖²`.
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
    halves: Any
    probes: Tensor

    SCALARS = ("moved", "priced", "unexplained", "bent", "bent_step", "response", "turned", "square", "mean")

    def select(self, keep: Tensor) -> Sums:
        """Return the removals picked by a mask or an index."""
        names = self.__dataclass_fields__
        return Sums(*(None if (v := getattr(self, name)) is None else v[keep] for name in names))

    @property
    def length(self) -> Tensor:
        """An upper estimate of `‖η‖` in the metric of H₋ᵢ, whose noise counts as length."""
        return torch.minimum(self.unexplained.clamp_min(0), 1.5 * self.probes).sqrt()


class RowCorrector:
    """Corrects first-order removals from nested samples of rows.

    Args:
        model: The full-data model.
        solver: First-order solver.
        posterior: The posterior that the divergence is taken of.
        tol: Relative error at which a removal needs no more rows.
        floor: Relative error that is always there.
        seed: Seed of the draw.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        solver: DenseSolver,
        posterior: Posterior,
        tol: float,
        floor: float,
        seed: int = 0,
    ) -> None:
        self.model, self.solver, self.posterior = model, solver, posterior
        self.tol, self.floor = tol, floor
        self.draws = posterior.draws(DRAWS if posterior.shift_is_current else 0)
        reach = Reach.of(model, posterior, solver.probes)
        counts = [count for count in LEVELS if count <= MORE_SHARE * model.n_samples] or [model.n_samples]
        bound = reach.leverage * reach.length
        drawn = draw(bound, reach.length, counts, seed)
        self.levels = [_Level(model, reach, bound, level) for level in drawn]

    @cached_property
    def neighbours(self) -> Neighbours:
        """What finds the rows nearest to a sample."""
        return Neighbours(self.model)

    def correct(self, first: FirstOrder) -> Corrected:
        """Return the corrected removals, each from as few rows as certify it.

        The weights themselves are not corrected: `−H₋ᵢ⁻¹ gradient` would be what they lack.
        """
        b, zero = len(first.index), torch.zeros(len(first.index), dtype=torch.float64, device=first.x.device)
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=first.residual)
        sensitivity = self.posterior.sensitivity(removal)
        frozen = self.posterior.divergence(removal)
        pull = self.solver.solve(first, sensitivity.pull)
        state = State.of(self.model, first, frozen, sensitivity, pull)
        found = Corrected(
            Terms(zero.clone(), zero.clone()), torch.full_like(zero, float("inf")), torch.zeros_like(first.delta)
        )
        active = torch.arange(b, device=zero.device)
        for level in self.levels:
            part = state.select(active)
            sums = self._sums(level, part)
            certificate, known = self._put(found, level, active, part, sums)
            # Where the rows that were not drawn are all that is in doubt, the likeliest of them are looked at.
            doubtful = ~(certificate <= self.tol) & (known <= self.tol)
            if bool(doubtful.any()) and level.spacing > 0:
                near, which = part.select(doubtful), active[doubtful]
                sums = sums.select(doubtful)
                farther = self._look(level, near, sums)
                certificate[doubtful], _ = self._put(found, level, which, near, sums, farther)
            active = active[~(certificate <= self.tol)]
            if not len(active):
                break
        return found

    def _put(
        self,
        found: Corrected,
        level: _Level,
        which: Tensor,
        part: State,
        sums: Sums,
        farther: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put values and certificates into `found`; return the certificates, and without unseen rows."""
        first, covariance = part.first, part.covariance
        mean = part.mean + sums.priced
        if sums.shift is not None:
            own = Removal(first.index, first.x, first.curvature, first.delta, sums.shift)
            shifted = self.posterior.divergence(own)
            mean, covariance = shifted.mean, shifted.covariance
            alone, off = (self._covariance_of(first, shift) for shift in (sums.shift, sums.halves))
            covariance = (covariance - off).clamp_min(0)  # what the sample's noise adds on average
        else:
            alone = part.covariance
            off = 0.25 * sums.turned.clamp_min(0)
        # The term is about a quarter of a squared norm of the changed curvature, so that norms add up. What a
        # sampled change does to the part that the left-out sample has in it is priced row by row.
        covariance_error = 2.0 * (alone * off).sqrt() + off
        bending = mean - part.mean
        mean = (mean - sums.moved).clamp_min(0)
        total = (mean + covariance).clamp_min(TINY)
        spread = (sums.square - sums.mean.square() / level.n_drawn).clamp_min(0)
        known = (2.0 * SURPRISE * spread).sqrt() + covariance_error + part.second_order(sums, bending)
        missed = level.spacing * part.unseen(level.length, torch.maximum(covariance, part.covariance))
        missed = missed if farther is None else torch.minimum(missed, farther)
        certificate = self.floor + torch.stack([known + SURPRISE * missed, known]) / total
        certificate = certificate.nan_to_num(nan=float("inf"), posinf=float("inf"))
        found.terms.mean[which], found.terms.covariance[which] = mean, covariance
        found.certificate[which] = certificate[0]
        found.gradient[which] = self.model.contrasts.T.to(sums.gradient.dtype) @ sums.gradient
        return certificate[0], certificate[1]

    def _covariance_of(self, first: FirstOrder, shift: Any) -> Tensor:
        """Return the covariance term of the others' changed curvature alone."""
        nothing = (torch.zeros_like(each) for each in (first.x, first.curvature, first.delta))
        return self.posterior.divergence(Removal(first.index, *nothing, shift)).covariance

    def _sums(self, level: _Level, part: State) -> Sums:
        """Return the sums over the rows of a level."""
        b, d = len(part.mean), part.first.x.shape[1]
        step, force = self._class_first(part.first.delta), self._class_first(part.pull)
        price = self.posterior.price(part.sensitivity)
        zero = torch.zeros(b, dtype=torch.float64, device=part.mean.device)
        total = {name: zero.clone() for name in Sums.SCALARS}
        probes = torch.zeros((level.probes.shape[2], b), dtype=step.dtype, device=step.device)
        gradient = torch.zeros((self.model.n_classes * b, d), dtype=step.dtype, device=step.device)
        shifts = [None if self.posterior.shift_is_current else self.posterior.new_shift(b) for _ in range(3)]
        for half, rows in level.tiles:
            x, p, scale = level.x[rows], level.p[rows], level.scale[rows]
            z, y = ((x @ weights.T).view(len(x), -1, b) for weights in (step, force))
            own = level.rows[rows, None] == part.first.index[None, :]
            price_of = self.posterior.row_price(price, x, p, centred(z, p))
            effect = Effects.of(p, z, y, price_of, centred(probe_logits(self.model, x, self.draws), p), own)
            for name in Sums.SCALARS[:-2]:
                total[name] += (scale @ getattr(effect, name)).to(torch.float64)
            each, left = effect.each * scale[:, None], level.left[rows]
            total["square"] += left @ each.square()
            total["mean"] += left @ each
            if shifts[half] is not None:
                self.posterior.add_shift(shifts[half], x, scale, p, effect.change)
            rest = effect.rest * scale[:, None, None]
            probes.addmm_(level.probes[rows].flatten(0, 1).T, rest.flatten(0, 1))
            gradient.addmm_(rest.flatten(1).T, x)
        gradient = gradient.view(-1, b, d).transpose(0, 1)
        if shifts[0] is None:
            shift = halves = None
        else:
            shift, halves = shifts[0] + shifts[1] + shifts[2], shifts[1] - shifts[2]
        energy = probes.square().mean(0).to(torch.float64)
        return Sums(**total, gradient=gradient, shift=shift, halves=halves, probes=energy)

    def _look(self, level: _Level, part: State, sums: Sums) -> Tensor:
        """Count the rows nearest to each sample in full; return what one beyond them may add, over its chance."""
        index, b = part.first.index, len(part.mean)
        nearest = self.neighbours.nearest(index, level.chance < 1.0)
        m = nearest.shape[1]
        flat = nearest.reshape(-1)
        x = self.model.design.take(flat)
        p, chance = self.model.probabilities(x), level.chance[flat]
        z, y = (
            (x.view(b, m, -1) @ (self.model.contrasts.to(x.dtype) @ weights).mT).reshape(b * m, -1, 1)
            for weights in (part.first.delta, part.pull)
        )
        middle, prices = centred(z, p), []
        for k in range(b):
            rows, one = slice(k * m, (k + 1) * m), slice(k, k + 1)
            price = self.posterior.price(part.select(one).sensitivity)
            prices.append(self.posterior.row_price(price, x[rows], p[rows], middle[rows]))
        draws = centred(probe_logits(self.model, x, self.draws), p)
        effect = Effects.of(p, z, y, torch.cat(prices), draws, (flat == index.repeat_interleave(m))[:, None])
        # What is counted already, where a row was drawn, is taken back.
        before = torch.where(level.is_drawn[flat], 1.0 / chance, torch.zeros_like(chance))
        weight = self.model.weight[flat].to(x.dtype)
        scale = (weight * (1.0 - before)).view(b, m)
        for name in Sums.SCALARS[:-2]:
            setattr(sums, name, getattr(sums, name) + (scale * getattr(effect, name).view(b, m)).sum(1))
        each = (effect.each[:, 0] * weight).view(b, m)
        counted = each * before.view(b, m)
        left = (1.0 - chance).view(b, m)
        sums.square = (sums.square - (left * counted.square()).sum(1)).clamp_min(0)
        sums.mean = sums.mean - (left * counted).sum(1)
        sums.probes = (sums.probes.sqrt() + (scale.abs() * effect.unexplained.view(b, m)).sum(1).sqrt()).square()
        rest = effect.rest.view(b, m, -1) * scale[:, :, None]
        sums.gradient = sums.gradient + rest.mT @ x.view(b, m, -1)
        if sums.shift is not None:
            for k in range(b):
                rows = slice(k * m, (k + 1) * m)
                self.posterior.add_shift(sums.shift[k : k + 1], x[rows], scale[k], p[rows], effect.change[rows])
        farther = (each.abs() / chance.view(b, m))[:, m // 2 :]
        return farther.amax(1).to(torch.float64)

    def _class_first(self, weights: Tensor) -> Tensor:
        """Return weights `(B, C', D)` in all classes, `(C·B, D)`."""
        b, k, d = weights.shape
        flat = weights.transpose(0, 1).reshape(k, b * d)
        return (self.model.contrasts.to(flat.dtype) @ flat).view(-1, d)


class _Level:
    """One level of the draw with what its rows are read for."""

    def __init__(self, model: SoftmaxModel, reach: Reach, bound: Tensor, drawn: Drawn) -> None:
        self.spacing, self.length = drawn.spacing, drawn.length
        # Rows that are always taken, then the two halves of the others.
        others = slice(drawn.n_certain, None)
        order = [torch.arange(drawn.n_certain, device=bound.device)]
        order += [torch.arange(drawn.n_certain, len(drawn.rows), device=bound.device)[half::2] for half in (0, 1)]
        self.rows, weight = drawn.rows[torch.cat(order)], drawn.weight[torch.cat(order)]
        self.tiles, start = [], 0
        for half, part in enumerate(order):
            for low in range(start, start + len(part), TILE):
                self.tiles.append((half, slice(low, min(low + TILE, start + len(part)))))
            start += len(part)
        self.n_drawn = max(1, len(drawn.rows[others]))
        self.x = model.design.take(self.rows)
        self.p = model.probabilities(self.x)
        self.scale = (model.weight[self.rows] * weight).to(self.x.dtype)
        self.left = (1.0 - 1.0 / weight).to(self.x.dtype)  # 1 − π: what is always taken has no variance
        self.probes = probe_logits(model, self.x, reach.probes)
        chance = bound / drawn.spacing if drawn.spacing > 0 else torch.ones_like(bound)
        self.chance = chance.clamp_max(1.0).to(self.x.dtype)
        self.chance[drawn.rows[: drawn.n_certain]] = 1.0
        self.is_drawn = torch.zeros_like(bound, dtype=torch.bool)
        self.is_drawn[drawn.rows] = True


@dataclass
class State:
    """What is known of first-order removals before any other row is read, `(B,)` float64 where not said.

    Attributes:
        first: The removals.
        sensitivity: Of their divergences.
        pull: `a = H₋⁻¹ P₂ δ`, `(B, C', D)`.
        mean: Mean term at the others' frozen curvature.
        covariance: Covariance term there.
        energy: `δᵀ H̄ δ`.
        force: `aᵀ H̄ a`.
    """

    first: FirstOrder
    sensitivity: Sensitivity
    pull: Tensor
    mean: Tensor
    covariance: Tensor
    energy: Tensor
    force: Tensor

    @classmethod
    def of(
        cls, model: SoftmaxModel, first: FirstOrder, frozen: Terms, sensitivity: Sensitivity, pull: Tensor
    ) -> State:
        """Return it. Shapes: pull `(B, C', D)`."""
        z, y = ((step @ first.x[:, :, None])[:, :, 0].to(torch.float64) for step in (first.delta, pull))
        own = first.curvature.to(torch.float64)
        decay = model.weight_decay * (first.delta.flatten(1).to(torch.float64) @ model.theta.reshape(-1))
        # δᵀH₋δ = δ·(g ⊗ x + wd θ) and aᵀH₋a = a·P₂δ; H̄ has the sample's own curvature on top.
        energy = (z * first.residual).sum(1) + decay + torch.einsum("bk,bkl,bl->b", z, own, z)
        force = (pull * sensitivity.pull).sum((1, 2), dtype=torch.float64)
        force = force + torch.einsum("bk,bkl,bl->b", y, own, y)
        return cls(
            first, sensitivity, pull, frozen.mean, frozen.covariance, energy.clamp_min(TINY), force.clamp_min(0)
        )

    def select(self, keep: Any) -> State:
        """Return the removals picked by a mask, an index or a slice."""
        curvature = self.sensitivity.curvature
        sensitivity = Sensitivity(
            self.sensitivity.pull[keep], curvature[keep] if curvature.numel() else curvature
        )
        rest = (getattr(self, name)[keep] for name in ("pull", "mean", "covariance", "energy", "force"))
        return State(self.first.select(keep), sensitivity, *rest)

    @property
    def stiff(self) -> Tensor:
        """`δᵀ P₂ δ`."""
        return 2.0 * self.mean.clamp_min(TINY)

    def unseen(self, length: float, covariance: Tensor) -> Tensor:
        """Return the most that a row may add to the divergence, over its bound: leverage times `√Q_j`."""
        zeta = length * self.energy.sqrt()
        growth = zeta.expm1()
        # A row's ρ is at most (e^ζ − 1 − ζ)/ζ of its S z, and its Δp e^ζ − 1 of its p. The covariance term,
        # a quarter of a squared norm, then changes by half of that norm times the row's leverage.
        most = (growth - zeta) / zeta.clamp_min(TINY) * (self.energy * self.force).sqrt()
        return (most + growth * (0.5 * self.stiff + covariance.sqrt())) / (length or 1.0)

    def second_order(self, sums: Sums, bending: Tensor) -> Tensor:
        """Return what a second step would add at most, in nats."""
        bend = (sums.bent_step.clamp_min(0) / self.energy).sqrt()  # relative change of H along δ
        step = sums.length / (1.0 - bend).clamp_min(TINY)
        stiffness = self.force / self.stiff  # of P₂ in units of H along δ
        along = sums.bent.clamp_min(0).sqrt() + sums.response.clamp_min(0).sqrt()
        along = along + 2.0 * bending.abs() * (stiffness / self.stiff).sqrt()
        return 0.5 * stiffness * step.square() + step * along


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
