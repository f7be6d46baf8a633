r"""Corrections of first-order removals from a sample of rows; certificates count what was not seen.

The gradient that a first-order step leaves is exactly a sum over the other rows, at all orders,

.. math:: r_i = \sum_{j \ne i} w_j\, \rho_j \otimes x_j, \qquad
          \rho_j = p_j(\theta + \delta_i) - p_j(\theta) - S_j z_j, \qquad z_j = x_j \delta_i .

Rows that are drawn estimate it, and with it three things: what the step :math:`\eta = -H_{-i}^{-1} r_i` to
the optimum adds to the divergence, :math:`-\sum_j w_j\, y_j \cdot \rho_j` with
:math:`y_j = x_j H_{-i}^{-1} P_2 \delta_i`; the posterior's own response to the rows' changed curvature; and
how long that step is, :math:`\|\eta\|_{H_{-i}}`, which bounds what a second one would add.
docs/explanation/method.md derives the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.certificate import TINY, Doubt, State
from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.effects import Effects, Sums
from lsi.loo.newton.neighbours import Neighbours
from lsi.loo.newton.rows import Drawn, Reach, centred, draw, probe_logits
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.model import SoftmaxModel

LEVELS = (256, 512, 1024, 2048, 4096, 8192, 16384)  # rows that may be read for a removal
MORE_SHARE = 0.5  # share of all rows from which a sweep over them costs hardly more
AHEAD = 0.9  # share of the tolerance that a level must promise to be tried
GROUPS = 4  # of drawn rows, whose differences show the noise of their sum
TILE = 192  # rows priced at a time: their logits for a block of removals stay in cache
DRAWS = 4  # of a full posterior, whose covariance term is bounded with them


def contrasts(parts: Any) -> list[Any]:
    """Return sums of the four groups `parts[1:]` with two signs turned, as noisy as the sum of all."""
    _, a, b, c, d = parts
    return [a + b - c - d, a - b + c - d, a - b - c + d]


@dataclass
class Corrected:
    """Removals corrected from sampled rows.

    Attributes:
        terms: The divergence's two terms, `(B,)` each.
        certificate: Upper estimate of the relative error, `(B,)`.
        gradient: What the first-order step leaves of the gradient, `(B, C', D)`.
        first_order: The divergence of the first-order step, `(B,)`.
    """

    terms: Terms
    certificate: Tensor
    gradient: Tensor
    first_order: Tensor


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
        self._reach = Reach.of(model, posterior, solver.probes)
        self._bound = self._reach.leverage * self._reach.length
        counts = [count for count in LEVELS if count <= MORE_SHARE * model.n_samples] or [model.n_samples]
        self._drawn = draw(self._bound, self._reach.length, counts, seed)
        self._levels: dict[int, _Level] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what workers make for themselves."""
        return {**self.__dict__, "_levels": {}}

    def _level(self, place: int) -> _Level:
        """Return a level of the draw; the rows of large ones are only read where a removal needs them."""
        if place not in self._levels:
            self._levels[place] = _Level(self.model, self._reach, self._bound, self._drawn[place])
        return self._levels[place]

    @cached_property
    def neighbours(self) -> Neighbours:
        """What finds the rows nearest to a sample."""
        return Neighbours(self.model)

    def correct(self, first: FirstOrder) -> Corrected:
        """Return the corrected removals, each from as few rows as certify it.

        The weights themselves are not corrected: `−H₋ᵢ⁻¹ gradient` would be what they lack.
        """
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=first.residual)
        sensitivity = self.posterior.sensitivity(removal)
        frozen = self.posterior.divergence(removal)
        pull = self.solver.solve(first, sensitivity.gradient)
        state = State.of(self.model, first, frozen, sensitivity, pull)
        found = Corrected(
            Terms(frozen.mean.clone(), frozen.covariance.clone()),
            torch.full_like(frozen.mean, float("inf")),
            torch.zeros_like(first.delta),
            frozen.total,
        )
        # Every removal starts on the first level; what it lacks there says which level it needs.
        wanted = torch.zeros(len(first.index), dtype=torch.long, device=first.x.device)
        for place in range(len(self._drawn)):
            active = (wanted == place).nonzero()[:, 0]
            if not len(active):
                continue
            level, part = self._level(place), state.select(active)
            sums = self._sums(level, part)
            doubt = self._put(found, level, active, part, sums)
            # Where rows that were not drawn are all that is in doubt, the likeliest of them are looked at.
            last = self._drawn[-1].spacing / level.spacing if level.spacing > 0 else 0.0
            open_ = doubt.whole() > self.tol - self.floor
            look = open_ & (doubt.seen(last) <= self.tol - self.floor)
            if bool(look.any()) and level.spacing > 0:
                near, which = part.select(look), active[look]
                farther = self._look(level, near, looked := sums.select(look))
                doubt.put(look, self._put(found, level, which, near, looked, farther))
            wanted[active] = self._next(place, doubt)
        return found

    def _next(self, place: int, doubt: Doubt) -> Tensor:
        """Return the level that each removal needs next; none where it is certified or no level will do."""
        found = torch.full_like(doubt.spread, len(self._drawn), dtype=torch.long)
        room = self.tol - self.floor
        for other in reversed(range(place + 1, len(self._drawn))):
            ratio = self._drawn[other].spacing / self._drawn[place].spacing
            found[(doubt.whole() > room) & (doubt.whole(ratio) <= AHEAD * room)] = other
        return found

    def _put(
        self,
        found: Corrected,
        level: _Level,
        which: Tensor,
        part: State,
        sums: Sums,
        farther: Tensor | None = None,
    ) -> Doubt:
        """Put values and certificates into `found`; return what they may be off."""
        first = part.first
        if sums.shift is None:
            mean, covariance, alone = part.mean + sums.priced, part.covariance, part.covariance
            off = 0.25 * sums.turned.clamp_min(0)
        else:
            own = Removal(first.index, first.x, first.curvature, first.delta, sums.shift)
            shifted = self.posterior.divergence(own)
            alone = self._covariance_of(first, sums.shift)
            off = torch.stack([self._covariance_of(first, shift) for shift in sums.noise]).mean(0)
            # What the noise of the sample adds on average is taken out.
            mean, covariance = shifted.mean, (shifted.covariance - off).clamp_min(0)
            if not self.posterior.prices_covariance:
                alone = torch.maximum(alone, part.covariance)
        second = part.second_order(sums, mean - part.mean, alone)
        unseen = level.spacing * part.unseen(level.length, torch.maximum(covariance, part.covariance))
        unseen = unseen if farther is None else torch.minimum(unseen, farther)
        mean = (mean - sums.moved).clamp_min(0)
        total = (mean + covariance).clamp_min(TINY)
        spread = (sums.square - sums.mean.square() / level.n_drawn).clamp_min(0)
        doubt = Doubt(spread / total.square(), *(each / total for each in (alone, off, second, unseen)))
        found.terms.mean[which], found.terms.covariance[which] = mean, covariance
        found.certificate[which] = self.floor + doubt.whole()
        found.gradient[which] = self.model.contrasts.T.to(sums.gradient.dtype) @ sums.gradient
        return doubt

    def _covariance_of(self, first: FirstOrder, shift: Any) -> Tensor:
        """Return the covariance term of the others' changed curvature alone."""
        x, curvature, delta = (torch.zeros_like(each) for each in (first.x, first.curvature, first.delta))
        return self.posterior.divergence(Removal(first.index, x, curvature, delta, shift)).covariance

    def _sums(self, level: _Level, part: State) -> Sums:
        """Return the sums over the rows of a level."""
        b, d = len(part.mean), part.first.x.shape[1]
        step, force = self._class_first(part.first.delta), self._class_first(part.pull)
        price = self.posterior.price(part.sensitivity)
        zero = torch.zeros(b, dtype=torch.float64, device=part.mean.device)
        total = {name: zero.clone() for name in Sums.SCALARS}
        probes = torch.zeros((1 + GROUPS, level.probes.shape[2], b), dtype=step.dtype, device=step.device)
        gradient = torch.zeros((self.model.n_classes * b, d), dtype=step.dtype, device=step.device)
        n_shifts = 0 if self.posterior.shift_is_current else 1 + GROUPS
        shifts = [self.posterior.new_shift(b) for _ in range(n_shifts)]
        for group, rows in level.tiles:
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
            if shifts:
                self.posterior.add_shift(shifts[group], x, scale, p, effect.change)
            rest = effect.rest * scale[:, None, None]
            probes[group].addmm_(level.probes[rows].flatten(0, 1).T, rest.flatten(0, 1))
            gradient.addmm_(rest.flatten(1).T, x)
        gradient = gradient.view(-1, b, d).transpose(0, 1)
        # Groups differ as much as their sum is off: on average that is what noise adds to its square.
        apart = torch.stack([part.square().mean(0) for part in contrasts(probes)]).mean(0).to(torch.float64)
        energy = (probes.sum(0).square().mean(0).to(torch.float64) - apart).clamp_min(0) + 0.5 * apart
        shift, noise = (sum(shifts[1:], shifts[0]), contrasts(shifts)) if shifts else (None, [])
        return Sums(**total, gradient=gradient, shift=shift, noise=noise, probes=energy)

    def _look(self, level: _Level, part: State, sums: Sums) -> Tensor:
        """Count the rows nearest to each sample in full; return the most that others add, over π."""
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
        sums.probes = (
            sums.probes.sqrt() + (scale.abs() * effect.unexplained.view(b, m)).sum(1).sqrt()
        ).square()
        rest = effect.rest.view(b, m, -1) * scale[:, :, None]
        sums.gradient = sums.gradient + rest.mT @ x.view(b, m, -1)
        if sums.shift is not None:
            for k in range(b):
                rows = slice(k * m, (k + 1) * m)
                self.posterior.add_shift(
                    sums.shift[k : k + 1], x[rows], scale[k], p[rows], effect.change[rows]
                )
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
        # Rows that are always taken, then the others by groups.
        place = torch.arange(len(drawn.rows), device=bound.device)
        order = [place[: drawn.n_certain], *(place[drawn.n_certain + k :: GROUPS] for k in range(GROUPS))]
        self.rows, weight = drawn.rows[torch.cat(order)], drawn.weight[torch.cat(order)]
        self.tiles, start = [], 0
        for group, part in enumerate(order):
            for low in range(start, start + len(part), TILE):
                self.tiles.append((group, slice(low, min(low + TILE, start + len(part)))))
            start += len(part)
        self.n_drawn = max(1, len(drawn.rows) - drawn.n_certain)
        self.x = model.design.take(self.rows)
        self.p = model.probabilities(self.x)
        self.scale = (model.weight[self.rows] * weight).to(self.x.dtype)
        self.left = (1.0 - 1.0 / weight).to(self.x.dtype)  # 1 − π: what is always taken has no variance
        self.probes = probe_logits(model, self.x, reach.probes)
        chance = bound / drawn.spacing if drawn.spacing > 0 else torch.ones_like(bound)
        self.chance = chance.clamp(1e-30, 1.0).to(self.x.dtype)
        self.chance[drawn.rows[: drawn.n_certain]] = 1.0
        self.is_drawn = torch.zeros_like(bound, dtype=torch.bool)
        self.is_drawn[drawn.rows] = True
