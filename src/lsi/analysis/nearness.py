r"""How near new rows are to known ones: copies, and rows far from everything.

Where rows lie as densely in one place as a little farther off, in a space of dimension d, the distances
:math:`r_1` and :math:`r_k` to the first and the k-th nearest fulfil

.. math:: P(r_1 / r_k \le \rho) = 1 - (1 - \rho^{\,d})^{k-1}.

The known rows' own distances say what d is. A row so much nearer to one known row than to the next ones that
this chance is tiny is its copy. Distances are taken in standardised columns.

Source: the ratio of nearest distances is that of Facco et al., *Estimating the intrinsic dimension of
datasets by a minimal neighborhood information*, 2017, and Levina and Bickel, *Maximum likelihood estimation
of intrinsic dimension*, 2005; d is fitted to the median here, so that copies among the known rows do not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10  # k: so many copies of one row less one may be known without hiding each other
SAMPLED = 2000  # known rows whose own distances are taken: a share of 1 % is then good to a quarter
BLOCK = 1024  # new rows compared at a time
SLAB = 16384  # known rows compared at a time


@dataclass(frozen=True, eq=False)
class Nearness:
    """How near M new rows are to N known ones.

    Attributes:
        nearest: Position of the nearest known row, `(M,)`.
        distance: To that row, in standard deviations of the columns, `(M,)`.
        copy_p: Chance that an unrelated row lies as near to one known row, compared with the next, `(M,)`.
        far_p: Share of known rows that are as far from all others: exact p-values where the new rows come
            from where the known ones do, `(M,)`.
    """

    nearest: np.ndarray
    distance: np.ndarray
    copy_p: np.ndarray
    far_p: np.ndarray


def nearness(known: np.ndarray, new: np.ndarray, seed: int = 0) -> Nearness:
    """Return how near new rows are to known ones. Shapes: known `(N, D)`, new `(M, D)`."""
    n = len(known)
    mean, scale = _standard(known)
    k = min(NEIGHBOURS, n - 1)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLED])
    own, _ = _distances(known, known[chosen], mean, scale, k + 1, chosen)
    apart, index = _distances(known, new, mean, scale, k, None)
    dimension = _dimension(own[:, 0], own[:, k - 1], k)
    ratio = np.divide(apart[:, 0], apart[:, -1], out=np.zeros(len(new)), where=apart[:, -1] > 0)
    copy_p = np.ones(len(new))
    if dimension > 0:
        copy_p = -np.expm1((k - 1) * np.log1p(-np.minimum(ratio**dimension, 1.0 - 1e-15)))
    beyond = len(chosen) - np.searchsorted(np.sort(own[:, 0]), apart[:, 0], side="left")
    return Nearness(index[:, 0], apart[:, 0], copy_p, (1.0 + beyond) / (1.0 + len(chosen)))


def _dimension(first: np.ndarray, last: np.ndarray, k: int) -> float:
    """Return the dimension at which the median ratio of distances is what it is.

    Zero where rows have copies more often than not, or hardly any neighbours: then nothing is a copy.
    """
    if k < 2:
        return 0.0
    ratio = float(np.median(np.divide(first, last, out=np.zeros(len(first)), where=last > 0)))
    share = 1.0 - 0.5 ** (1.0 / (k - 1))  # the median of ρ^d
    return float(np.log(share) / np.log(ratio)) if 0.0 < ratio < 1.0 else 0.0


def _standard(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and inverse standard deviation of the columns; constant ones count for nothing."""
    total = square = np.zeros(rows.shape[1])
    for low in range(0, len(rows), SLAB):
        x = np.asarray(rows[low : low + SLAB], dtype=np.float64)
        total, square = total + x.sum(0), square + (x**2).sum(0)
    mean = total / len(rows)
    spread = np.sqrt((square / len(rows) - mean**2).clip(0.0))
    return mean, np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-7 * np.abs(mean))


def _distances(
    known: np.ndarray,
    new: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    k: int,
    own: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k least distances of each new row and whose they are, `(M, k)`; without its own position."""
    distance = np.full((len(new), k), np.inf)
    index = np.zeros((len(new), k), dtype=np.int64)
    for start in range(0, len(known), SLAB):
        x = (np.asarray(known[start : start + SLAB], dtype=np.float64) - mean) * scale
        length = (x**2).sum(1)
        for low in range(0, len(new), BLOCK):
            part = slice(low, low + BLOCK)
            y = (np.asarray(new[part], dtype=np.float64) - mean) * scale
            square = length - 2.0 * y @ x.T
            if own is not None:
                square[_own(own[part], start, len(x))] = np.inf
            near = np.argpartition(square, min(k, len(x)) - 1, axis=1)[:, :k]
            # From the differences: of rows that are nearly the same, the products' digits are all lost.
            apart = np.sqrt(((y[:, None, :] - x[near]) ** 2).sum(2))
            apart[np.isinf(np.take_along_axis(square, near, 1))] = np.inf
            both = np.concatenate([distance[part], apart], 1)
            whose = np.concatenate([index[part], near + start], 1)
            order = np.argsort(both, axis=1, kind="stable")[:, :k]
            distance[part] = np.take_along_axis(both, order, 1)
            index[part] = np.take_along_axis(whose, order, 1)
    return distance, index


def _own(own: np.ndarray, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where new rows meet themselves among `count` known rows from `start` on."""
    here = np.flatnonzero((own >= start) & (own < start + count))
    return here, own[here] - start
