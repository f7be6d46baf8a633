"""Checks of single settings."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from lsi.errors import InputError, nearest

AUTO = "auto"  # a weight decay that the run chooses
SINGLE_MAX = 3.4e38  # the largest number of single precision, which training runs in


def check_positive(name: str, value: Any, allow_zero: bool = False) -> float:
    """Return a setting, which has to be a positive number that single precision can hold."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan
    if number <= SINGLE_MAX and (number > 0 or (allow_zero and number == 0)):
        return number
    bound = "0 or more" if allow_zero else "greater than 0"
    most = f" and at most {SINGLE_MAX:g}" if SINGLE_MAX < number < math.inf else ""
    raise InputError(f"{name} must be a finite number {bound}{most}, got {value!r}.")


def check_weight_decay(value: Any) -> None:
    """Refuse a weight decay that is neither a finite number from 0 on nor ``"auto"``."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value != AUTO and not (is_number and 0 <= float(value) <= SINGLE_MAX):
        raise InputError(
            f"weight_decay must be a finite number ≥ 0, or 'auto', got {value!r}; the default is 1e-4."
        )


def described_decay(value: Any) -> float | str:
    """Return a weight decay as a JSON value."""
    return AUTO if value == AUTO else float(value)


def check_seed(name: str, value: Any) -> int:
    """Return a seed, which has to be an integer from 0 on."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_whole and int(value) >= 0:
        return int(value)
    raise InputError(f"{name} must be an integer from 0 on, got {value!r}.")


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return a setting, which has to be one of the known names."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    raise InputError(f"{name}={value!r} is not known. {nearest(value, names)}")
