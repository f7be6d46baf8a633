"""Which epochs are looked at: all of the first ones, then fewer and fewer."""

from __future__ import annotations

from dataclasses import dataclass

WORTH = 3  # epochs a stride must have on average for strides to pay


@dataclass(frozen=True)
class Grid:
    """A rule for the length of strides.

    Attributes:
        growth: Length as a share of the epochs done.
        longest: Epochs at most.
    """

    growth: float
    longest: int

    def nodes(self, epochs: int, record_every: int | None = None) -> list[int]:
        """Return the numbers of epochs after which heads are looked at, from 0 to `epochs`.

        >>> Grid(0.5, 10).nodes(30)
        [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 30]
        """
        nodes = [0]
        while (done := nodes[-1]) < epochs:
            stride = min(max(1, int(done * self.growth)), self.longest)
            if record_every is not None:
                stride = min(stride, record_every - done % record_every)
            nodes.append(min(done + stride, epochs))
        return nodes


GRIDS = (Grid(0.1, 48), Grid(0.05, 16))
"""From the fastest to the finest; pilots say which one a run may take."""


def worthwhile(epochs: int, record_every: int | None) -> list[list[int]]:
    """Return the nodes of every grid that saves enough epochs, the fastest first."""
    every = [grid.nodes(epochs, record_every) for grid in GRIDS]
    return [nodes for nodes in every if WORTH * (len(nodes) - 1) <= epochs]
