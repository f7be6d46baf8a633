"""What a leave-one-out engine returns: aligned arrays, one entry a left-out sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


@dataclass
class LooResult:
    """Leave-one-out quantities of the scored samples, in the order asked for.

    Attributes:
        mean_term: Nats, `(n_scored,)` float64.
        covariance_term: Nats.
        loo_probability: Probability of the given label without the sample.
        loo_prediction: Class code that is most likely without the sample.
        leverage: `tr(S_i Q_i)`; NaN for methods that give none.
        relative_error: The certificate, an upper estimate of `|lsi − exact| / exact`, where `exact` is the
            sample's LSI at its true leave-one-out optimum. It is an estimate and not a bound: the audit
            measures how often it holds. Infinite where the engine did not reach that optimum, so that nothing
            is known; NaN where the method estimates no error: `Newton(tol=None)`, and `Retrain`, which stops
            before any optimum.
        extra: Further columns of the table, by name.
        done: Which entries hold a result; in one shard of a run, its own.
    """

    mean_term: np.ndarray
    covariance_term: np.ndarray
    loo_probability: np.ndarray
    loo_prediction: np.ndarray
    leverage: np.ndarray
    relative_error: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    done: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=bool), kw_only=True)

    def __post_init__(self) -> None:
        if not len(self.done):
            self.done = np.ones(len(self.mean_term), dtype=bool)

    @classmethod
    def empty(cls, n: int) -> LooResult:
        """Return a result of NaN to be filled block by block."""
        values: dict[str, Any] = {name: np.full(n, np.nan) for name in cls._columns()}
        values["loo_prediction"] = np.full(n, -1, dtype=np.int64)
        return cls(**values, done=np.zeros(n, dtype=bool))

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> LooResult:
        """Return the result that `arrays` gave the columns of."""
        values: dict[str, Any] = dict(columns)
        return cls(**values)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the columns by name, apart from `extra`."""
        return {name: getattr(self, name) for name in self._columns()}

    @property
    def lsi(self) -> np.ndarray:
        """The score, `mean_term + covariance_term`, in nats."""
        return self.mean_term + self.covariance_term

    def put(self, where: slice | np.ndarray, part: LooResult) -> None:
        """Write the entries of a block."""
        for name in self._columns():
            getattr(self, name)[where] = getattr(part, name)
        self.done[where] = True

    def select(self, keep: np.ndarray) -> LooResult:
        """Return the entries picked by a mask or an index."""
        extra = {name: column[keep] for name, column in self.extra.items()}
        columns: dict[str, Any] = {name: column[keep] for name, column in self.arrays().items()}
        return replace(self, **columns, extra=extra, done=self.done[keep])

    @classmethod
    def _columns(cls) -> list[str]:
        return [each.name for each in fields(cls) if each.name not in ("extra", "done")]
