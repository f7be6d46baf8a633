r"""Corrections of first-order removals from a sample of rows, with certificates.

The gradient that a first-order step leaves is exactly a sum over the other rows, at all orders,

.. math:: r_i = \sum_{j \ne i} w_j\, \rho_j \otimes x_j, \qquad
          \rho_j = p_j(\theta + \delta_i) - p_j(\theta) - S_j z_j, \qquad z_j = x_j \delta_i .

Rows that are drawn for the removal (`RowSampler`) estimate it, and with it three things: what the step
:math:`\eta = -H_{-i}^{-1} r_i` to the optimum adds to the divergence, :math:`-\sum_j w_j\, y_j \cdot \rho_j`
with :math:`y_j = x_j H_{-i}^{-1} P_2 \delta_i`; the posterior's own response to the rows' changed curvature;
and how long that step is, :math:`\|\eta\|_{H_{-i}}`, which bounds what a second one would add.
docs/explanation/method.md derives the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.certificate import NOISE, TINY, Doubt, State
from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.effects import Effects, Sums
from lsi.loo.newton.rows import SURPRISE, Pairs, RowSampler, centred, leverages, probe_logits
from lsi.loo.newton.secants import dot
from lsi.loo.newton.tables import GROUPS, Table, tables
from lsi.posterior.base import Posterior, Removal, Sensitivity
from lsi.probes.softmax.model import SoftmaxModel

# Rows that may be read for a removal, and whether they are from the pool.
LEVELS = (
    *((128, True), (256, True), (512, True), (1024, True)),
    *((512, False), (1024, False), (2048, False), (4096, False), (8192, False)),
)
UNREAD = 0.1  # share of the tolerance that rows like a sample may add which happen not to be read
AHEAD = 0.9  # share of the tolerance that a level must promise to be tried
DRAWS = 4  # of a full posterior, whose covariance term is bounded with them
ELEMENTS = 1 << 21  # numbers of the rows that are read at a time: they stay in cache


def contrasts() -> Tensor:
    """Return signs of GROUPS groups, `(GROUPS − 1, GROUPS)`, with which they cancel but for their noise."""
    signs, two = torch.ones((1, 1), dtype=torch.float64), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    while len(signs) < GROUPS:
        signs = torch.kron(signs, two.to(signs))
    return signs[1:]


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
    """Corrects first-order removals, each from rows of its own.

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
        self.tol, self.floor, self.seed = tol, floor, seed
        self.draws = posterior.draws(DRAWS if posterior.shift_is_current else 0)
        self._leverage = leverages(model, posterior, solver.probes)
        self._lacking, self._penalty = solver.probes.flatten(1)[:0], 0.0
        if (built := solver.inverse.built) is not None:
            self._lacking = built.lacking(model, solver.probes).flatten(1)
            self._penalty = model.loo_ridge - built.ridge

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what workers make for themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "sampler"}

    @cached_property
    def sampler(self) -> RowSampler:
        """What draws the rows."""
        return RowSampler(self.model, self._leverage, UNREAD * self.tol / SURPRISE, self.seed)

    def correct(self, first: FirstOrder) -> Corrected:
        """Return the corrected removals, each from as few rows as certify it.

        The weights themselves are not corrected: `−H₋ᵢ⁻¹ gradient` would be what they lack.
        """
        residual = first.residual if self.solver.is_current else None
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=residual)
        sensitivity = self.posterior.sensitivity(removal)
        frozen = self.posterior.divergence(removal)
        pull = self.solver.solve(first, sensitivity.gradient)
        state = State.of(self.model, first, frozen, sensitivity, pull, self._lacking)
        found = Corrected(
            Terms(frozen.mean.clone(), frozen.covariance.clone()),
            torch.full_like(frozen.mean, float("inf")),
            torch.zeros_like(first.delta),
            frozen.total,
        )
        near, unread = self.sampler.near(first)
        # Every removal starts on the first level; what it lacks there says which level it needs.
        wanted = torch.zeros(len(first.index), dtype=torch.long, device=first.x.device)
        for place, (count, pool) in enumerate(LEVELS):
            active = (wanted == place).nonzero()[:, 0]
            if not len(active):
                continue
            part = state.select(active)
            pairs = self.sampler.draw(part.first, near.select(active), count, pool)
            doubt = self._put(found, active, part, self._sums(part, pairs), count, unread[active])
            wanted[active] = self._next(place, doubt)
        return found

    def _next(self, place: int, doubt: Doubt) -> Tensor:
        """Return the level that each removal needs next; none where it is certified or no level will do."""
        found = torch.full_like(doubt.spread, len(LEVELS), dtype=torch.long)
        room = self.tol - self.floor
        for other in reversed(range(place + 1, len(LEVELS))):
            (before, _), (count, pool) = LEVELS[place], LEVELS[other]
            found[(doubt.whole() > room) & (doubt.whole(before / count, pool) <= AHEAD * room)] = other
        return found

    def _put(
        self, found: Corrected, which: Tensor, part: State, sums: Sums, count: int, unread: Tensor
    ) -> Doubt:
        """Put values and certificates into `found`; return what they may be off."""
        first, zero = part.first, torch.zeros_like(part.mean)
        if sums.shift is None:
            mean, covariance = part.mean + sums.priced, part.covariance
            # Its norm is at most that of the other rows' changes.
            off, alone = NOISE * 0.25 * sums.turned.clamp_min(0), part.covariance
            lasting, swing, hidden = 2.0 * (alone * off).sqrt() + off, zero, zero
        else:
            own = Removal(first.index, first.x, first.curvature, first.delta, sums.shift)
            shifted = self.posterior.divergence(own)
            off, alone, swing = self._noise(sums.products)
            # What the noise of the sample adds on average is taken out.
            mean, covariance, lasting = shifted.mean, (shifted.covariance - off).clamp_min(0), zero
            hidden = 2.0 * alone / count  # a row in n stands for 1/n of the shift
            if not self.posterior.prices_covariance:
                alone = torch.maximum(alone, part.covariance)
        second = part.second_order(sums, mean - part.mean, alone)
        mean = (mean - sums.moved - self._penalty * dot(first.delta, part.pull)).clamp_min(0)
        total = (mean + covariance).clamp_min(TINY)
        doubt = Doubt(
            sums.square / total.square(),
            sums.square_pool / total.square(),
            swing / total.square(),
            (sums.largest + hidden) / total,
            sums.largest_pool / total,
            (second + lasting) / total + unread,
        )
        found.terms.mean[which], found.terms.covariance[which] = mean, covariance
        found.certificate[which] = self.floor + doubt.whole()
        gradient = self.model.contrasts.T.to(sums.gradient.dtype) @ sums.gradient
        found.gradient[which] = gradient + self._penalty * first.delta
        return doubt

    def _noise(self, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what noise adds to the changed curvature's covariance term, that term, and its variance."""
        signs = torch.nn.functional.pad(contrasts(), (1, 0)).to(products.device)
        against = signs @ products  # (B, GROUPS − 1, 1 + GROUPS)
        within = against @ signs.T
        off = within.diagonal(dim1=1, dim2=2).mean(1)
        # As large as the noise, they add twice their product with the whole shift; noise alone adds half of
        # the square of twice the products of two of them.
        noise = 4.0 * (within.square().sum((1, 2)) - within.diagonal(dim1=1, dim2=2).square().sum(1))
        noise = noise / ((GROUPS - 1) * (GROUPS - 2))
        swing = (4.0 * against.sum(2).square().mean(1) - noise).clamp_min(0) + 0.5 * noise
        return off, (products.sum((1, 2)) - off).clamp_min(0), swing

    def _sums(self, part: State, pairs: Pairs) -> Sums:
        """Return the sums over the rows that are read."""
        found, order = [], []
        for which, table in tables(pairs, part.first.index, ELEMENTS // part.first.x.shape[1]):
            found.append(self._sums_of(part, which, table))
            order.append(which)
        return Sums.joined(found, torch.cat(order).argsort())

    def _sums_of(self, part: State, which: Tensor, table: Table) -> Sums:
        """Return the sums of some removals over their rows."""
        model, posterior, (b, n) = self.model, self.posterior, table.rows.shape
        x = model.design.take(table.rows.view(-1))
        p = self.sampler.probabilities(table.rows).mT.contiguous()
        draws = [each.view(b, n, -1).mT for each in probe_logits(model, x, self.draws).unbind(2)]
        x = x.view(b, n, -1)
        weights = torch.cat([part.first.delta[which], part.pull[which]], 1)
        z, y = self._all_classes(weights @ x.mT)
        images = [posterior.row_image(x[:, rows]) for rows in table.parts]
        price = self._price(part.sensitivity.select(which), table, images, p, centred(z, p))
        weight = model.weight[table.rows]
        effect = Effects.of(p, z, y, price, draws, self._former(table.rows, weight))
        weight = weight.to(x.dtype)
        scale = (weight / table.chance).to(x.dtype)  # zero where the table is filled up
        each = effect.each * scale
        left = (1.0 - table.chance).clamp_min(0).to(x.dtype)
        total = {name: (getattr(effect, name) * scale).sum(1, dtype=torch.float64) for name in Sums.SUMMED}
        total["square"] = (left * each.square()).sum(1, dtype=torch.float64)
        total["largest"] = (each.abs() * (left > 0)).amax(1).to(torch.float64)
        # What would be left of both if all of the pool were read.
        share = (table.chance / self.sampler.pooled[table.rows]).clamp_max(1.0).to(x.dtype)
        left = (1.0 - table.chance / share).clamp_min(0).to(x.dtype)
        total["square_pool"] = (left * share * each.square()).sum(1, dtype=torch.float64)
        total["largest_pool"] = (each.abs() * share * (left > 0)).amax(1).to(torch.float64)
        shift = products = None
        if not posterior.shift_is_current:
            shifts = self._shifts(table, images, scale, p, effect.change)
            shift, products = shifts.sum(1), posterior.shift_products(shifts)
        gradient = (effect.rest * scale[:, None, :]) @ x
        return Sums(**total, gradient=gradient, shift=shift, products=products)

    def _price(
        self, sensitivity: Sensitivity, table: Table, images: list[Tensor], p: Tensor, z: Tensor
    ) -> Tensor:
        """Return what a changed probability of each class adds to the divergence, `(B, C, n)`."""
        each = [
            self.posterior.row_price(sensitivity, image, p[:, :, rows], z[:, :, rows])
            for rows, image in zip(table.parts, images, strict=True)
        ]
        return torch.cat(each, 2)

    def _shifts(self, table: Table, images: list[Tensor], scale: Tensor, p: Tensor, change: Tensor) -> Tensor:
        """Return the changes of the curvature by certain rows and by groups, `(B, 1 + GROUPS, …)`."""
        certain, others = table.parts
        first = self.posterior.own_shift(
            images[0], scale[:, certain], p[:, :, certain], change[:, :, certain]
        )
        grouped = self.posterior.own_shift(
            images[1].unflatten(1, (GROUPS, -1)).flatten(0, 1),
            scale[:, others].unflatten(1, (GROUPS, -1)).flatten(0, 1),
            *(
                each[:, :, others].unflatten(2, (GROUPS, -1)).transpose(1, 2).flatten(0, 1)
                for each in (p, change)
            ),
        )
        return torch.cat([first[:, None], grouped.unflatten(0, (-1, GROUPS))], 1)

    def _former(self, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what the inverse holds of rows, as `Effects.of` takes it. Shapes: `(B, n)` each."""
        built = self.solver.inverse.built
        if built is None:
            return None
        q, ratio = built.probabilities[rows].mT.contiguous(), built.weight[rows] / weight
        return q, ratio[:, None].to(q.dtype)

    def _all_classes(self, contrasts: Tensor) -> tuple[Tensor, Tensor]:
        """Return two changes of logits, `(B, 2·C', n)`, in all classes, `(B, C, n)` each."""
        k = contrasts.shape[1] // 2
        basis = self.model.contrasts.to(contrasts.dtype)
        return basis @ contrasts[:, :k], basis @ contrasts[:, k:]
