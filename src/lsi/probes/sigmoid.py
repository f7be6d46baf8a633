"""The sigmoid probe: settings, and a model that the engines use like a softmax model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lsi.features.design import Design
from lsi.probes.softmax.model import SoftmaxModel
from lsi.validation.settings import check_weight_decay, described_decay


@dataclass(frozen=True)
class SigmoidProbe:
    r"""Sigmoid heads, one logit for each label: logistic regression for two classes or for several labels.

    .. math:: \min_\theta \frac{1}{n} \sum_i \sum_l \bigl[\log(1 + e^{z_{il}}) - y_{il} z_{il}\bigr]
              + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2, \qquad z_{il} = \theta_l x_i

    With one label a sample (y is `(N,)` with two classes) there is one head, for the second of the classes
    in sorted order. With several (y is `(N, L)` of zeros and ones, or a list of labels a sample) there are L
    independent heads, and LSI is the sum over them.

    For two classes a `LinearProbe` has two rows of weights whose difference is this head's row. The models
    are the same if the softmax has twice the weight decay. The posteriors differ, because the same prior on
    each row allows the difference twice the variance.

    Args:
        weight_decay: Strength of the penalty on the scale of the mean loss; ``"auto"``: that of the highest
            leave-one-out likelihood, one for all heads.
        fit_intercept: Whether a column of ones is appended to the features.

    Raises:
        InputError: A negative or non-finite weight decay.
    """

    weight_decay: float | Literal["auto"] = 1e-4
    fit_intercept: bool = True

    def __post_init__(self) -> None:
        check_weight_decay(self.weight_decay)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {
            "kind": "sigmoid",
            "weight_decay": described_decay(self.weight_decay),
            "fit_intercept": bool(self.fit_intercept),
        }


@dataclass
class SigmoidModel(SoftmaxModel):
    r"""One sigmoid head, written as a softmax over "no" and "yes".

    The logits are :math:`(-\tfrac12 z, \tfrac12 z)`: the basis :math:`V = (-\tfrac12, \tfrac12)^\top`
    replaces an orthonormal one. Then :math:`V^\top (p - e_y) = \sigma(z) - y`,
    :math:`V^\top S V = \sigma(z)(1 - \sigma(z))`, and θ is the head's own row of weights, so that penalty and
    prior act on it as they should. All that is written in class contrasts holds unchanged.
    """

    @classmethod
    def start(
        cls, design: Design, target: Tensor, weight: Tensor, weight_decay: float, n_classes: int = 2
    ) -> SigmoidModel:
        """Return the untrained head: all weights zero.

        Shapes: design `(N, D)`, target `(N,)`, weight `(N,)`.
        """
        basis = torch.tensor([[-0.5], [0.5]], dtype=torch.float64, device=design.device)
        theta = torch.zeros((1, design.n_features), dtype=torch.float64, device=design.device)
        return cls(design, target, weight, weight_decay, basis, theta)

    @property
    def outputs(self) -> Tensor:
        """The number one: the head has a single row of weights."""
        return torch.ones_like(self.contrasts[:1])

    @property
    def observed(self) -> slice:
        """The probability of "yes"."""
        return slice(1, 2)
