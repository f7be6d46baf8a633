r"""Groups left out of a ridge regression, in closed form.

In the right singular vectors of X, with :math:`A_b = \mathrm{diag}(s^2) + \lambda_b I`,
:math:`\lambda_b = (N - m)\,\mathrm{wd}`, Z the m rows of the group and :math:`\theta_b = A_b^{-1} X^\top Y`:

.. math:: \delta = (\theta_b - \theta) - (A_b - Z^\top Z)^{-1} Z^\top (Y_G - Z \theta_b), \qquad
          P_2 - P_1 = -\beta Z^\top Z .

The first part is the effect of the smaller penalty, the second that of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.divergence import Terms, diag_divergence, excess, full_divergence
from lsi.errors import InputError
from lsi.loo.ridge import EPS, LOST, SAFETY, RidgeEngine


def ridge_groups(engine: RidgeEngine, groups: list[Tensor]) -> tuple[Terms, Tensor]:
    """Return both terms and the certificate of leaving out each group, `(G,)` each."""
    mean, covariance, error = torch.stack([_left_out(engine, index) for index in groups], 1)
    return Terms(mean, covariance), error


def _left_out(engine: RidgeEngine, index: Tensor) -> Tensor:
    """Return mean term, covariance term and certificate of one group, `(3,)`. Shapes: index `(m,)`."""
    delta, certificate = ridge_step(engine, index)
    x = engine.model.design.take(index)
    terms = _divergence(engine, x if engine.diagonal else x @ engine.model.basis, delta)
    return torch.stack([terms.mean[0], terms.covariance[0], torch.full_like(terms.mean[0], certificate)])


def ridge_step(engine: RidgeEngine, index: Tensor) -> tuple[Tensor, float]:
    """Return δ without a group, `(R, T)` in the singular vectors, with its certificate.

    A group without which the weights are not determined is refused. Shapes: index `(m,)`.
    """
    model = engine.model
    rows = model.design.take(index) @ model.basis
    squares = model.singular.square()
    ridge = (model.n_samples - len(index)) * model.weight_decay
    inverse = 1.0 / (squares + ridge)
    # θ_b − θ as a product: the difference of the two solutions would cancel.
    drift = (len(index) * model.weight_decay * inverse)[:, None] * model.weights(model.ridge)
    theta = model.weights(ridge)
    # W = A_b^{-1/2}Zᵀ: what is left of A_b is I − W Wᵀ there.
    white = rows.T * inverse.sqrt()[:, None]
    left = torch.eye(len(white), dtype=white.dtype, device=white.device) - white @ white.T
    rest = float(torch.linalg.eigvalsh(left)[0])
    if rest < LOST:
        raise InputError(
            f"without the {len(index)} rows of a group (row {int(index[0])} among them) the weights are not "
            "determined in double precision. Raise weight_decay, or split the group."
        )
    pull = white @ (model.target[index] - rows @ theta)
    delta = drift - inverse.sqrt()[:, None] * torch.linalg.solve(left, pull)
    return delta, engine.floor + SAFETY * EPS * len(model.singular) ** 0.5 / rest


def ridge_joined(engine: RidgeEngine, x: Tensor, target: Tensor | None) -> tuple[Terms, Tensor]:
    r"""Return both terms and the certificate of rows that join, each alone, `(M,)` each.

    With :math:`B = \mathrm{diag}(s^2) + (N + 1)\,\mathrm{wd}\,I`, :math:`a = B^{-1} x` and
    :math:`h = x^\top a`, the weights without the row less those with it are

    .. math:: \delta = \mathrm{wd}\, B^{-1} \theta - a\, e^\top, \qquad
              e = \frac{y - x^\top B^{-1} X^\top Y}{1 + h}, \qquad P_1 = P_2 + \beta x x^\top .

    Without a target it is the expectation over :math:`y \sim N(x^\top \theta, 1/\beta)`. A part of a row
    outside of the span of the data is one more coordinate, in which B is the penalty alone.

    Shapes: x `(M, D)` in the original features, target `(M, T)`.
    """
    model, (rows, outside) = engine.model, engine.model.split(x)
    ridge = (model.n_samples + 1) * model.weight_decay
    inverse = 1.0 / (model.singular.square() + ridge)
    theta, now = model.weights(ridge), model.weights(model.ridge)
    drift, a = model.weight_decay * inverse[:, None] * now, rows * inverse
    length = outside.square().sum(1)
    beyond = length / ridge if ridge else torch.zeros_like(length)
    h = (rows * a).sum(1) + beyond
    given = rows @ now if target is None else target
    e = (given - rows @ theta) / (1.0 + h)[:, None]
    rounding = SAFETY * EPS * (given.abs() + rows.abs() @ theta.abs()) / (1.0 + h)[:, None]
    tau, noise = engine.prior_precision, engine.noise
    if engine.diagonal:
        drift, precision = model.basis @ drift, engine.precision
        a = a @ model.basis.T + (outside / ridge if ridge else 0.0)
        share = (noise[:, None] * x.square()[:, None] / precision).flatten(1)
    else:
        drift, a = torch.nn.functional.pad(drift, (0, 0, 0, 1)), torch.cat([a, beyond.sqrt()[:, None]], 1)
        if ridge:
            a[:, -1] /= ridge**0.5
        precision = torch.nn.functional.pad(engine.precision, (0, 1), value=tau)
        share = noise * (rows.square() @ (1.0 / engine.precision).T + (length / tau)[:, None])
    mean, error = torch.zeros_like(h), torch.zeros_like(h)
    reach = rounding * (a.square() @ precision.T).sqrt()
    for t, beta in enumerate(noise):
        quadratic = (drift[:, t] - a * e[:, t, None]).square() @ precision[t]
        if target is None:
            quadratic = quadratic + (a.square() @ precision[t]) / beta / (1.0 + h).square()
        mean = mean + 0.5 * quadratic
        error = error + quadratic.sqrt() * reach[:, t] + 0.5 * reach[:, t].square()
    covariance = 0.5 * excess(-share / (1.0 + share)).sum(1)
    certificate = error / (mean + covariance).clamp_min(torch.finfo(torch.float64).tiny) + engine.floor
    return Terms(mean, covariance), certificate + SAFETY * EPS * len(model.singular) ** 0.5


def _divergence(engine: RidgeEngine, rows: Tensor, delta: Tensor) -> Terms:
    """Return the sum over the targets. Shapes: rows in the posterior's coordinates, delta `(R, T)`."""
    mean = covariance = torch.zeros(1, dtype=rows.dtype, device=rows.device)
    delta = engine.model.basis @ delta if engine.diagonal else delta
    for t, beta in enumerate(engine.noise):
        before, step = engine.precision[t], delta[None, :, t]
        if engine.diagonal:
            terms = diag_divergence(before, -beta * rows.square().sum(0)[None], step)
        else:
            terms = full_divergence(torch.diag(before.sqrt()), -beta * (rows.T @ rows)[None], step)
        mean, covariance = mean + terms.mean, covariance + terms.covariance
    return Terms(mean, covariance)
