"""Settings of networks as probes: `MLPProbe` and `ModuleProbe`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lsi.errors import InputError, nearest
from lsi.methods.retrain import Retrain
from lsi.validation.settings import check_choice, check_positive

LAYERS = ("all", "last")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    r"""A network that is trained on the features.

    .. math:: \frac{1}{n} \sum_i \ell_i(\theta) + \tfrac12\, \mathrm{weight\_decay}\, \|\theta\|^2

    where :math:`\ell_i(\theta)` is the loss of sample i at the weights :math:`\theta`.

    Args:
        weight_decay: Strength of the penalty on the scale of the mean loss, for all weights, as in
            ``torch.optim.SGD``.
        posterior_layers: Weights that the posterior is over: ``"all"``, or those of the ``"last"`` layer.
        dtype: Type to train in. ReLU networks amplify rounding errors: in ``"float32"`` scores of the same
            data differ by several per cent between machines, in ``"float64"`` they do not.
        training: With ``method="newton"``: how the network is trained, once, before the leave-one-out
            optima of its last layer are found; None: ``Retrain()``.
        compare_whole: With ``method="newton"``: number of whole networks to train again, to measure how
            well the last layer ranks samples; none with ``audit=False``.

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


@dataclass(frozen=True, eq=False)
class MLPProbe(NetworkProbe):
    """A perceptron with cross-entropy loss.

    Its initial weights are those of ``torch.manual_seed(seed)``, then its `torch.nn.Linear` layers in order.
    The settings of `NetworkProbe` are keyword arguments here, too.

    Args:
        hidden: Widths of the hidden layers; a number means one layer, `()` none.
        activation: ``"relu"``, ``"tanh"``, ``"gelu"`` or ``"sigmoid"``.
        fit_intercept: Whether the layers have a bias.
        weight_decay: L2 penalty on all weights, on the scale of the mean loss.
        posterior_layers: Which weights the posterior covers: ``"all"``, or those of the ``"last"`` layer.
        dtype: ``"float64"`` or ``"float32"``, the type to train in; rectified networks amplify
            rounding.
        training: With ``method="newton"``: how the whole network is trained; None: ``Retrain()``.
        compare_whole: With ``method="newton"``: how many whole networks are trained again, to measure how
            well the last layer ranks.

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
            raise InputError(f"hidden must be widths of at least 1, such as (64, 32), got {self.hidden!r}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        own = {"hidden": list(self.widths), "activation": self.activation}
        return {"kind": "mlp", **own, "fit_intercept": bool(self.fit_intercept), **super().describe()}


def mlp_module(widths: Sequence[int], activation: str, bias: bool = True) -> nn.Sequential:
    """Return a fresh perceptron; its layers draw their weights in order."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow, bias=bias), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True, eq=False)
class ModuleProbe(NetworkProbe):
    """Any torch module that maps features `(n, D)` to logits `(n, C)`, row by row.

    The module runs in evaluation mode. Parameters that need no gradient are not trained. Layers that mix
    rows (batch normalisation) or draw at random (dropout) are refused, because a sample has no loss of its
    own there. The settings of `NetworkProbe` are keyword arguments here, too.

    Args:
        module: A module, whose weights every copy starts from; or a function without arguments that returns
            one. The function is called after ``torch.manual_seed(seed)``; `n_seeds` above 1 needs it.
        loss: ``"cross_entropy"``, or a function of logits `(n, C)` and class codes `(n,)` that returns the
            losses `(n,)`, twice differentiable and convex in the logits.
        weight_decay: L2 penalty on all weights, on the scale of the mean loss.
        posterior_layers: Which weights the posterior covers: ``"all"``, or those of the ``"last"`` layer.
        dtype: ``"float64"`` or ``"float32"``, the type to train in; rectified networks amplify
            rounding.
        training: With ``method="newton"``: how the whole network is trained; None: ``Retrain()``.
        compare_whole: With ``method="newton"``: how many whole networks are trained again, to measure how
            well the last layer ranks.

    Raises:
        InputError: No module, an unknown loss, or settings outside their range.
    """

    module: nn.Module | Callable[[], nn.Module]
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.module, nn.Module) or callable(self.module)):
            raise InputError(
                f"module must be a torch.nn.Module or a function that returns one, got {self.module!r}."
            )
        if not callable(self.loss) and self.loss != "cross_entropy":
            raise InputError(f"loss={self.loss!r} is not known. {nearest(self.loss, ['cross_entropy'])}")

    @property
    def is_fixed(self) -> bool:
        """Whether the initial weights are the same for every seed."""
        return isinstance(self.module, nn.Module)

    def make(self) -> nn.Module:
        """Return a fresh module in evaluation mode.

        Raises:
            InputError: The function returned something else.
        """
        if isinstance(self.module, nn.Module):
            return deepcopy(self.module).cpu().eval()
        made = self.module()
        if not isinstance(made, nn.Module):
            raise InputError(f"the function given as module must return a torch.nn.Module, got {made!r}.")
        return made.eval()

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", repr(self.loss))
        kind = type(self.module).__name__ if self.is_fixed else getattr(self.module, "__name__", "function")
        return {"kind": "module", "module": kind, "loss": loss, **super().describe()}
