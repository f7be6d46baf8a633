"""What a leave-one-out engine returns: aligned columns, one entry for each left-out sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.probes.softmax.model import SoftmaxModel


@dataclass
class LooResult:
    """Leave-one-out quantities of the scored samples, in the order in which the samples were requested.

    Attributes:
        mean_term: Nats, `(n_scored,)` float64.
        covariance_term: Nats.
        loo_probability: Probability of the given label under the model without the sample.
        loo_prediction: Code of the most likely class under the model without the sample.
        leverage: `tr(S_i Q_i)`; NaN where the method gives none.
        relative_error: The certificate, an upper estimate of `|lsi − exact| / exact`, where `exact` is the
            sample's LSI at its true leave-one-out optimum. It is an estimate and not a bound: the audit
            measures how often it holds. Infinite where the engine did not reach that optimum, so that nothing
            is known; NaN where the method estimates no error: `Newton(tol=None)`, and `Retrain`, which stops
            before any optimum.
        first_order: LSI of the first-order step, nats; NaN where the method takes none.
        extra: Further columns of the table, by name.
        done: Which entries hold a result; in one shard of a run, only its own.
    """

    mean_term: np.ndarray
    covariance_term: np.ndarray
    loo_probability: np.ndarray
    loo_prediction: np.ndarray
    leverage: np.ndarray
    relative_error: np.ndarray
    first_order: np.ndarray = field(default_factory=lambda: np.ones(0), kw_only=True)
    extra: dict[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    done: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=bool), kw_only=True)

    def __post_init__(self) -> None:
        if not len(self.done):
            self.done = np.ones(len(self.mean_term), dtype=bool)
        if not len(self.first_order):
            self.first_order = np.full(len(self.mean_term), np.nan)

    @classmethod
    def empty(cls, n: int, *extra: str) -> LooResult:
        """Return a result of NaN to be filled block by block; `extra` names further columns."""
        values: dict[str, Any] = {name: np.full(n, np.nan) for name in cls._columns()}
        values["loo_prediction"] = np.full(n, -1, dtype=np.int64)
        further = {name: np.full(n, np.nan) for name in extra}
        return cls(**values, extra=further, done=np.zeros(n, dtype=bool))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all columns by name, the extra ones last."""
        return {name: getattr(self, name) for name in self._columns()} | self.extra

    @property
    def lsi(self) -> np.ndarray:
        """The score, `mean_term + covariance_term`, in nats."""
        return self.mean_term + self.covariance_term

    @property
    def gap(self) -> np.ndarray:
        """How far the first-order value is from the final one, relative to the smaller of both."""
        least = np.maximum(np.minimum(self.lsi, self.first_order), np.finfo(np.float64).tiny)
        return np.abs(self.lsi - self.first_order) / least

    def put(self, where: slice | np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Write columns of a block of entries, and mark the entries as done."""
        own = self.arrays()
        for name, column in columns.items():
            own[name][where] = column
        self.done[where] = True

    def select(self, keep: np.ndarray) -> LooResult:
        """Return the entries picked by a mask or an index."""
        extra = {name: column[keep] for name, column in self.extra.items()}
        columns: dict[str, Any] = {name: getattr(self, name)[keep] for name in self._columns()}
        return replace(self, **columns, extra=extra, done=self.done[keep])

    @classmethod
    def _columns(cls) -> list[str]:
        return [each.name for each in fields(cls) if each.name not in ("extra", "done")]


def loo_prediction(
    model: SoftmaxModel, index: Tensor, delta: Tensor, logit_shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the label's probability and the most likely class of each sample at `θ + δ_i`.

    Shapes: both `(B,)`, index `(B,)`, delta `(B, C', D)`; logit_shift, what a correction of δ adds to the
    logits in class contrasts, `(B, C')`.
    """
    x = model.design.take(index).to(torch.float64)
    # x_iᵀ(θ + δ_i) in class contrasts, then in classes
    logits = x @ model.theta.T + (delta.to(torch.float64) @ x[:, :, None])[:, :, 0]
    if logit_shift is not None:
        logits = logits + logit_shift
    p = torch.softmax(logits @ model.contrasts.T, -1)
    return p.gather(1, model.target[index][:, None])[:, 0], p.argmax(-1)
