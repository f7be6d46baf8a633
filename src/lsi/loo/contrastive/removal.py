r"""How leaving out each of many pairs changes gradient and curvature, at the full-data weights.

Without candidate i the normaliser of row j is :math:`\varphi_j + \log(1 - P_{ji})`, hence with the odds
:math:`\pi_{ji} = P_{ji} / (1 - P_{ji})`

.. math:: \nabla\varphi'_j = \nabla\varphi_j + \pi_{ji} (\nabla\varphi_j - \nabla s_{ji}),

and likewise for columns with the odds of Q. The odds of a pair with itself are set to −1, which makes the
same formulas remove it as an anchor. Nothing loops over pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.loo.contrastive.state import Side


def odds(probabilities: Tensor) -> Tensor:
    """Return `p / (1 − p)` with −1 on the diagonal, `(n, n)`."""
    result = probabilities / (1.0 - probabilities).clamp_min(torch.finfo(probabilities.dtype).eps)
    result.fill_diagonal_(-1.0)
    return result


def gradient_change(side: Side, candidates: Tensor, at: Tensor) -> Tensor:
    """Return the gradient by this head of the loss without each pair, less that with it, `(B, d, D)`.

    Shapes: at `(B,)`.
    """
    row, column = odds(side.rows)[:, at], odds(side.columns)[at]
    anchors = (side.anchor_means()[:, :, None] * side.x[:, None, :]).flatten(1)
    total = row.T @ anchors + column @ candidates.flatten(1)
    total = total.view(len(at), *candidates.shape[1:]) - side.spread(row, at)
    return 0.5 * (total - side.own(column, at)[:, :, None] * side.x[at][:, None, :])


def diagonal_change(side: Side, candidates: Tensor, at: Tensor) -> Tensor:
    """Return the diagonal of the Gauss-Newton matrix without each pair, less that with it, `(B, d, D)`.

    Shapes: at `(B,)`.
    """
    squared = side.x.square()
    row, column = odds(side.rows)[:, at], odds(side.columns)[at]
    total = _anchor_change(side, row, at, squared)
    total += _weight_change(side, column, at, squared)
    total += _candidate_change(side, column, candidates, at)
    return total


def _anchor_change(side: Side, row: Tensor, at: Tensor, squared: Tensor) -> Tensor:
    """Return the change through row anchors j: their softmax loses candidate i, and row i drops out."""
    here = torch.arange(len(at))
    means, second = side.anchor_means(), side.squares(side.rows)
    lost = side.squares(side.mean[at], at) - 0.5 * means[at].square()
    parts = []
    for c in range(side.unit.shape[1]):
        logit = (side.other[at, c] - side.cosine[:, at] * side.unit[:, c, None]) * side.scale
        gap = means[:, c, None] - logit
        change = 0.5 * row * second[:, c, None] - 0.5 * (row + side.columns[:, at]) * logit.square()
        change -= row * means[:, c, None] * gap + 0.5 * (row * gap).square()
        change[at, here] = -lost[:, c]
        parts.append(change.T @ squared)
    return torch.stack(parts, 1)


def _weight_change(side: Side, column: Tensor, at: Tensor, squared: Tensor) -> Tensor:
    """Return the change through the weights `Q_jk / 2` of column anchors k ≠ i, which lose candidate i."""
    here = torch.arange(len(at))
    gain = column.clone()
    gain[here, at] = 0.0
    small, weight = side.scale.square(), side.columns
    turned = weight * side.cosine
    rows = (side.unit * small)[:, :, None] * squared[:, None, :]
    spread = (weight.T @ (squared * small))[:, None, :] * side.other.square()[:, :, None]
    spread -= 2 * side.other[:, :, None] * (turned.T @ rows.flatten(1)).view_as(spread)
    rows = (side.unit.square() * small)[:, :, None] * squared[:, None, :]
    spread += ((turned * side.cosine).T @ rows.flatten(1)).view_as(spread)
    total = (gain @ spread.flatten(1)).view(len(at), *spread.shape[1:])
    own = side.squares(gain * weight[at], at)
    return 0.5 * (total - own[:, :, None] * squared[at][:, None, :])


def _candidate_change(side: Side, column: Tensor, candidates: Tensor, at: Tensor) -> Tensor:
    """Return the change of the column normalisers' outer products, including that of anchor i."""
    flat = candidates.flatten(1)
    grown = (1.0 + column).square() - 1.0  # −1 for the pair itself
    total = grown @ flat.square()
    mixed = (1.0 + column) * column
    along = mixed @ (candidates * side.other[:, :, None]).flatten(1)
    turned = (mixed * side.cosine[at]) @ flat
    unit = side.unit[at][:, :, None].expand(-1, -1, side.x.shape[1]).flatten(1)
    scaled = (side.x * side.scale)[at][:, None, :].expand(-1, side.unit.shape[1], -1).flatten(1)
    total -= 2.0 * scaled * (along - unit * turned)
    square = column.square()
    square[torch.arange(len(at)), at] = 0.0
    own = side.squares(square, at)[:, :, None] * side.x[at].square()[:, None, :]
    return -0.5 * (total.view_as(own) + own)
