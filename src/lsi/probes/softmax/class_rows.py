"""The class rows of a Hessian as blocks of work, for a fit on many processors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Arrays, Tick, Work
from lsi.probes.softmax.model import ClassWeights, Panels, SoftmaxModel


@dataclass
class ClassRows:
    """What the blocks need: the data once, and the weights with each block.

    Attributes:
        model: Data and objective; its own weights are not used.
    """

    model: SoftmaxModel
    _last: tuple[np.ndarray, ClassWeights] | None = None

    def hessian(self, theta: Tensor, work: Work, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the Hessian at `theta` `(C − 1, D)`, bit for bit that of `SoftmaxModel.hessian`."""
        at = theta.cpu().numpy()
        count = len(at)
        blocks = [(r, at) for r in reversed(range(count))]  # the most expensive first

        def rows() -> Iterator[tuple[int, Panels]]:
            # A Hessian is of no use after its Newton step: neither checkpointed nor shown as progress.
            for place, arrays in work.aside().map("curvature", self, "row", blocks, [1] * count):
                panels = {int(low): torch.from_numpy(panel) for low, panel in arrays.items()}
                yield blocks[place][0], [(low, panels[low].to(theta.device)) for low in sorted(panels)]

        whole = self.model.assembled(rows(), dtype)
        self._last = None
        return whole

    def row(self, block: tuple[int, np.ndarray], tick: Tick) -> Arrays:
        """Return the panels of one class row by their first features. A block is `(r, theta)`."""
        r, at = block
        if self._last is None or not np.array_equal(self._last[0], at):
            theta = torch.from_numpy(at.copy()).to(self.model.design.device)
            self._last = at, self.model.curvature_weights(theta)
        return {str(low): panel.cpu().numpy() for low, panel in self.model.class_row(r, self._last[1])}

    def __getstate__(self) -> dict[str, Any]:
        """Drop what is kept between blocks."""
        return {"model": self.model, "_last": None}
