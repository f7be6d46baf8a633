"""Checks of single settings."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

from lsi.errors import InputError, nearest


def check_positive(name: str, value: Any, allow_zero: bool = False) -> float:
    """Return a setting, which has to be a positive finite number."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan
    if math.isfinite(number) and (number > 0 or (allow_zero and number == 0)):
        return number
    bound = "0 or more" if allow_zero else "greater than 0"
    raise InputError(f"{name} must be a finite number {bound}, got {value!r}.")


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return a setting, which has to be one of the known names."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    raise InputError(f"{name}={value!r} is not known. {nearest(value, names)}")
