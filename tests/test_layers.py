"""The house stays as it is drawn: every import runs down, none runs in a circle, and the root stays small."""

import ast
import graphlib
from pathlib import Path

import pytest

import lsi

SOURCE = Path(lsi.__file__).parent
# Folders and modules of the root, from bottom to top: each may import only from those named before it.
# "lsi" is the root's own __init__.py, which says where the public names live.
ROOMS = """
    errors divergence system validation methods results execution data features probes posterior loo planning
    run tasks analysis decisions report scores merging noisy_labels pipeline fitted network studies estimator
    lsi cli __main__
""".split()


def modules_of(root):
    """Return the files of a package by the names of their modules."""
    found = {}
    for path in root.rglob("*.py"):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name, path):
    """Yield every name that a module imports, wherever in the module that is."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph_of(root):
    """Return the modules of a package that each of its modules imports."""
    modules = modules_of(root)

    def home(name):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {home(imported) for imported in imports_of(name, path)} - {"", name}
        for name, path in modules.items()
    }


def room_of(module):
    return module.split(".")[1] if "." in module else module


def against_the_stream(root, rooms):
    """Return every import of a room that is not below, and every room that is not in the list."""
    graph = graph_of(root)
    found = {room_of(module) for module in graph}
    faults = [f"{room} is in the list or in the package, not in both" for room in sorted(found ^ set(rooms))]
    floor = {room: rooms.index(room) for room in found & set(rooms)}
    for module, imported in sorted(graph.items()):
        here = floor.get(room_of(module), len(rooms))
        faults += [
            f"{module} imports {other}" for other in sorted(imported) if floor.get(room_of(other), -1) > here
        ]
    return faults


def circle(root):
    """Return the modules of one import circle, in order; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph_of(root)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_room_imports_only_from_rooms_below():
    assert against_the_stream(SOURCE, ROOMS) == []


def test_no_imports_run_in_a_circle():
    assert circle(SOURCE) == []


def test_the_root_holds_at_most_ten_files():
    assert len(list(SOURCE.glob("*.py"))) <= 10


def fake(tmp_path, low, high="", rooms=("low", "high")):
    """Make a package of two rooms."""
    root = tmp_path / "fake"
    for room, text in zip(rooms, (low, high), strict=True):
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").touch()
        (root / room / "module.py").write_text(text)
    (root / "__init__.py").touch()
    return root


UPWARDS = [
    "from fake.high.module import x",
    "from fake.high import module",
    "import fake.high.module",
    "from ..high import module",
    "from ..high.module import x",
    "def f():\n    from fake.high.module import x",
    "class C:\n    def f(self):\n        import fake.high.module as m",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fake.high.module import x",
    "try:\n    from fake.high.module import x\nexcept ImportError:\n    pass",
]


@pytest.mark.parametrize("text", UPWARDS)
def test_an_import_against_the_stream_is_named(tmp_path, text):
    root = fake(tmp_path, text)
    assert against_the_stream(root, ["low", "high", "fake"]) == ["fake.low.module imports fake.high.module"]
    assert against_the_stream(root, ["high", "low", "fake"]) == []


@pytest.mark.parametrize("text", UPWARDS)
def test_a_circle_is_named(tmp_path, text):
    down = "def f():\n    from fake.low.module import y"
    root = fake(tmp_path, text, down)
    assert set(circle(root)) == {"fake.low.module", "fake.high.module"}
    (root / "high" / "module.py").write_text("")
    assert circle(root) == []


def test_a_room_that_is_not_in_the_list_is_named(tmp_path):
    root = fake(tmp_path, "")
    assert against_the_stream(root, ["low", "fake"]) == ["high is in the list or in the package, not in both"]
    missing = against_the_stream(root, ["low", "high", "attic", "fake"])
    assert missing == ["attic is in the list or in the package, not in both"]


def test_a_name_of_the_root_is_above_every_room_but_the_commands(tmp_path):
    root = fake(tmp_path, "from fake import x")
    assert against_the_stream(root, ["low", "fake", "high"]) == ["fake.low.module imports fake"]
