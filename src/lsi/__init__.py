"""Laplace Sample Information: how much each training sample tells a model, in nats.

Names are imported when they are first used, so that `lsi --help` does not wait for torch. `__init__.pyi`
says where each one lives: type checkers and editors read it as the package's interface, and this module
reads it to know what to import. No table in this file could serve both, as checkers do not follow a
dictionary, and imports under TYPE_CHECKING do not exist at run time.
"""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_STUB = ast.parse(Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8"))
_HOME = {
    name.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for name in node.names
}
__all__ = sorted(name for name in _HOME if not name.startswith("_"))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"lsi.{name}"):  # `lsi.data` without `import lsi.data`
        return import_module(f"lsi.{name}")
    raise AttributeError(f"module 'lsi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
