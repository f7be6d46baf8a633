r"""The curvature and the optimum of changed data, from those before the change.

Rows that leave, join or get another label change the curvature by :math:`E C E^\top` with
:math:`C_r = w_r' S_r(\theta') - w_r S_r(\theta)`, and its inverse by Woodbury's formula,

.. math:: H'^{-1} = \bar H^{-1} - T (I + C G)^{-1} C\, T^\top, \qquad T = \bar H^{-1} E,\quad G = E^\top T.

Newton's steps with it lead to the new optimum. How far the inverse is from the curvature there is measured,
and where it is too far, or where updating costs more, the curvature is factorised again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsi.loo.newton.dense import Inverse
from lsi.loo.newton.engine import FLOOR
from lsi.probes.softmax.fit import Curvature, FitReport, fit, line_search
from lsi.probes.softmax.math import contrast_curvature
from lsi.probes.softmax.model import SoftmaxModel

STEPS, NEAR = 4, 1e-4  # before the curvature of changed rows is taken: to a hundredth of a logit or so


@dataclass
class Updated(Curvature):
    """A curvature of which only the inverse is there, in `factor`.

    Attributes:
        root: Lower Cholesky factor R of the inverse, `(K', K')`.
    """

    root: Tensor = field(default_factory=lambda: torch.empty(0))

    def solve(self, right: Tensor) -> Tensor:
        """Return `H̄⁻¹ v` for `right` of shape `(C − 1, D)`."""
        unit = right.abs().amax().clamp_min(torch.finfo(right.dtype).tiny)
        column = (right / unit).reshape(-1).to(self.factor)
        return (self.factor @ column).to(right).view(self.shape) * unit

    def measured_drift(self, model: SoftmaxModel) -> float:
        """Return `‖H̄⁻¹H v − v‖ / ‖v‖` in the metric of H̄, for one v from N(0, H̄⁻¹)."""
        generator = torch.Generator().manual_seed(1)
        normal = torch.randn((len(self.root), 1), generator=generator, dtype=torch.float64).to(self.root)
        v = (self.root @ normal).view(self.shape).to(torch.float64)
        image = model.hessian_product(v) + model.loo_ridge * v
        off = (self.solve(image) - v).reshape(-1, 1).to(self.root)
        off = torch.linalg.solve_triangular(self.root, off, upper=False)
        return float(off.norm() / normal.norm())


@dataclass(frozen=True, eq=False)
class Change:
    """Rows whose part in the data changes: that leave, join, or have another label.

    Attributes:
        x: Rows, `(R, D)`, in the model's coordinates after the change.
        before: Their weights before it, 0 for rows that join, `(R,)` float64.
        after: Their weights after it, 0 for rows that leave, `(R,)` float64.
    """

    x: Tensor
    before: Tensor
    after: Tensor

    def curvature(self, model: SoftmaxModel, old: Tensor) -> Tensor:
        """Return C of every row, `(R, C', C')`. Shapes: old weights `(C', D)`."""
        x, v = self.x.to(torch.float64), model.contrasts
        now, then = (contrast_curvature(model.probabilities(x, theta), v) for theta in (model.theta, old))
        return self.after[:, None, None] * now - self.before[:, None, None] * then


def trained(
    model: SoftmaxModel, before: Inverse | None, change: Change | None, turn: Tensor | None, allowed: float
) -> tuple[SoftmaxModel, Curvature | Inverse, FitReport]:
    """Return the probe trained on changed data, with its curvature.

    `model` has the changed data and the weights from before. `before` is the inverse of then, in the
    coordinates of then, from which the orthogonal `turn` `(D, D)` leads to the model's (None: they are the
    same); None: it is of no use. `allowed` is the drift that answers can bear.
    """
    updated, old = None, model.theta
    if before is not None and change is not None and _pays(model, len(change.x)):
        matrix = before.matrix if turn is None else _turned(before.matrix.contiguous(), turn)
        most = allowed / (FLOOR + before.drift)
        updated = _updated(model, matrix, change, old, most)
        if updated is not None:  # the curvature of rows that change moves with them, far more than others'
            model = _approached(model, updated)
            updated = _updated(model, matrix, change, old, most)
    model, curvature, report = fit(model, curvature=updated)
    held = isinstance(curvature, Updated)  # else it was factorised again on the way
    drift = max(curvature.drift, curvature.measured_drift(model) if held else 0.0)
    if drift > allowed:
        return model, Curvature.of(model), report
    if isinstance(curvature, Updated):
        return model, Inverse.updated(model, curvature.factor, curvature.root, drift), report
    return model, curvature, report


def _approached(model: SoftmaxModel, curvature: Curvature) -> SoftmaxModel:
    """Return the model after a few steps."""
    objective, gradient = model.objective_and_gradient(model.theta)
    for _ in range(STEPS):
        step = curvature.solve(gradient)
        decrement = float((step * gradient).sum())
        if decrement <= NEAR:
            break
        model, objective, gradient = line_search(model, step, decrement, objective)
    return model


def _updated(model: SoftmaxModel, matrix: Tensor, change: Change, old: Tensor, most: float) -> Updated | None:
    """Return the updated inverse; None where factorising again is safer."""
    curvature = change.curvature(model, old)
    moves = curvature.abs().amax((1, 2)) > 0
    if bool(moves.any()):
        found = _woodbury(matrix, change.x[moves], curvature[moves], most)
        if found is None:
            return None
        matrix = found
    root, failed = torch.linalg.cholesky_ex(matrix)
    shape = (model.theta.shape[0], model.theta.shape[1])
    return None if int(failed) else Updated(matrix, shape, model.theta, 0.0, root)


def _pays(model: SoftmaxModel, n_rows: int) -> bool:
    """Return whether updating takes fewer operations than factorising again."""
    k, contrasts = float(model.theta.numel()), model.theta.shape[0]
    rank = float(n_rows * contrasts)
    update = 2.0 * n_rows * k**2 + 2.0 * k**2 * rank + 2.0 * k * rank**2 + 3.0 * rank**3
    return update < 0.63 * model.n_samples * k**2 + k**3  # as `dense_cost` counts them


def _woodbury(matrix: Tensor, x: Tensor, curvature: Tensor, most: float) -> Tensor | None:
    """Return the inverse after a change; None where what it is off by grows by more than `most`."""
    k, d, rank = curvature.shape[1], x.shape[1], curvature.shape[0] * curvature.shape[1]
    curvature = torch.block_diag(*curvature)
    # T, rows first: each class's rows of the inverse times the rows.
    reach = torch.stack([x.to(matrix) @ matrix[c * d : (c + 1) * d] for c in range(k)], 1).view(rank, k * d)
    gram = (reach.view(rank, k, d) @ x.to(matrix).T).permute(0, 2, 1).reshape(rank, rank).to(torch.float64)
    eye = torch.eye(rank, dtype=torch.float64, device=x.device)
    taken = torch.linalg.inv(eye + curvature @ gram)  # (I + C G)⁻¹
    # In a direction that only the rows that leave had, beyond all use.
    magnified = float(
        (torch.linalg.matrix_norm(taken, 1) * torch.linalg.matrix_norm(taken, torch.inf)).sqrt()
    )
    if not magnified <= most:
        return None
    middle = taken @ curvature
    middle = (0.5 * (middle + middle.mT)).to(matrix)
    out = torch.addmm(matrix, reach.T, middle @ reach, alpha=-1.0)
    return 0.5 * (out + out.mT)


def _turned(matrix: Tensor, turn: Tensor) -> Tensor:
    """Return an inverse in coordinates that are turned against its own. Shapes: turn `(D, D)`."""
    d = len(turn)
    k = len(matrix) // d
    half = (matrix.view(k * d * k, d) @ turn.to(matrix)).view(k, d, k * d)
    return (turn.T.to(matrix) @ half).reshape(k * d, k * d)
