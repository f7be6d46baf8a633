"""The sparse form of a trained probe's probabilities: the few classes that matter in each row.

Where there are many classes, a trained probe gives nearly all probability of a row to a few of them. Sums
over rows and classes then need these entries only, grouped by class so that matrix products do the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.probes.softmax.math import residuals
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.device import add_rows

NEGLIGIBLE = 1e-5  # a class with a smaller probability does not matter in a row
GATHERED = 1 << 28  # bytes of gathered rows that one block takes, at least
MOST = 32  # entries of one row at most: the likeliest classes
# Of more than FEW classes, an entry also needs this share of the probability that the likeliest class leaves.
FEW, SHARE = 160, 0.01
PER_CLASS = 192  # entries of one class in a block, at least: smaller products are slow


@dataclass(frozen=True)
class Entries:
    """The entries (row, class) of one block of rows, sorted by class.

    Attributes:
        rows: The rows of the design.
        row: Row within the block of each entry, `(e,)`.
        p: Its probability, `(e,)` float32.
        residual: Its residual `p − e_y`, `(e,)` float32.
        segments: `(class, slice)` for each class that has entries.
        likeliest: Entry of each row's likeliest class, `(n,)`.
        rest: Probability of the classes without an entry, `(n,)` float32.
    """

    rows: slice
    row: Tensor
    p: Tensor
    residual: Tensor
    segments: list[tuple[int, slice]]
    likeliest: Tensor
    rest: Tensor

    @property
    def n_rows(self) -> int:
        """Number of rows of the block."""
        return int(self.rows.stop - self.rows.start)

    @property
    def classes(self) -> Tensor:
        """Class of each entry, `(e,)`."""
        codes = torch.tensor([c for c, _ in self.segments], device=self.row.device)
        counts = torch.tensor([which.stop - which.start for _, which in self.segments])
        return codes.repeat_interleave(counts.to(codes.device))

    @property
    def variance(self) -> Tensor:
        """`p (1 − p)`, `(e,)`, exact also where p rounds to one: there `1 − p` is the label's residual."""
        return self.p * torch.where(self.residual < 0, -self.residual, 1.0 - self.p)


@dataclass(frozen=True)
class EntryChange:
    """How B left-out models change the probabilities of one block's entries.

    Attributes:
        block: The entries.
        x: Row of each, `(e, D)`.
        weight: Its sample weight, `(e,)`.
        change: Δp, zero for the left-out sample itself, `(e, B)`.
    """

    block: Entries
    x: Tensor
    weight: Tensor
    change: Tensor


@dataclass(frozen=True)
class ClassEntries:
    """All entries of a trained probe, and the sum of what they leave out.

    Attributes:
        blocks: Entries of each block of rows, in the order of the rows.
        rest: `Σ_j w_j p_jc` over all pairs (j, c) without an entry, `(C,)` float64. Their p is so small that
            it is nearly `p (1 − p)`.
    """

    blocks: list[Entries]
    rest: Tensor

    @property
    def count(self) -> int:
        """Number of entries."""
        return sum(len(block.row) for block in self.blocks)

    @classmethod
    def of(cls, model: SoftmaxModel, whole: Tensor | None = None) -> ClassEntries:
        """Collect the entries of `model`: every probability that matters, every label, all of some rows.

        Shapes: whole, the mask of those rows, `(N,)`.
        """
        rest = torch.zeros(model.n_classes, dtype=torch.float64, device=model.design.device)
        blocks = []
        for rows, p in _probability_blocks(model):
            blocks.append(entries_of(rows, p, model.target[rows], None if whole is None else whole[rows]))
            weight = model.weight[rows]
            rest += (p * weight[:, None].to(p.dtype)).sum(0, dtype=torch.float64)
            kept = blocks[-1].p.to(torch.float64) * weight[blocks[-1].row]
            add_rows(rest, blocks[-1].classes, -kept)
        return cls(blocks, rest.clamp_min(0))


def _probability_blocks(model: SoftmaxModel) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their probabilities, in blocks whose entries are likely to fill `GATHERED`."""
    item = model.design.dtype.itemsize
    size = max(GATHERED // (model.design.n_features * item), PER_CLASS * model.n_classes) // 4
    for start in range(0, model.n_samples, size):
        rows = slice(start, min(start + size, model.n_samples))
        parts = [
            model.probabilities(model.design.rows(low, min(low + 4096, rows.stop)))
            for low in range(start, rows.stop, 4096)
        ]
        yield rows, torch.cat(parts)


def entries_of(rows: slice, p: Tensor, target: Tensor, whole: Tensor | None = None) -> Entries:
    """Return the entries of a block of rows: every probability that matters, and every label.

    Shapes: p `(n, C)`, target `(n,)`, and whole, the mask of rows of which all matter, `(n,)`.
    """
    least = p.topk(MOST, sorted=False).values.amin(1, keepdim=True) if p.shape[1] > MOST else p.new_zeros(1)
    if p.shape[1] > FEW:
        least = torch.maximum(least, SHARE * (1.0 - p.amax(1, keepdim=True)))
    keep = (p >= NEGLIGIBLE) & (p >= least)
    keep.scatter_(1, target[:, None], True)
    if whole is not None:
        keep |= whole[:, None]
    which, row = keep.T.nonzero(as_tuple=True)  # classes first, so that the entries come sorted by class
    counts = torch.bincount(which, minlength=keep.shape[1]).tolist()
    segments, low = [], 0
    for c, count in enumerate(counts):
        if count:
            segments.append((c, slice(low, low + count)))
        low += count
    likeliest = torch.empty(len(p), dtype=torch.int64, device=p.device)
    of_row = (which == p.argmax(1)[row]).nonzero()[:, 0]
    likeliest[row[of_row]] = of_row
    residual, rest = residuals(p, target)[row, which], p.masked_fill(keep, 0.0).sum(1)
    return Entries(rows, row, p[row, which], residual, segments, likeliest, rest)
