r"""Rows that join the data, one at a time: their own nonlinearity exactly, the others' curvature as it is.

With the curvature of the data kept, the weights after a row x of label y has joined minimise

.. math:: \tfrac12 \delta^\top \bar H \delta + w\, \ell_{x,y}(\theta + \delta)
          + \mathrm{wd}\, \theta^\top \delta
          \quad\Rightarrow\quad \delta = -t - T m, \qquad m = w\, g'(\theta + \delta),

with :math:`T = \bar H^{-1} E`, :math:`t = \bar H^{-1} \mathrm{wd}\, \theta` and :math:`E = I \otimes x`. In m
these are C − 1 equations, which are solved by Newton's method with :math:`Q = E^\top T`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.solver import EditSolver, Prepared
from lsi.loo.newton.dense import Inverse
from lsi.loo.newton.engine import NewtonEngine
from lsi.probes.softmax.math import contrast_curvature, residuals
from lsi.probes.softmax.model import ROWS, SoftmaxModel

STEPS = 40  # of Newton's method with halving: about six are taken, a far label from a far row takes twenty
SOLVED = 1e-10  # relative size of the last step


def prepare_joining(solver: EditSolver, edits: Edits) -> Prepared:
    """Return rows that join, each alone, with the steps to where their own equations are solved."""
    dense, model = solver.solver, solver.model
    gram = dense.own_grams(edits.x).to(torch.float64)
    curvature = edits.curvature(edits.probabilities())
    eye = torch.eye(gram.shape[1], dtype=torch.float64, device=gram.device)
    middle = torch.linalg.solve(eye + curvature @ gram, curvature)
    # At θ − t: the joined row brings a penalty of its own.
    logits = edits.x.to(torch.float64) @ (model.theta - dense.decay_step.to(torch.float64)).T
    pull = own_pull(model, logits, edits.target, edits.weight, gram)
    right = pull[:, :, None] * edits.x[:, None, :].to(torch.float64)
    delta = -dense.decay_step - dense.plain(right.to(edits.x.dtype))
    return Prepared(edits, tuple(middle), delta)


def own_pull(model: SoftmaxModel, logits: Tensor, target: Tensor, weight: Tensor, gram: Tensor) -> Tensor:
    """Return m with `m = w g'(z − Q m)`, `(B, C')` float64.

    Shapes: logits z `(B, C')` in class contrasts, target `(B,)`, weight `(B,)`, gram Q `(B, C', C')`.
    """
    contrasts, m = model.contrasts, torch.zeros_like(logits)

    def seen(m: Tensor) -> tuple[Tensor, Tensor]:
        z = logits - (gram @ m[:, :, None])[:, :, 0]
        log_p = torch.log_softmax(z @ contrasts.T, -1)
        loss = -log_p.gather(1, target[:, None])[:, 0]
        return log_p, 0.5 * (m * (gram @ m[:, :, None])[:, :, 0]).sum(1) + weight * loss

    log_p, value = seen(m)
    eye = torch.eye(gram.shape[1], dtype=torch.float64, device=gram.device)
    for _ in range(STEPS):
        p = log_p.exp()
        off = m - weight[:, None] * (residuals(p, target) @ contrasts)
        slope = eye + weight[:, None, None] * (contrast_curvature(p, contrasts) @ gram)
        step = torch.linalg.solve(slope, off[:, :, None])[:, :, 0]
        if not bool((step.abs().amax(1) > SOLVED * (m.abs().amax(1) + off.abs().amax(1))).any()):
            break
        length = torch.ones_like(value)
        for _ in range(STEPS):
            trial = m - length[:, None] * step
            log_p, found = seen(trial)
            worse = found > value + 1e-12 * value.abs()
            if not bool(worse.any()):
                break
            length = torch.where(worse, 0.5 * length, length)
        m, value = trial, found
    return m


def with_room(engine: NewtonEngine) -> NewtonEngine:
    """Return an engine with one more coordinate, in which every row of the data is zero.

    The data span fewer directions than there are features (N < D), and a new row has a part outside of their
    span. Which direction that is only matters to `diag` (`facing`).
    """
    model, held = engine.model, engine.solver.inverse
    (k, d), dtype, device = model.theta.shape, model.design.dtype, model.design.device
    rows = torch.cat([x for _, x in model.design.blocks(ROWS)])
    design = Design(torch.nn.functional.pad(rows, (0, 1)), dtype=dtype, device=device)
    wider = replace(model, design=design, theta=torch.nn.functional.pad(model.theta, (0, 1)))
    # There, the curvature of the data is that of the penalty alone.
    matrix = torch.zeros((k, d + 1, k, d + 1), dtype=dtype, device=device)
    matrix[:, :d, :, :d] = held.matrix.view(k, d, k, d)
    matrix[:, d, :, d] = torch.eye(k, dtype=dtype, device=device) / model.loo_ridge
    matrix = matrix.view(k * (d + 1), -1)
    inverse = Inverse.updated(wider, matrix, torch.linalg.cholesky(matrix), held.drift)
    assert engine.posterior.basis is not None
    return _with_basis(engine, wider, inverse, torch.nn.functional.pad(engine.posterior.basis, (0, 1)))


def facing(roomy: NewtonEngine, direction: Tensor) -> NewtonEngine:
    """Return an engine `with_room` whose last coordinate is a direction of the features, `(D₀,)`."""
    basis = roomy.posterior.basis
    assert basis is not None
    whole = torch.cat([basis[:, :-1], direction[:, None]], 1)
    return _with_basis(roomy, roomy.model, roomy.solver.inverse, whole)


def _with_basis(engine: NewtonEngine, model: SoftmaxModel, inverse: Inverse, basis: Tensor) -> NewtonEngine:
    posterior = type(engine.posterior)(model, engine.posterior.prior_precision, basis)
    return NewtonEngine(model, inverse, posterior, engine.settings)


def outside_of(engine: NewtonEngine, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the length of each row's part outside of the span of the data, and its direction.

    Shapes: x `(B, D₀)`, in the original features; the results `(B,)` and `(B, D₀)`.
    """
    basis, rows = engine.posterior.basis, x.to(torch.float64)
    if basis is None or basis.shape[0] == basis.shape[1]:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device), torch.zeros_like(rows)
    apart = rows
    for _ in range(2):  # the second time removes what rounding left of the first
        apart = apart - (apart @ basis) @ basis.T
    length = apart.norm(dim=1)
    # Below the rounding of the rows themselves there is no direction.
    length = torch.where(length > 1e-7 * rows.norm(dim=1), length, 0.0)
    return length, apart / length.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
