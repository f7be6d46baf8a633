r"""Which rows the correction of a removal reads: every row with a chance of the removal's own.

Every row has one random number :math:`u_j` for all removals, and row j is read for removal i where
:math:`u_j < \pi_{ij}` (Poisson sampling with permanent random numbers: Ohlsson 1995). The chance of rows in a
pool, which holds row j where :math:`u_j < \pi_j`, is

.. math:: \pi_{ij} = \min\left(\pi_j,\; \max\left( \frac{n\, q_{ij}}{\sum_k q_{ik}},\;
          \frac{n\, b_j}{\sum_k b_k} \right)\right), \qquad
          q_{ij} = \sqrt{l_j}\, g_{ij} (v_{ij} + f)\, (c_{ij} + f)^3, \quad b_j = l_j \sqrt{Q_j}

with :math:`l_j` the leverage, :math:`Q_j = l_j / \mathrm{tr}\, S_j`, and, for :math:`m_i = E_i^\top\delta_i`
and :math:`u_i = \delta_i^\top m_i / \|m_i\|^2`, so that :math:`\delta_i x_j \approx m_i\, u_i^\top x_j`,

.. math:: v_{ij} = \frac{\|m_i\|_{S_j}}{\|m_i\| \sqrt{\mathrm{tr}\, S_j}}, \qquad
          c_{ij} = |u_i^\top x_j| \sqrt{Q_i / Q_j}, \qquad
          g_{ij} = \exp(c_{ij} \sqrt{Q_j / Q_i}\, \mathrm{range}(V m_i)) .

g is what the softmax's exponentials may grow by, beyond the lowest order. Rows that are very like the sample
are found among all rows (`Neighbours`), and read with the chance
:math:`l_j g_{ij} e_{ij}^3 / (1 - h_i)`, over what such a row may add, where that is larger.
docs/explanation/method.md derives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.loo.newton.dense import FirstOrder
from lsi.loo.newton.neighbours import Neighbours, excess
from lsi.posterior.base import Posterior
from lsi.probes.softmax.math import variances
from lsi.probes.softmax.model import ROWS, SoftmaxModel

POOL = 8192  # rows that are looked at for every removal
POOL_SHARE = 0.5  # share of all rows from which they are all looked at
LEAST = 0.1  # f: what a row counts for that lies between other classes, or is unlike the sample
MOST = 30.0  # ln g at most: the change of a probability is below one, so that no more is needed
HELD = 1 << 25  # chances held at a time
WORKED = 1 << 17  # numbers worked on at a time: they stay in cache
TINY = 1e-30
SURPRISE = 8.0  # L, −ln of the chance that the rows which are read mislead: one in 3,000
LEFT = 0.05  # share of a direction that a sample leaves at least: of those with less, no series says much


def leverages(model: SoftmaxModel, posterior: Posterior, probes: Tensor) -> Tensor:
    """Return `l_j = tr S_j Q_j` and the row's share of the posterior's curvature, added up, `(N,)`.

    One pass over the data. Shapes: probes, draws of N(0, H̄⁻¹), `(R, C', D)`.
    """
    found = []
    for rows, x in model.design.blocks(ROWS):
        p = model.probabilities(x)
        image = centred(probe_logits(model, x, probes), p[:, :, None])
        own = (p * image.square().mean(2)).sum(1) * model.weight[rows].to(p.dtype)
        found.append((own + posterior.row_leverage(x, model.weight[rows], p)).to(torch.float64))
    return torch.cat(found)


def probe_logits(model: SoftmaxModel, x: Tensor, probes: Tensor) -> Tensor:
    """Return what each probe adds to the logits of rows, `(n, C, R)`. Shapes: x `(n, D)`."""
    r, k, d = probes.shape
    inner = (x @ probes.reshape(r * k, d).T).view(len(x), r, k)
    return (inner @ model.contrasts.T.to(x.dtype)).mT


def centred(logits: Tensor, p: Tensor) -> Tensor:
    """Return logits less their mean under p, over the classes, which are dimension 1 of both."""
    return logits - (p * logits).sum(1, keepdim=True)


@dataclass
class Pairs:
    """Rows that are read for removals, `(P,)` each.

    Attributes:
        removal: Which removal.
        row: Position of the row.
        chance: That it is read.
    """

    removal: Tensor
    row: Tensor
    chance: Tensor

    @classmethod
    def joined(cls, parts: list[Pairs]) -> Pairs:
        """Return all of several."""
        names = ("removal", "row", "chance")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def of(self, keep: Tensor) -> Pairs:
        """Return those picked by a mask or an index."""
        return Pairs(self.removal[keep], self.row[keep], self.chance[keep])

    def select(self, which: Tensor) -> Pairs:
        """Return those of the removals at the places `which`, counted anew."""
        place = torch.full((1 + int(torch.cat([which, self.removal]).max()),), -1, device=which.device)
        place[which] = torch.arange(len(which), device=which.device)
        found = self.of(place[self.removal] >= 0)
        return Pairs(place[found.removal], found.row, found.chance)


class RowSampler:
    """Draws the rows that each removal reads.

    Args:
        model: The full-data model.
        leverage: `l_j`, `(N,)`.
        allowed: What a row that is like a sample may add, relative to the score, over its chance: A.
        seed: Seed of the random numbers.

    Attributes:
        pooled: Chance of each row to be in the pool, `(N,)`.
    """

    def __init__(self, model: SoftmaxModel, leverage: Tensor, allowed: float, seed: int) -> None:
        self.model, self._neighbours = model, Neighbours(model)
        self._p = torch.cat([model.probabilities(x) for _, x in model.design.blocks(ROWS)])
        self._spread = variances(self._p).sum(1).clamp_min(TINY)  # tr S_j
        self._leverage = leverage.to(self._p.dtype)
        self._width = (self._leverage / self._spread).sqrt().to(torch.float32)  # √Q_j
        self._bound = self._leverage * self._width
        self._held = self._leverage.to(torch.float32)
        self._allowed = allowed
        self._is_whole = POOL > POOL_SHARE * model.n_samples
        self.pooled = torch.ones_like(self._width)
        if not self._is_whole:
            likely = [chances(weight, POOL // 2) for weight in (self._leverage.sqrt(), self._bound)]
            self.pooled = torch.maximum(*likely).to(torch.float32)
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Draw every row's random number, and with it the pool."""
        n, device = len(self.pooled), self.pooled.device
        self._number = torch.rand(n, generator=torch.Generator().manual_seed(seed)).to(device)
        self._pool = (self._number < self.pooled).nonzero()[:, 0]
        self._x = None if self._is_whole else self.model.design.take(self._pool)
        self._place = torch.full((n,), -1, device=device)
        self._place[self._pool] = torch.arange(len(self._pool), device=device)

    def probabilities(self, rows: Tensor) -> Tensor:
        """Return those of rows, `(…, C)`."""
        return self._p.index_select(0, rows.view(-1)).view(*rows.shape, -1)

    def near(self, first: FirstOrder) -> tuple[Pairs, Tensor]:
        """Return rows that are read since they are very like the removed samples, and what others may add.

        The latter, `(B,)`, is of such rows that happen not to be read, relative to the score.
        """
        reach = self._reach(first, self._moves(first))[:, None]
        b = torch.arange(len(first.index), device=reach.device)
        kept = (1.0 - first.leverage).clamp_min(LEFT).to(torch.float32)[:, None]
        unread = torch.zeros(len(b), dtype=torch.float64, device=reach.device)
        found = []
        for rows, alike in self._neighbours.cosines(first.index):
            growth = (self._width[rows] * alike).mul_(reach).clamp_max_(MOST).exp_()
            alike = excess(alike)
            most = growth.mul_(self._held[rows]).mul_(alike).mul_(alike.square_()).div_(kept)
            own = first.index - rows.start
            inside = (own >= 0) & (own < most.shape[1])
            most[b[inside], own[inside]] = 0.0
            read = most > self._number[rows] * self._allowed
            removal, row = read.nonzero(as_tuple=True)
            chance = (most[removal, row] / self._allowed).clamp_max(1.0)
            found.append(Pairs(removal, row + rows.start, chance))
            unread += most.masked_fill_(read, 0.0).sum(1)
        # That none is read of rows whose chances add up to more than L happens once in exp(L) times.
        return Pairs.joined(found), unread.clamp_max(SURPRISE * self._allowed)

    def _moves(self, first: FirstOrder) -> Tensor:
        """Return how far the removed samples' own logits move, m, `(B, C')`."""
        return (first.delta @ first.x[:, :, None])[:, :, 0]

    def _reach(self, first: FirstOrder, m: Tensor) -> Tensor:
        """Return how far a row's log-odds move at most, for each unit of its √Q, `(B,)` float32."""
        logits = m @ self.model.contrasts.T.to(m.dtype)
        span = (logits.amax(1) - logits.amin(1)).to(torch.float32)
        return span / self._width[first.index].clamp_min(TINY)

    def draw(self, first: FirstOrder, near: Pairs, count: int, pool: bool) -> Pairs:
        """Return what each removal reads of the pool, or of all rows, and what it reads of `near`.

        About `count` rows each. Only the pool is looked at where `pool` says so.
        """
        device = self._number.device
        rows = self._pool if pool else torch.arange(len(self._number), device=device)
        limit = self.pooled[rows] if pool else torch.ones_like(self._number)
        least = torch.minimum(chances(self._bound, count).to(limit)[rows], limit)[:, None]
        found = []
        for part in torch.arange(len(first.index), device=device).split(max(1, HELD // len(rows))):
            some, close = first.select(part), near.select(part)
            chance = self._weights(some, rows, pool)
            scale = count / ((1.0 / limit) @ chance).clamp_min(TINY)
            for block in torch.arange(len(rows)).split(max(64, WORKED // len(part))):
                each = slice(int(block[0]), int(block[-1]) + 1)
                own = torch.minimum(chance[each].mul_(scale), limit[each, None])
                torch.maximum(own, least[each], out=chance[each])
            place = self._place[close.row] if pool else close.row
            inside = place >= 0
            at = place[inside], close.removal[inside]
            chance[at] = torch.maximum(chance[at], close.chance[inside])
            place, removal = (self._number[rows, None] < chance).nonzero(as_tuple=True)
            others = rows[place] != some.index[removal]
            place, removal = place[others], removal[others]
            drawn = Pairs(removal, rows[place], chance[place, removal])
            for pairs in (drawn, close.of(~inside)):
                found.append(Pairs(pairs.removal + int(part[0]), pairs.row, pairs.chance))
        return Pairs.joined(found)

    def _weights(self, first: FirstOrder, rows: Tensor, pool: bool) -> Tensor:
        """Return `q` of rows of the pool or of all rows, `(n, B)`."""
        m = self._moves(first)
        size = m.norm(dim=1, keepdim=True).clamp_min(TINY)
        unit = (m / size) @ self.model.contrasts.T.to(m.dtype)
        u = (m[:, None, :] @ first.delta)[:, 0] / size.square()
        reach = self._reach(first, m).to(u.dtype)
        u = u * self._width[first.index, None].to(u.dtype)
        found = torch.empty((len(rows), len(m)), dtype=torch.float32, device=m.device)
        for part, x in self._blocks(pool, max(64, WORKED // len(m))):
            which = rows[part]
            p, spread, leverage = (
                self._p[which],
                self._spread[which, None],
                self._leverage[which, None].clamp_min(TINY),
            )
            between = (p @ unit.T.square()).sub_((p @ unit.T).square_()).clamp_min_(0).div_(spread).sqrt_()
            alike = (x @ u.T).abs_()
            growth = (alike * reach).clamp_max_(MOST).exp_()
            alike = alike.mul_((spread / leverage).sqrt_()).clamp_max_(1.0).add_(LEAST)
            between = between.add_(LEAST).mul_(leverage.sqrt_()).mul_(growth)
            found[part] = between.mul_(alike).mul_(alike.square_())
        return found

    def _blocks(self, pool: bool, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of the pool or of all data, `size` at a time, and which they are of these."""
        if not pool or self._x is None:
            yield from self.model.design.blocks(size)
            return
        for start in range(0, len(self._x), size):
            yield slice(start, start + size), self._x[start : start + size]


def chances(weights: Tensor, count: int) -> Tensor:
    """Return the chance of each row where `count` are drawn in proportion to their weights, `(N,)`."""
    certain = torch.zeros_like(weights, dtype=torch.bool)
    while True:
        # Rows that would be drawn more than once leave their places to the others.
        rest = weights.masked_fill(certain, 0.0).sum(dtype=torch.float64)
        found = torch.where(certain, 1.0, weights * float((count - certain.sum()) / rest.clamp_min(TINY)))
        if bool(((found < 1.0) | certain).all()):
            return found
        certain |= found >= 1.0
