"""Rows of several removals side by side: one tensor for those with about as many of them.

Rows that are read by chance are dealt out to groups, whose differences show the noise of what they add up to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.loo.newton.rows import Pairs

GROUPS = 8


@dataclass
class Table:
    """Rows of B removals side by side, `(B, n)`: those that are certain to be read, then the others.

    Attributes:
        rows: Positions; the sample itself where a removal has fewer rows.
        chance: Of each row; infinite where there is none.
        n_certain: Places for rows that are certain to be read.
    """

    rows: Tensor
    chance: Tensor
    n_certain: int

    @property
    def parts(self) -> tuple[slice, slice]:
        """Places of rows that are certain to be read, and of the others."""
        return slice(0, self.n_certain), slice(self.n_certain, self.rows.shape[1])


def tables(pairs: Pairs, index: Tensor, most: int) -> Iterator[tuple[Tensor, Table]]:
    """Yield which removals and a table of their rows, of up to `most` places or of one removal."""
    b, sure = len(index), pairs.chance >= 1.0
    order = (2 * pairs.removal + ~sure).argsort(stable=True)
    kind = (2 * pairs.removal + ~sure)[order]
    counts = torch.bincount(kind, minlength=2 * b)
    place = torch.arange(len(order), device=index.device) - (counts.cumsum(0) - counts)[kind]
    counts = counts.view(b, 2)
    by_size = counts.sum(1).argsort()
    start = 0
    while start < b:
        stop = _fits(counts[by_size[start:]], most) + start
        which = by_size[start:stop]
        n_certain, n_others = counts[which].amax(0).tolist()
        line = torch.full((b,), -1, device=index.device)
        line[which] = torch.arange(len(which), device=index.device)
        mine = line[kind // 2] >= 0
        at, by_chance, column = line[kind[mine] // 2], kind[mine] % 2, place[mine]
        deep = _depth(n_others)
        dealt = n_certain + column % GROUPS * deep + column // GROUPS
        column = torch.where(by_chance == 1, dealt, column)
        rows = index[which][:, None].repeat(1, n_certain + GROUPS * deep)
        chance = torch.full(rows.shape, float("inf"), device=index.device)
        rows[at, column], chance[at, column] = pairs.row[order[mine]], pairs.chance[order[mine]]
        yield which, Table(rows, chance, n_certain)
        start = stop


def _depth(n_others: Any) -> Any:
    """Return how many rows a group has room for: at least one."""
    return (n_others + GROUPS - 1 + (n_others == 0)) // GROUPS


def _fits(counts: Tensor, most: int) -> int:
    """Return how many of the next removals one table may hold. Shapes: counts `(B, 2)`, by their sum."""
    certain, others = counts.cummax(0).values.unbind(1)
    widths = (certain + GROUPS * _depth(others)) * torch.arange(1, len(counts) + 1, device=counts.device)
    return max(1, int((widths <= most).sum()))
