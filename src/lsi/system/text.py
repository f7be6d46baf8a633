"""Text for people: foreign text made safe to show, and sizes and durations in words.

Foreign text is labels, ids and file names. Only characters are made safe here; HTML and terminal markup are
escaped where text is rendered.
"""

from __future__ import annotations

import re
import unicodedata

from lsi.errors import InputError

# Zero-width joiners are needed by emoji and several scripts. Every other format character, such as a
# right-to-left override, can disguise text.
_KEPT = {"\u200c", "\u200d"}
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def plain_text(value: object, limit: int = 80) -> str:
    r"""Return `value` as one line without control, format or surrogate characters.

    Examples:
        >>> plain_text("cat\x1b[31m")
        'cat�[31m'
        >>> plain_text("a\nb")
        'a b'
        >>> plain_text("x" * 9, limit=4)
        'xxx…'
    """
    text = str(value)[: 4 * limit]
    text = " ".join(text.split())
    shown = "".join("\ufffd" if _hidden(character) else character for character in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _hidden(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character).startswith("C")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples:
        >>> counted(1, "feature"), counted(1200, "feature")
        ('1 feature', '1,200 features')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def parse_size(text: str | int | None) -> int | None:
    """Return a number of bytes, such as that of ``"4GiB"``.

    Examples:
        >>> parse_size("1.5 GiB")
        1610612736
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    count = 0 if found is None else int(float(found[1]) * (1 << _UNITS[found[2].upper()]))
    if count <= 0:
        raise InputError(f"memory must be a size such as '4GiB' or a number of bytes, got {text!r}.")
    return count


def duration_text(seconds: float) -> str:
    """Return seconds as short text."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def size_text(count: int) -> str:
    """Return bytes as short text."""
    return f"{count / (1 << 20):.0f} MiB" if count < (1 << 30) else f"{count / (1 << 30):.1f} GiB"
