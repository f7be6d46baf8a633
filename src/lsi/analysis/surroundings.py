r"""What the rows around a sample tell about its label: how they are labelled, and how far out the sample is.

.. math:: \hat p_i(c) = \frac{1/C + \sum_{j \in N(i)} [y_j = c]}{1 + |N(i)|},\qquad
          r_i = \log \frac{d_i}{\operatorname{median}_j d_j}

with N(i) the nearest other rows and d the distance of the farthest of them. This is what tells a model that
does not fit from wrong labels. A linear head errs all over a cluster that it cannot fit, where the neighbours
agree with the label. It is as sure as ever far out, where features with heavy tails tell least. Labels that
are wrong independently of the features are contradicted by their neighbours, and far out no more often than
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEIGHBOURS = 15
REFERENCES, FEWEST_REFERENCES = 5000, 500  # rows among which neighbours are looked for
PAIRS = 2.5e8  # distances to compute in all: fewer references for more than 50,000 rows
NEAREST, FARTHEST = 0.3, 20.0  # bounds of d over its median: copies, and rows out of all proportion
BLOCK = 1024  # rows at a time


@dataclass(frozen=True, eq=False)
class Seen:
    """What is seen around rows.

    Attributes:
        p: `(n, C)`, smoothed shares of their neighbours' labels.
        far: `(n,)`, r, within bounds.
    """

    p: np.ndarray
    far: np.ndarray


class Surroundings:
    """An even selection of N rows, among which neighbours are found.

    Args:
        references: Their features, `(R, D)`, from `positions`.
        n: N.
    """

    def __init__(self, references: Tensor, n: int) -> None:
        self.known = positions(n)
        self.references, self.lengths = references, references.square().sum(1)
        self.near = min(NEIGHBOURS, len(self.known) - 1)
        self.middle = float(np.median(self.find(references, self.known)[1]))

    def find(self, x: Tensor, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbours of rows at these positions, and the farthest one's squared distance.

        Shapes: x `(n, D)`, position `(n,)`, the positions of neighbours `(n, K)`, distances `(n,)`.
        """
        nearest, square = np.empty((len(x), self.near), dtype=np.int64), np.zeros(len(x))
        own = np.searchsorted(self.known, position)
        for start in range(0, len(x) if self.near > 0 else 0, BLOCK):
            part = slice(start, start + BLOCK)
            rows, at = x[part], own[part]
            apart = torch.addmm(self.lengths[None], rows, self.references.T, alpha=-2.0)
            met = np.flatnonzero(
                (at < len(self.known)) & (self.known[at % len(self.known)] == position[part])
            )
            apart[met, at[met]] = torch.inf
            found = apart.topk(self.near, largest=False)
            nearest[part] = self.known[found.indices.cpu().numpy()]
            square[part] = (found.values[:, -1] + rows.square().sum(1)).clamp_min(0.0).cpu().numpy()
        return nearest, square

    def seen(self, nearest: np.ndarray, square: np.ndarray, y: np.ndarray, n_classes: int) -> Seen:
        """Return what was found around rows, by `find`, says about their class. Shapes: y `(N,)`."""
        p = np.full((len(nearest), n_classes), 1.0 / n_classes)
        for labels in y[nearest].T:
            p[np.arange(len(p)), labels] += 1.0
        p /= 1.0 + self.near
        if self.middle <= 0:
            return Seen(p, np.zeros(len(p)))
        return Seen(p, 0.5 * np.log(np.clip(square / self.middle, NEAREST**2, FARTHEST**2)))


def positions(n: int) -> np.ndarray:
    """Return the positions of the references among N rows."""
    most = min(REFERENCES, max(FEWEST_REFERENCES, int(PAIRS / max(n, 1))))
    return np.arange(0, n, -(-n // most))


def look_around(x: Tensor, y: np.ndarray, n_classes: int) -> Seen:
    """Return what is seen around each of all rows. Shapes: x `(N, D)`, y `(N,)`."""
    around = Surroundings(x[torch.from_numpy(positions(len(y))).to(x.device)], len(y))
    return around.seen(*around.find(x, np.arange(len(y))), y, n_classes)
