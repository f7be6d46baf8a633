"""Settings of the methods of leaving a sample out: `Newton` and `Retrain`."""

from __future__ import annotations

from typing import Any

from lsi.errors import InputError
from lsi.methods.newton import Newton
from lsi.methods.retrain import Retrain
from lsi.validation.settings import check_choice

__all__ = ["METHODS", "Method", "Newton", "Retrain", "as_method"]

Method = Newton | Retrain
METHODS: dict[str, type[Newton] | type[Retrain]] = {"newton": Newton, "retrain": Retrain}


def as_method(method: Any) -> Method:
    """Return the method with its settings.

    Args:
        method: A name, or a method with settings.

    Returns:
        The method, with default settings if only its name was given.

    Raises:
        InputError: It is neither.
    """
    if isinstance(method, str):
        return METHODS[check_choice("method", method, METHODS)]()
    if not isinstance(method, Newton | Retrain):
        known = "'newton', 'retrain', lsi.Newton(...) or lsi.Retrain(...)"
        raise InputError(f"method must be {known}, got {method!r}.")
    return method
