"""Rows as compact text for the page's scripts: typed arrays in base64, ids without shared prefixes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

_INTEGERS = (("i1", np.int8), ("i2", np.int16), ("i4", np.int32))
_LARGEST_PREFIX = 255
_EXACT = 2**53
"""Integers up to here are exact in a browser."""


def pack(values: np.ndarray) -> dict[str, str]:
    """Encode a column as little-endian numbers in base64.

    Integers take the smallest of 1, 2 or 4 bytes that holds them all, everything else float32.

    Examples:
        >>> pack(np.array([0, 1, -1]))
        {'type': 'i1', 'data': 'AAH/'}

    Shapes: values `(n,)`.
    """
    values = np.asarray(values)
    if values.dtype == bool:
        values = values.astype(np.int8)
    if np.issubdtype(values.dtype, np.integer):
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        for name, kind in _INTEGERS:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return {"type": name, "data": _base64(values.astype(np.dtype(kind).newbyteorder("<")))}
    with np.errstate(over="ignore", under="ignore"):
        return {"type": "f4", "data": _base64(values.astype("<f4"))}


def pack_ids(ids: Sequence[Any]) -> dict[str, Any]:
    """Encode identities exactly, so that decisions can be traced back to samples.

    Examples:
        >>> pack_ids([3, 4, 5])
        {'kind': 'range', 'start': 3}
        >>> pack_ids(["cat/1.png", "cat/2.png"])["rest"]
        ['cat/1.png', '2.png']
    """
    if all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in ids):
        numbers = np.array([int(i) for i in ids], dtype=object)
        if len(numbers) and (np.diff(numbers) == 1).all() and abs(int(numbers[0])) < _EXACT - len(numbers):
            return {"kind": "range", "start": int(numbers[0])}
        if all(-(2**31) <= i < 2**31 for i in numbers):
            return {"kind": "number", **pack(numbers.astype(np.int64))}
    texts = [str(i) for i in ids]
    shared = [_shared(a, b) for a, b in zip(["", *texts], texts, strict=False)]
    rest = [text[count:] for text, count in zip(texts, shared, strict=True)]
    return {"kind": "text", "shared": pack(np.array(shared, dtype=np.int64)), "rest": rest}


def script_json(value: Any) -> str:
    r"""Return JSON that can stand inside a ``<script type="application/json">`` element.

    Everything outside ASCII is escaped (such as U+2028, U+2029, direction marks and lone surrogates), and so
    are ``<``, ``>`` and ``&``: no text can end the element or open another.

    Examples:
        >>> print(script_json("</script>\u2028&"))
        "\u003c/script\u003e\u2028\u0026"
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&\x7f":  # none of them means anything to JSON outside of a string
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _shared(before: str, text: str) -> int:
    """Return the length of the shared prefix of two texts; it ends before any surrogate pair."""
    count = 0
    for a, b in zip(before[:_LARGEST_PREFIX], text, strict=False):
        if a != b or ord(a) > 0xFFFF:
            break
        count += 1
    return count
