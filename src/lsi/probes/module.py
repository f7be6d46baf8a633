"""Settings of a probe that is any torch module."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lsi.errors import InputError, nearest
from lsi.probes.network import NetworkProbe


@dataclass(frozen=True, eq=False)
class ModuleProbe(NetworkProbe):
    """Any torch module that maps features `(n, D)` to logits `(n, C)`, row by row.

    It runs in evaluation mode. Parameters that need no gradient stay as they are. Layers that mix
    rows (batch normalisation) or draw at random (dropout) are refused: a sample has no loss of its own there.

    Args:
        module: A module, whose weights every copy starts from; or a function without arguments that makes
            one, called after ``torch.manual_seed(seed)``, which `n_seeds` above 1 needs.
        loss: ``"cross_entropy"``, or a function of logits `(n, C)` and class codes `(n,)` that returns the
            losses `(n,)`, twice differentiable and convex in the logits.

    Raises:
        InputError: No module, no known loss, or settings outside their range.
    """

    module: nn.Module | Callable[[], nn.Module]
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.module, nn.Module) or callable(self.module)):
            raise InputError(
                f"module must be a torch.nn.Module or a function that makes one, got {self.module!r}."
            )
        if not callable(self.loss) and self.loss != "cross_entropy":
            raise InputError(f"loss={self.loss!r} is not known. {nearest(self.loss, ['cross_entropy'])}")

    @property
    def is_fixed(self) -> bool:
        """Whether the start does not depend on a seed."""
        return isinstance(self.module, nn.Module)

    def make(self) -> nn.Module:
        """Return a fresh module in evaluation mode.

        Raises:
            InputError: What the function made is no module.
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
