"""Foreign text (labels, ids, file names) made safe to show on a terminal or a page.

This is about characters only; HTML and terminal markup are escaped where text is rendered.
"""

from __future__ import annotations

import unicodedata

# Zero-width joiners hold emoji and several scripts together; every other format character
# (right-to-left overrides among them) can make text look like what it is not.
_KEPT = {"\u200c", "\u200d"}


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
