r"""The rows most like a left-out sample, which its removal moves most.

Where the classes' curvatures are alike, :math:`E_j^\top \bar H^{-1} E_i` is a C×C matrix times
:math:`x_j^\top A^{-1} x_i` with :math:`A = \sum_j w_j \mathrm{tr}\,S_j\, x_j x_j^\top + \lambda I`. So rows
are compared in the coordinates :math:`A^{-1/2} x`, or a random projection of them, and ranked by
:math:`w_j \mathrm{tr}\,S_j` times the cube of that product: what a row adds to a correction, to lowest order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.probes.softmax.model import ROWS, SoftmaxModel

SKETCH = 96  # coordinates that rows are compared in
NEAREST = 64  # rows looked at for each sample
GROUP = 32  # rows of which only the largest product is looked at first
ELEMENTS = 1 << 22  # products held at a time


class Neighbours:
    """Finds the rows that the removal of a sample moves most.

    Args:
        model: The full-data model.
    """

    def __init__(self, model: SoftmaxModel) -> None:
        d, device, dtype = model.design.n_features, model.design.device, model.design.dtype
        scatter = torch.zeros((d, d), dtype=torch.float64, device=device)
        spread = []
        for rows, x in model.design.blocks(ROWS):
            p = model.probabilities(x)
            spread.append((p * (1.0 - p)).sum(1).to(torch.float64) * model.weight[rows])
            scatter += (x.T @ (x * spread[-1][:, None].to(dtype))).to(torch.float64)
        scatter.diagonal().add_(model.n_classes * model.loo_ridge)
        values, vectors = torch.linalg.eigh(scatter)
        white = vectors * values.clamp_min(values[-1] * 1e-12).rsqrt()
        if d > SKETCH:
            normal = torch.randn((d, SKETCH), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            white = white @ (normal.to(device) / SKETCH**0.5)
        # Single precision ranks them well enough, and all rows are held.
        self.weight = torch.cat(spread).pow(1.0 / 3.0).to(torch.float32)
        white = white.to(dtype)
        self.rows = torch.empty((model.n_samples, white.shape[1]), dtype=torch.float32, device=device)
        for rows, x in model.design.blocks(ROWS):
            self.rows[rows] = x @ white

    def nearest(self, index: Tensor, left: Tensor) -> Tensor:
        """Return the rows that each sample's removal moves most, the nearest first, `(B, m)`.

        The sample itself fills the places of samples with fewer rows near them: it counts for nothing.

        Shapes: index `(B,)`; left, which rows may be found, `(N,)`.
        """
        n, m = len(self.rows), min(NEAREST, len(self.rows))
        weight = self.weight * left
        found = []
        for part in index.split(max(1, ELEMENTS // n)):
            alike = (self.rows[part] @ self.rows.T).abs_().mul_(weight)
            alike.scatter_(1, part[:, None], 0.0)
            alike = torch.nn.functional.pad(alike, (0, -n % GROUP)).view(len(part), -1, GROUP)
            groups = alike.amax(2).topk(min(m, alike.shape[1]), 1).indices
            close = alike.gather(1, groups[:, :, None].expand(-1, -1, GROUP)).flatten(1)
            where = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=index.device)).flatten(1)
            best = close.topk(min(m, close.shape[1]), 1).indices
            picked = where.gather(1, best)
            found.append(torch.where(picked < n, picked, part[:, None]))
        return torch.cat(found)
