"""Settings that every probe with hidden layers has."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import torch

from lsi.errors import InputError
from lsi.problem import check_choice, check_positive

if TYPE_CHECKING:
    from lsi.loo.retrain import Retrain

LAYERS = ("all", "last")
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    r"""A network that is trained on the features.

    .. math:: \frac{1}{n} \sum_i \ell_i(\theta) + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2

    Args:
        weight_decay: On the scale of the mean loss, for all weights, as in ``torch.optim.SGD``.
        posterior_layers: Which weights the posterior is over: ``"all"``, or those of the ``"last"`` layer.
        dtype: Type to train in. Rectified networks amplify rounding: in ``"float32"`` scores of the same data
            differ by several per cent from machine to machine, in ``"float64"`` they do not.
        training: With ``method="newton"``: how the network is trained, once, before the leave-one-out
            optima of its last layer are found; None: ``Retrain()``.
        compare_whole: With ``method="newton"``: how many whole networks are trained again, to measure how
            well the last layer ranks; none with ``audit=False``.

    Raises:
        InputError: Settings outside their range.
    """

    _: KW_ONLY
    weight_decay: float = 1e-4
    posterior_layers: str = "all"
    dtype: str = "float64"
    training: Retrain | None = None
    compare_whole: int = 16

    def __post_init__(self) -> None:
        check_positive("weight_decay", self.weight_decay, allow_zero=True)
        check_choice("posterior_layers", self.posterior_layers, LAYERS)
        check_choice("dtype", self.dtype, DTYPES)
        if self.compare_whole < 0:
            raise InputError(f"compare_whole must be 0 or more, got {self.compare_whole!r}.")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type to train in."""
        return DTYPES[self.dtype]

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {
            "weight_decay": float(self.weight_decay),
            "posterior_layers": self.posterior_layers,
            "dtype": self.dtype,
            "training": None if self.training is None else self.training.describe(),
            "compare_whole": self.compare_whole,
        }
