"""The page's style and scripts: small files, joined in a fixed order, and the hash that admits them."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

STYLES = ("base", "charts", "cards", "controls", "tables", "small", "print")
"""Later files override earlier ones."""
SCRIPTS = (
    "dom",
    "text",
    "data",
    "state",
    "cards",
    "histogram",
    "gallery",
    "decisions",
    "files",
    "suspects",
    "rows",
    "table",
    "classes",
    "sorting",
    "groups",
    "main",
)
"""A file uses only what stands before it; the last one starts the page."""


@cache
def style() -> str:
    """Return the page's style sheet."""
    return "\n".join(_read("style", f"{name}.css") for name in STYLES)


@cache
def script() -> str:
    """Return the page's program as one function, so that it leaves no names behind."""
    parts = "\n".join(_read("script", f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


def script_hash() -> str:
    """Return the hash by which the page's security policy admits its program, and no other."""
    digest = hashlib.sha256(script().encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _read(folder: str, name: str) -> str:
    path = files("lsi.report").joinpath("templates", folder, name)
    return path.read_text(encoding="utf-8").replace("\r\n", "\n").strip()
