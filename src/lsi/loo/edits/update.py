r"""The curvature and the optimum of changed data, from those before the change.

Rows that leave, join or get another label change the curvature by :math:`E C E^\top`, with :math:`C_r` what
each adds to it, and its inverse by Woodbury's formula,

.. math:: H'^{-1} = \tilde H^{-1} - T (I + C G)^{-1} C\, T^\top, \qquad T = \tilde H^{-1} E,\quad
          G = E^\top T.

Steps with it lead to the new optimum, and what earlier ones told of the curvature corrects them (L-BFGS). The
weights move the curvature of all rows a little, and that of the rows that changed a lot, which are brought up
to date there. Of the others, the inverse keeps the curvature that they had. What that was is known row by row
(`Built`), so that whoever uses the inverse counts what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lsi.loo.newton.built import Built
from lsi.loo.newton.dense import Inverse
from lsi.loo.newton.engine import FLOOR
from lsi.loo.newton.secants import Secants, dot
from lsi.probes.softmax.fit import TARGET_DECREMENT, Curvature, FitReport, fit, line_search
from lsi.probes.softmax.model import SoftmaxModel

CHEAP = 1e10  # operations of factorising, a tenth of a second, that are not worth sparing
STARTS, POWERS = 4, 8  # of the power method: the eigenvalue is then good to a tenth or so
SLOW = 0.5  # contraction of steps from which on walks take longer than factorising pays back
SWEEP = 6.0  # operations of a sweep for each row of the data and weight: four, and exponentials
STEPS = 12  # to the new optimum at least, before factorising again is thought of


@dataclass
class Updated(Curvature):
    """A curvature of which only the inverse is there, in `factor`.

    Attributes:
        built: What it was built from.
    """

    built: Built = field(default_factory=lambda: Built(torch.empty(0), torch.empty(0), 0.0))

    def solve(self, right: Tensor) -> Tensor:
        """Return `H̃⁻¹ v` for `right` of shape `(C − 1, D)`."""
        unit = right.abs().amax().clamp_min(torch.finfo(right.dtype).tiny)
        column = (right / unit).reshape(-1).to(self.factor)
        return (self.factor @ column).to(right).view(self.shape) * unit

    def changed(self, x: Tensor, curvature: Tensor, most: float, built: Built) -> Updated | None:
        """Return this after the curvature of rows has changed; None where factorising again is safer.

        Shapes: x `(R, D)`, curvature `(R, C', C')`.
        """
        if not len(x):
            return replace(self, built=built)
        matrix = _woodbury(self.factor, x, curvature, most)
        return None if matrix is None else replace(self, factor=matrix, built=built)

    def refreshed(self, model: SoftmaxModel, index: Tensor, most: float) -> Updated | None:
        """Return this with the curvature of the rows at `index` as it is now; None as in `changed`."""
        index = self.built.outdated(model, index)
        built, curvature = self.built.refreshed(model, index)
        return self.changed(model.design.take(index), curvature, most, built)

    def measured_drift(self, model: SoftmaxModel, root: Tensor | None = None) -> float:
        """Return `‖H̃⁻¹H̃ v − v‖ / ‖v‖` in the metric of H̃, for one v from N(0, H̃⁻¹).

        `root` is the lower Cholesky factor of the inverse.
        """
        root = torch.linalg.cholesky(self.factor) if root is None else root
        generator = torch.Generator().manual_seed(1)
        normal = torch.randn((len(root), 1), generator=generator, dtype=torch.float64).to(root)
        v = (root @ normal).view(self.shape).to(torch.float64)
        off = (self.solve(self.built.product(model, v)) - v).reshape(-1, 1).to(root)
        off = torch.linalg.solve_triangular(root, off, upper=False)
        return float(off.norm() / normal.norm())


@dataclass(frozen=True, eq=False)
class Change:
    """What is different about changed data.

    Attributes:
        gone: Rows that leave, `(R, D)`, in the model's coordinates after the change.
        taken: The curvature that leaves with them, `(R, C', C')` float64.
        built: What the inverse from before the change holds of each row of the changed data.
        changed: Positions of the rows that join or have another label, `(n,)`.
    """

    gone: Tensor
    taken: Tensor
    built: Built
    changed: Tensor


def trained(
    model: SoftmaxModel, before: Inverse | None, change: Change | None, turn: Tensor | None, allowed: float
) -> tuple[SoftmaxModel, Curvature | Inverse, FitReport]:
    """Return the probe trained on changed data, with its curvature or an inverse near to that.

    `model` has the changed data and the weights from before. `before` is the inverse of then, in the
    coordinates of then, from which the orthogonal `turn` `(D, D)` leads to the model's (None: they are the
    same); None: it is of no use. `allowed` is what rounding may leave of an updated inverse, relative to it.
    """
    if before is None or change is None or not _pays(model, len(change.gone) + len(change.changed)):
        return fit(model)
    most = allowed / (FLOOR + before.drift)
    model, updated = _near(model, before, change, turn, most)
    model, curvature, report = fit(model, curvature=updated)
    if not isinstance(curvature, Updated):
        return model, curvature, report  # it was factorised again on the way
    root, failed = torch.linalg.cholesky_ex(curvature.factor)
    drift = float("inf") if int(failed) else max(before.drift, curvature.measured_drift(model, root))
    if drift > allowed:
        return model, Curvature.of(model), report
    inverse = Inverse.updated(model, curvature.factor, root, drift, curvature.built)
    contraction = _contraction(model, inverse)
    if contraction > SLOW:
        return model, Curvature.of(model), report
    return model, replace(inverse, contraction=contraction), report


def _contraction(model: SoftmaxModel, inverse: Inverse) -> float:
    """Return the largest `|eigenvalue|` of `H̃⁻¹(H − H̃)`, by the power method from draws of N(0, H̃⁻¹)."""
    assert inverse.built is not None
    v, found, shape = inverse.probes[:STARTS], 0.0, model.theta.shape
    for _ in range(POWERS):
        image = inverse.built.lacking(model, v)
        step = (image.flatten(1) @ inverse.matrix).view(-1, *shape)
        length = dot(step, image).clamp_min(0).sqrt()  # of the step, in the metric of H̃
        if not bool((length > 0).any()):
            break
        # A unit vector's image is as long as the eigenvalue at most; the first ones are no unit vectors.
        found = float(length.amax())
        v = step / length.clamp_min(torch.finfo(torch.float32).tiny)[:, None, None].to(step.dtype)
    return found


def _near(
    model: SoftmaxModel, before: Inverse, change: Change, turn: Tensor | None, most: float
) -> tuple[SoftmaxModel, Updated | None]:
    """Return the model walked towards its optimum, with an inverse updated there; None: of no use."""
    matrix = before.matrix if turn is None else _turned(before.matrix.contiguous(), turn)
    k, d = model.theta.shape
    start = Updated(matrix, (k, d), model.theta, 0.0, change.built)
    updated = start.changed(change.gone, -change.taken, most, change.built)
    if updated is not None:
        updated = updated.refreshed(model, change.changed, most)
    if updated is None:
        return model, None
    model = _walked(model, updated, max(STEPS, _passes(model)))
    return model, updated.refreshed(model, change.changed, most)


def _walked(model: SoftmaxModel, curvature: Updated, passes: int) -> SoftmaxModel:
    """Return the model after steps of L-BFGS to its optimum, or after so many passes over the data."""
    secants = Secants()
    objective, gradient = model.objective_and_gradient(model.theta)
    for _ in range(passes):
        step = secants.solve(gradient[None], lambda right: curvature.solve(right[0])[None])[0]
        decrement = float((step * gradient).sum())
        if decrement <= TARGET_DECREMENT * min(1.0, objective):
            break
        theta, slope = model.theta, gradient
        model, objective, gradient = line_search(model, step, decrement, objective)
        secants.add((theta - model.theta)[None], (slope - gradient)[None])
    return model


def _factoring(model: SoftmaxModel) -> float:
    """Return the operations that factorising takes, as `dense_cost` counts them."""
    k = float(model.theta.numel())
    return 0.63 * model.n_samples * k**2 + k**3


def _passes(model: SoftmaxModel) -> int:
    """Return how many gradients, in double precision, cost as much as factorising."""
    return int(_factoring(model) / (16.0 * model.n_samples * model.theta.numel()))


def _pays(model: SoftmaxModel, n_rows: int) -> bool:
    """Return whether updating takes fewer operations than factorising again."""
    k, contrasts = float(model.theta.numel()), model.theta.shape[0]
    rank = float(n_rows * contrasts)
    update = 2.0 * n_rows * k**2 + 2.0 * k**2 * rank + 2.0 * k * rank**2 + 3.0 * rank**3
    return max(update, CHEAP) < _factoring(model)


def pays_to_factorise(model: SoftmaxModel, n_rows: int) -> bool:
    """Return whether factorising costs less than one more sweep for each of so many rows.

    Walks with an inverse that is only near take about that (1.9 sweeps instead of one, or of sampled rows).
    """
    return SWEEP * n_rows * model.n_samples * model.theta.numel() > _factoring(model)


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
