r"""How the curvature of the data bends along a direction: its directional derivative.

.. math:: \mathrm{d}H[u] = \sum_j w_j\, \mathrm{d}S'_j[E_j^\top u] \otimes x_j x_j^\top, \qquad
          \mathrm{d}S_j[v] = \mathrm{diag}(\dot p) - p\,\dot p^\top - \dot p\,p^\top,\quad \dot p = S_j v
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.probes.softmax.math import curvature_times
from lsi.probes.softmax.model import ROWS, SoftmaxModel


def bending(model: SoftmaxModel, u: Tensor) -> Tensor:
    """Return `dH[u]`, `(K', K')` in the design's type. Shapes: u `(C', D)`."""
    step = (model.contrasts @ u.to(torch.float64)).to(model.design.dtype)
    ps, slopes = [], []
    for _, x in model.design.blocks(ROWS):
        ps.append(model.probabilities(x))
        slopes.append(curvature_times(ps[-1], x @ step.T))
    p, slope = torch.cat(ps), torch.cat(slopes)
    v = model.contrasts.to(p.dtype)

    def weights(rows: slice, r: int) -> Tensor:  # row r of Vᵀ dS V
        p_v, slope_v = p[rows] @ v[:, : r + 1], slope[rows] @ v[:, : r + 1]
        outer = p_v[:, r, None] * slope_v + slope_v[:, r, None] * p_v
        return slope[rows] @ (v[:, r, None] * v[:, : r + 1]) - outer

    return model.assembled(model.class_rows(weights), model.design.dtype)
