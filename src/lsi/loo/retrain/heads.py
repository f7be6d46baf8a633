r"""Linear heads trained by the published protocol, many at a time, every epoch of every head.

With the gradient :math:`g_t` of a head's mean loss, an epoch is that of ``torch.optim.SGD``:

.. math:: g \leftarrow g_t + \mathrm{wd}\, \theta_t, \qquad v_{t+1} = \mu v_t + g, \qquad
          \theta_{t+1} = \theta_t - \eta\, (g + \mu v_{t+1}) \text{ with Nesterov's momentum, else }
          \theta_t - \eta\, v_{t+1},

where :math:`v_0 = 0`, μ is `momentum` and η is `lr`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.loo.retrain.copies import Record
from lsi.methods.retrain import Retrain
from lsi.probes.softmax.model import SoftmaxModel


def initial_weights(seed: int, n_inputs: int, n_classes: int, fit_intercept: bool) -> Tensor:
    """Return the weights of a fresh ``torch.nn.Linear``, `(C, D)` with the intercept last, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(n_inputs, n_classes, bias=fit_intercept)
    weight = layer.weight.detach()
    return torch.cat([weight, layer.bias.detach()[:, None]], 1) if fit_intercept else weight.clone()


class HeadTrainer:
    """Trains B heads at a time, each on all samples but one (or on all).

    Heads are kept as one `(D, C·B)` matrix, so that an epoch is two matrix products and a softmax.

    Args:
        model: Data and objective, in original coordinates.
        settings: The protocol.
    """

    def __init__(self, model: SoftmaxModel, settings: Retrain) -> None:
        self.model, self.settings = model, settings

    def train(
        self,
        start: Tensor,
        index: Tensor,
        tick: Callable[[], None] | None = None,
        record: Record | None = None,
        at: Collection[int] | None = None,
    ) -> Tensor:
        """Return the trained heads `(B, C, D)`; an index of −1 leaves no sample out.

        `record` is called after the epochs `at`, or where the settings record if that is None.

        Shapes: start `(C, D)`, index `(B,)`.
        """
        model, s = self.model, self.settings
        c, b = model.n_classes, len(index)
        dtype = model.design.dtype
        theta = start.to(dtype).T[:, :, None].expand(-1, -1, b).reshape(-1, c * b).contiguous()
        v = torch.zeros_like(theta)
        removed = (index >= 0).to(dtype)
        mean = (1.0 / (model.n_samples - removed)).repeat(c)
        for epoch in range(s.epochs):
            g = self._gradient(theta, index, c, b).mul_(mean).add_(theta, alpha=model.weight_decay)
            v = g.clone() if epoch == 0 else v.mul_(s.momentum).add_(g)
            if s.nesterov:
                g.add_(v, alpha=s.momentum)
            theta.sub_(g if s.nesterov else v, alpha=s.lr)
            if tick is not None:
                tick()
            if record is not None and (s.records(epoch + 1) if at is None else epoch + 1 in at):
                record(epoch + 1, theta.view(-1, c, b).permute(2, 1, 0).contiguous())
        if not bool(theta.isfinite().all()):
            raise ConvergenceError(
                f"Training diverged within {s.epochs} epochs at lr={s.lr}: lower it, or standardise X."
            )
        return theta.view(-1, c, b).permute(2, 1, 0).contiguous()

    def _gradient(self, theta: Tensor, index: Tensor, c: int, b: int) -> Tensor:
        """Return `Σ_j w_j (p_j − e_y) ⊗ x_j` over the samples of every head, `(D, C·B)`."""
        model = self.model
        gradient = torch.zeros_like(theta)
        # The logits of one block stay in cache; larger ones would be read from memory at every epoch.
        rows_at_once = max(64, (1 << 20) // (c * b))
        for rows, x in model.design.blocks(rows_at_once):
            residual = torch.softmax((x @ theta).view(len(x), c, b), 1)
            residual[torch.arange(len(x), device=x.device), model.target[rows]] -= 1.0
            inside = (index >= rows.start) & (index < rows.stop)
            residual[index[inside] - rows.start, :, inside.nonzero()[:, 0]] = 0.0
            if not model.unweighted:
                residual.mul_(model.weight[rows, None, None].to(residual.dtype))
            gradient.addmm_(x.T, residual.view(len(x), c * b))
        return gradient
