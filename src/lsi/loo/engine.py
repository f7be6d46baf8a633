"""The contract of all leave-one-out engines."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.result import LooResult


class Engine(ABC):
    r"""Scores samples by the models trained without each of them, fast; and a few of them by brute force.

    The two agree: for positions :math:`i_1, \dots, i_n` of samples, and every k,

    .. math:: |\mathrm{run}(i).\mathrm{lsi}_k - \mathrm{exact}(i)_k|
              \le \mathrm{run}(i).\mathrm{relative\_error}_k \cdot \mathrm{exact}(i)_k

    where a relative error is given; where it is NaN, both are the same number computed in two ways, and
    differ by rounding, or by the approximation that the settings asked for. `tests/loo/test_contract.py`
    holds every engine to this.

    Attributes:
        audit_block: How many samples `exact` leaves out in one call: what a worker does at a time.
        trusts: What `exact` takes from the run, as the end of a sentence.
        resolution: Relative error that `exact` itself may have.
    """

    audit_block: int = 1
    trusts: str = "the run's fit of all samples and its precision"
    resolution: float = 1e-6

    @abstractmethod
    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the result of the samples at `index`, in that order. Shapes: index `(n,)`."""

    @abstractmethod
    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI by brute force, in nats, under the name `exact`; call it after `run`.

        It trusts nothing that makes `run` fast. NaN where brute force does not converge either.

        Shapes: positions `(n,)`, exact `(n,)`.
        """
