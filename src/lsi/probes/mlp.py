"""Settings of the multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from lsi.errors import InputError
from lsi.probes.network import NetworkProbe
from lsi.problem import check_choice

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


def mlp_module(widths: Sequence[int], activation: str, bias: bool = True) -> nn.Sequential:
    """Return a fresh perceptron; its layers draw their weights in order.

    Args:
        widths: Input, hidden layers, output.
        activation: A key of `ACTIVATIONS`.
        bias: Whether layers have one.
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow, bias=bias), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True, eq=False)
class MLPProbe(NetworkProbe):
    """A perceptron with cross-entropy loss.

    Its initial weights are those of ``torch.manual_seed(seed)``, then its `torch.nn.Linear` layers in order.

    Args:
        hidden: Widths of the hidden layers; a number is one layer, `()` none.
        activation: ``"relu"``, ``"tanh"``, ``"gelu"`` or ``"sigmoid"``.
        fit_intercept: Whether the layers have a bias.

    Raises:
        InputError: Settings outside their range.
    """

    hidden: Sequence[int] | int = (32,)
    activation: str = "relu"
    fit_intercept: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("activation", self.activation, ACTIVATIONS)
        if not all(width >= 1 for width in self.widths):
            raise InputError(f"hidden must be widths of at least 1, as (64, 32), got {self.hidden!r}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        own = {"hidden": list(self.widths), "activation": self.activation}
        return {"kind": "mlp", **own, "fit_intercept": bool(self.fit_intercept), **super().describe()}
