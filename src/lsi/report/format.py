"""Numbers and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lsi.system.text import plain_text

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Return `value` with three significant digits.

    Examples:
        >>> number(1234.5), number(0.01234), number(3.21e-7), number(None)
        ('1,234', '0.0123', '3.2×10⁻⁷', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if size and (size < 1e-3 or size >= 1e7):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    if size >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(size)) if size else 0
    return f"{value:.{max(digits, 0)}f}"


def percent(share: float | None) -> str:
    """Return a share as per cent with two significant digits.

    Examples:
        >>> [percent(share).replace("\u202f", " ") for share in (0.1234, 0.00012, 0.9999)]
        ['12 %', '0.012 %', 'over 99 %']
    """
    if share is None or not math.isfinite(share):
        return "–"
    value = 100 * share
    if 99.5 <= value < 100:
        return "over 99\u202f%"
    if value == 0 or value >= 10:
        return f"{value:,.0f}\u202f%"
    if value < 1e-3:
        return "below 0.001\u202f%"
    return f"{value:.{1 - math.floor(math.log10(value))}f}\u202f%"


def duration(seconds: float) -> str:
    """Return a time span in a unit that suits it.

    Examples:
        >>> duration(0.0421), duration(7.2), duration(150), duration(9000)
        ('42 ms', '7.2 s', '2.5 min', '2.5 h')
    """
    for limit, size, unit in ((1, 1e-3, "ms"), (100, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit == "ms" or value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def settings(config: object) -> str:
    """Return the settings of a probe or method as one line.

    Examples:
        >>> settings({"name": "newton", "tol": 0.01, "solver": "auto"})
        'newton (tol 0.01, solver auto)'
    """
    if not isinstance(config, Mapping):
        return plain_text(config)
    names: Mapping[str, Any] = dict(config)
    title = next((str(names[key]) for key in ("name", "kind", "type") if key in names), "")
    rest = [
        f"{key.replace('_', ' ')} {_setting(value)}"
        for key, value in names.items()
        if key not in ("name", "kind", "type")
        and (value is not None or key == "tol")
        and not (key.startswith("added") and value == 0)  # nothing was added
    ]
    return plain_text(f"{title} ({', '.join(rest)})" if rest else title, limit=300).strip()


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
