r"""How alike the rows of the data are to a left-out sample, by which its removal moves them.

Where the classes' curvatures are alike, :math:`E_j^\top \bar H^{-1} E_i` is a C×C matrix times
:math:`x_j^\top A^{-1} x_i` with :math:`A = \sum_j w_j \mathrm{tr}\,S_j\, x_j x_j^\top + \lambda I`. So rows
are compared by the cosine of :math:`A^{-1/2} x`, or of a random projection of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lsi.probes.softmax.model import ROWS, SoftmaxModel

ELEMENTS = 1 << 19  # cosines held at a time: they stay in cache
SKETCH = 96  # coordinates that rows are compared in
UNRELATED = 5.0 / SKETCH**0.5  # c₀, a cosine that one unrelated row in two million seems to have


class Neighbours:
    """Compares rows.

    Args:
        model: The full-data model.
    """

    def __init__(self, model: SoftmaxModel) -> None:
        white = whitened(model)
        # Single precision tells alike rows well enough, and all rows are held.
        self._rows = torch.empty((model.n_samples, white.shape[1]), dtype=torch.float32, device=white.device)
        for rows, x in model.design.blocks(ROWS):
            self._rows[rows] = torch.nn.functional.normalize(x @ white)

    def cosines(self, index: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows, some at a time, and their cosines with the rows at `index`, without sign, `(B, n)`."""
        own, n = self._rows[index], len(self._rows)
        size = max(1, ELEMENTS // len(index))
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            yield rows, (own @ self._rows[rows].T).abs_()


def excess(cosine: Tensor) -> Tensor:
    """Turn cosines into `max(0, c − c₀) / (1 − c₀)`: what they are beyond those of unrelated rows."""
    return cosine.sub_(UNRELATED).clamp_min_(0.0).div_(1.0 - UNRELATED)


def whitened(model: SoftmaxModel) -> Tensor:
    """Return `A^{-1/2}`, or a random projection of it, `(D, SKETCH)` or `(D, D)`, in the design's type."""
    d, device, dtype = model.design.n_features, model.design.device, model.design.dtype
    scatter = torch.zeros((d, d), dtype=torch.float64, device=device)
    for rows, x in model.design.blocks(ROWS):
        spread = total_variance(model, rows, x)
        scatter += (x.T @ (x * spread[:, None])).to(torch.float64)
    scatter.diagonal().add_(model.n_classes * model.loo_ridge)
    values, vectors = torch.linalg.eigh(scatter)
    white = vectors * values.clamp_min(values[-1] * 1e-12).rsqrt()
    if d > SKETCH:
        normal = torch.randn((d, SKETCH), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        white = white @ normal.to(device)
    return white.to(dtype)


def total_variance(model: SoftmaxModel, rows: slice, x: Tensor) -> Tensor:
    """Return `w tr S` of rows, `(n,)`. Shapes: x `(n, D)`."""
    p = model.probabilities(x)
    return (p * (1.0 - p)).sum(1) * model.weight[rows].to(x.dtype)
