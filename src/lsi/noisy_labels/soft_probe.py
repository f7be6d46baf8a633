r"""A linear softmax head fitted to soft labels, with approximate leave-one-out logits.

Unlike the probe that is scored, this head has to be refitted many times to changing soft labels. It
works in coordinates in which its curvature at zero weights is the identity, so that a warm start needs
few iterations, and takes the leave-one-out step with a Kronecker curvature, for which one number per
sample is enough: the sample's own share :math:`a_i = x_i^\top A^{-1} x_i` of its direction.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lsi.probes.softmax.lbfgs import lbfgs

MANY_CLASSES = 24  # with more classes, one number stands for the sample's own C × C curvature
MOST_LEVERAGE = 0.95  # a sample's own share of the curvature is capped here, so that its step stays finite
BLOCK = 4096  # samples whose C × C systems are solved together
ENOUGH = 3e-2  # largest entry of the gradient, in whitened coordinates, that ends a fit


class SoftProbe:
    r"""Softmax regression on fixed features with soft labels q.

    .. math:: \min_W -\sum_i \sum_c q_{ic} \log \mathrm{softmax}(W x_i)_c + \tfrac{\lambda}{2} \|W\|^2

    Args:
        features: `(N, D)` float32; an intercept is one of its columns.
        n_classes: C.
        ridge: λ > 0, in sum form.
        overwrite: Whether the transformed rows may take the memory of the features.
    """

    def __init__(self, features: Tensor, n_classes: int, ridge: float, *, overwrite: bool = False) -> None:
        d = features.shape[1]
        self.n_classes, self.ridge = n_classes, ridge
        gram = (features.T @ features).to(torch.float64) / n_classes
        gram.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(gram)
        eye = torch.eye(d, dtype=torch.float64, device=features.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        self._to_weights = inverse.to(features.dtype)
        self.rows = features if overwrite else features.clone()
        for part in self.rows.split(BLOCK):
            part.copy_(part @ self._to_weights.T)
        self._share = torch.linalg.vector_norm(self.rows, dim=1).square().to(torch.float64) / n_classes
        self._start = np.zeros(n_classes * d)

    def fit(self, labels: Tensor, iterations: int) -> Tensor:
        """Train from where the last fit ended; return the logits, `(N, C)`. Shapes: labels `(N, C)`."""
        shape = (self.n_classes, self.rows.shape[1])

        def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
            v = torch.from_numpy(free).to(self.rows).view(shape)
            weights = v @ self._to_weights
            log_p = torch.log_softmax(self.rows @ v.T, 1)
            loss = -float((labels * log_p).sum(dtype=torch.float64))
            gradient = (log_p.exp() - labels).T @ self.rows + self.ridge * (weights @ self._to_weights.T)
            loss += 0.5 * self.ridge * float(weights.square().sum(dtype=torch.float64))
            return loss, gradient.to(torch.float64).reshape(-1).cpu().numpy()

        options = {"maxiter": iterations, "maxcor": 10, "gtol": ENOUGH, "ftol": 0.0}
        found = lbfgs(objective, self._start, options)
        self._start = found.x
        return self.rows @ torch.from_numpy(found.x).to(self.rows).view(shape).T

    def predict(self, features: Tensor) -> Tensor:
        """Return the logits of other samples by the last fit, `(n, C)`. Shapes: features `(n, D)`."""
        v = torch.from_numpy(self._start).to(self.rows).view(self.n_classes, self.rows.shape[1])
        return features @ (v @ self._to_weights).T

    def left_out(self, logits: Tensor, labels: Tensor, many_classes: int = MANY_CLASSES) -> Tensor:
        r"""Return the logits that each sample would get had it been left out, `(N, C)` float64.

        One Newton step with the curvature :math:`B \otimes A`, B the mean of
        :math:`S_i = \mathrm{diag}(p_i) - p_i p_i^\top`, less the sample's own:

        .. math:: z_i + K_i (I - S_i K_i)^{-1} (p_i - q_i),\quad K_i = a_i B^{+}
        """
        z = logits.to(torch.float64)
        p = torch.softmax(z, 1)
        eye = torch.eye(self.n_classes, dtype=torch.float64, device=z.device)
        inverse = self._inverse_curvature(p)
        if self.n_classes > many_classes:
            return z + self._scalar_step(p, labels.to(torch.float64), inverse)
        for start in range(0, len(z), BLOCK):
            part = slice(start, start + BLOCK)
            own = torch.diag_embed(p[part]) - p[part, :, None] * p[part, None, :]
            step = self._share[part, None, None] * inverse
            residual = (p[part] - labels[part].to(torch.float64))[:, :, None]
            z[part] += (step @ torch.linalg.solve(eye - own @ step, residual))[:, :, 0]
        return z

    def _scalar_step(self, p: Tensor, labels: Tensor, inverse: Tensor) -> Tensor:
        """Return the step with `S_i K_i` replaced by its mean eigenvalue; no C × C system per sample."""
        reach = (p @ inverse.diagonal()) - ((p @ inverse) * p).sum(1)
        own = (self._share * reach / (self.n_classes - 1)).clamp_max(MOST_LEVERAGE)
        return (self._share / (1.0 - own))[:, None] * ((p - labels) @ inverse)

    def _inverse_curvature(self, p: Tensor) -> Tensor:
        """Return the pseudo-inverse of the mean curvature of the classes, `(C, C)`.

        A thousandth of the curvature of evenly predicted classes is added: without it, a class that is
        predicted nowhere would take unbounded steps.
        """
        c = self.n_classes
        mean = torch.diag(p.mean(0)) - p.T @ p / len(p)
        even = torch.full((c, c), 1.0 / c, dtype=p.dtype, device=p.device)
        eye = torch.eye(c, dtype=p.dtype, device=p.device)
        return torch.linalg.inv(mean + even + 1e-3 / c * (eye - even)) - even
