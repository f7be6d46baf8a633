import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsi.system.text import counted, plain_text


@given(st.text(alphabet=st.characters(codec=None), max_size=300), st.integers(2, 90))
def test_result_is_one_short_printable_line(text, limit):
    shown = plain_text(text, limit)
    assert len(shown) <= limit
    hidden = [c for c in shown if unicodedata.category(c).startswith("C") and c not in "\u200c\u200d"]
    assert hidden == []
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("cat", "cat"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("a\r\nb\tc", "a b c"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("\udcff", "\ufffd"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        (3, "3"),
    ],
)
def test_known_cases(given_text, shown):
    assert plain_text(given_text) == shown


def test_one_has_no_plural():
    assert [counted(n, "row") for n in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]
