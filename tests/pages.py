"""The pages of the documentation as tests read them: what they name, and whether it is there."""

import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])
DOTTED = re.compile(r"\blsi(?!\.toml\b)(?:\.[A-Za-z_]\w*)+")  # lsi.toml is a file
TEST = re.compile(r"\btests/[\w/]+\.py::\w+")


def spans(text):
    """Return the pieces of inline code."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def resolve(path):
    """Return what a dotted path names, or raise AttributeError.

    A field of a dataclass without a default is no attribute of its class, but annotated there.
    """
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for depth, name in enumerate(parts[1:], 2):
        module = ".".join(parts[:depth])
        if hasattr(found, "__path__") and not hasattr(found, name) and find_spec(module):
            found = importlib.import_module(module)
        elif name in getattr(found, "__annotations__", {}) and not hasattr(found, name):
            found = found.__annotations__[name]
        else:
            found = getattr(found, name)
    return found


def functions_in(file):
    """Return the names of the test functions in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def tables(text, first):
    """Return the rows, as lists of cells, of all tables whose first column has this heading."""
    rows, taken = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            taken = False
        elif cells[0] == first:
            taken = True
        elif taken and not set(line) <= set("|-: "):
            rows.append(cells)
    return rows
