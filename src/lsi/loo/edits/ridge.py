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

from lsi.divergence import Terms, diag_divergence, full_divergence
from lsi.errors import InputError
from lsi.loo.ridge import EPS, LOST, SAFETY, RidgeEngine


def ridge_groups(engine: RidgeEngine, groups: list[Tensor]) -> tuple[Terms, Tensor]:
    """Return both terms and the certificate of leaving out each group, `(G,)` each."""
    mean, covariance, error = torch.stack([_left_out(engine, index) for index in groups], 1)
    return Terms(mean, covariance), error


def _left_out(engine: RidgeEngine, index: Tensor) -> Tensor:
    """Return mean term, covariance term and certificate of one group, `(3,)`. Shapes: index `(m,)`."""
    model = engine.model
    x, rows = model.design.take(index), model.design.take(index) @ model.basis
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
    terms = _divergence(engine, x if engine.diagonal else rows, delta)
    certificate = engine.floor + SAFETY * EPS * len(model.singular) ** 0.5 / rest
    return torch.stack([terms.mean[0], terms.covariance[0], torch.full_like(terms.mean[0], certificate)])


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
