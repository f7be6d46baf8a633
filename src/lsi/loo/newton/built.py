r"""The curvature that an inverse is of, where the model has moved on since it was built.

.. math:: \tilde H = \sum_j \tilde w_j S(q_j) \otimes x_j x_j^\top + \tilde\lambda I

It is known exactly, row by row, so that what a step with its inverse lacks is a sum over rows like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.probes.softmax.math import contrast_curvature, curvature_times
from lsi.probes.softmax.model import ELEMENTS, ROWS, SoftmaxModel

SAME = 1e-3  # relative change of a row's curvature that is not worth an update


@dataclass(frozen=True, eq=False)
class Built:
    """What a curvature was built from; the rows are those of the model.

    Attributes:
        probabilities: q, `(N, C)` in the design's type.
        weight: w̃, `(N,)` float64.
        ridge: λ̃.
    """

    probabilities: Tensor
    weight: Tensor
    ridge: float

    @classmethod
    def of(cls, model: SoftmaxModel, index: Tensor | None = None) -> Built:
        """Return what the curvature of a model as it is would be built from; of some rows, or of all."""
        if index is not None:
            return cls(model.probabilities(model.design.take(index)), model.weight[index], model.loo_ridge)
        p = torch.cat([model.probabilities(x) for _, x in model.design.blocks(ROWS)])
        return cls(p, model.weight, model.loo_ridge)

    def curvature_at(self, index: Tensor, contrasts: Tensor) -> Tensor:
        """Return `w̃ S'(q)` of the rows at `index`, `(B, C', C')` float64."""
        q = self.probabilities[index].to(torch.float64)
        return contrast_curvature(q, contrasts) * self.weight[index][:, None, None]

    def outdated(self, model: SoftmaxModel, index: Tensor) -> Tensor:
        """Return those rows of `index` whose curvature is noticeably another one by now, `(R,)`."""
        now, then = Built.of(model, index), self.curvature_at(index, model.contrasts)
        off = contrast_curvature(now.probabilities.to(torch.float64), model.contrasts)
        off = (off * now.weight[:, None, None] - then).abs().amax((1, 2))
        return index[off > SAME * then.abs().amax((1, 2))]

    def refreshed(self, model: SoftmaxModel, index: Tensor) -> tuple[Built, Tensor]:
        """Return this with the rows at `index` as the model has them, and what that adds to their curvature.

        Shapes: the latter `(R, C', C')` float64.
        """
        p = model.probabilities(model.design.take(index))
        q, weight = self.probabilities.clone(), self.weight.clone()
        q[index], weight[index] = p, model.weight[index]
        new = Built(q, weight, self.ridge)
        v = model.contrasts
        return new, new.curvature_at(index, v) - self.curvature_at(index, v)

    def product(self, model: SoftmaxModel, v: Tensor) -> Tensor:
        """Return `H̃ v`, float64. Shapes: v and the result `(C', D)`."""
        out, weights = self.ridge * v, model.contrasts @ v
        for rows, block in model.design.blocks(ROWS):
            x, q = block.to(torch.float64), self.probabilities[rows].to(torch.float64)
            image = curvature_times(q, x @ weights.T) * self.weight[rows, None]
            out += (image @ model.contrasts).T @ x
        return out

    def lacking(self, model: SoftmaxModel, v: Tensor) -> Tensor:
        """Return `(H − H̃) v_b`, H the model's own curvature. Shapes: v and the result `(B, C', D)`."""
        b, k, d = v.shape
        contrasts, c = model.contrasts.to(v.dtype), model.n_classes
        flat = (contrasts @ v).transpose(0, 1).reshape(c * b, d)
        out = torch.zeros_like(flat)
        for rows, x in model.design.blocks(max(64, ELEMENTS // (b * c))):
            z, q = (x @ flat.T).view(len(x), c, b), self.probabilities[rows, :, None]
            now, then = (w[rows, None, None].to(v.dtype) for w in (model.weight, self.weight))
            image = now * curvature_times(model.probabilities(x)[:, :, None], z)
            image -= then * curvature_times(q, z)
            out.addmm_(image.view(len(x), c * b).T, x)
        image = (contrasts.T @ out.view(c, b * d)).view(k, b, d).transpose(0, 1)
        return image + (model.loo_ridge - self.ridge) * v
