"""What docstrings have to hold: full sections on everything public, one line with shapes on everything else.

Public is what `lsi` and the packages that a page tells users to import from list in `__all__`, and what
docs/reference/api.md shows, with the methods shown there. The `__all__` of other packages is what packages
offer each other: sections are welcome there, as in contracts (abstract classes and protocols), but not
required. The linter cannot tell these apart.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from tests.docstrings import class_faults, faults_of, function_faults, sectioned

import lsi
from lsi.errors import ConvergenceError, InputError, OutputError

ROOT = Path(lsi.__file__).parent
PAGES = Path(__file__).parents[1] / "docs"
API_PAGE = (PAGES / "reference" / "api.md").read_text(encoding="utf-8")
# The formula that everything serves, and the contract of blocks of work: in full, though users call neither.
CONTRACT_MODULES = {"divergence.py", "execution/work.py"}


def listed(modules):
    """Return what `__all__` of these modules names: dotted name → object."""
    return {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__
    }


def packages():
    """Return the packages below `lsi` that have an `__all__`."""
    folders = [path.parent.relative_to(ROOT) for path in sorted(ROOT.glob("*/**/__init__.py"))]
    modules = [importlib.import_module(".".join(["lsi", *folder.parts])) for folder in folders]
    return [module for module in modules if hasattr(module, "__all__")]


def packages_in_the_docs():
    """Return those that a page tells users to import from."""
    pages = [PAGES.parent / "README.md", *PAGES.rglob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    return [module for module in packages() if f"from {module.__name__} import" in text]


def on_the_api_page():
    """Return what the API page shows: dotted name → object, and whether its methods are shown."""
    blocks = re.findall(r"^::: (lsi[\w.]*)\n((?:[ ]{4}.*\n)*)", API_PAGE + "\n", re.M)
    return {name: (pkgutil.resolve_name(name), "members: false" not in options) for name, options in blocks}


def once(named):
    """Return the shortest name of each object only."""
    shortest = {}
    for name, thing in sorted(named.items(), key=lambda pair: (len(pair[0]), pair[0])):
        shortest.setdefault(id(thing), (name, thing))
    return dict(shortest.values())


PAGE = on_the_api_page()
SHOWN = once(listed([lsi, *packages_in_the_docs()]) | {name: thing for name, (thing, _) in PAGE.items()})
WITH_METHODS = {id(thing) for thing, methods_too in PAGE.values() if methods_too}
OFFERED = once(listed([lsi, *packages()])) | SHOWN


@pytest.mark.parametrize("name", SHOWN)
def test_public_objects_have_full_docstrings(name):
    assert not faults_of(name, SHOWN[name], id(SHOWN[name]) in WITH_METHODS)


def test_the_api_page_shows_everything_in_all():
    shown = {id(thing) for thing, _ in PAGE.values()}
    errors = {name for name in lsi.__all__ if name.endswith("Error")}  # one entry: the module
    assert not [name for name in lsi.__all__ if id(getattr(lsi, name)) not in shown and name not in errors]


def offered_by(module):
    """Return the names in a module that are offered to others, classes with those they inherit from."""
    kinds = [kind for thing in OFFERED.values() if inspect.isclass(thing) for kind in thing.__mro__]
    things = [*kinds, *OFFERED.values()]
    return {thing.__qualname__ for thing in things if getattr(thing, "__module__", None) == module}


def test_internal_functions_have_no_sections():
    from lsi.cli.app import app

    commands = {function.__name__ for function in _command_functions(app)}
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.relative_to(ROOT).as_posix() in CONTRACT_MODULES:
            continue
        module = ".".join(["lsi", *(parts[:-1] if parts[-1] == "__init__" else parts)])
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shown = commands if parts[0] == "cli" else ()
        found += [f"{module}.{name}: {heads}" for name, heads in sectioned(tree, offered_by(module), shown)]
    assert not found


def _command_functions(app):
    for name in app:
        command = app[name]
        if callable(command.default_command):
            yield command.default_command
        if not name.startswith("-"):
            yield from _command_functions(command)


def whole(values, *, scale=1.0):
    """Return values on another scale.

    Args:
        values: `(N,)` numbers.
        scale: What each is multiplied by.

    Returns:
        `(N,)` numbers.

    Raises:
        InputError: The scale is zero.
    """
    if not scale:
        raise InputError("scale must not be 0.")
    return [value * scale for value in values]


def undocumented(values): ...


def lacks_a_parameter(values, *, scale=1.0) -> list:
    """Return values.

    Args:
        values: `(N,)` numbers.

    Returns:
        `(N,)` numbers.
    """


def explains_too_much(values) -> None:
    """Print values.

    Args:
        values: `(N,)` numbers.
        scale: Gone since long.
    """


def lacks_returns(values) -> list:
    """Return values.

    Args:
        values: `(N,)` numbers.
    """


def lacks_raises() -> None:
    """Fail."""
    if whole:
        raise OutputError("no room")


def names_another_error() -> None:
    """Fail.

    Raises:
        InputError: Never.
    """
    raise ConvergenceError("no optimum")


@dataclasses.dataclass
class LacksAField:
    """Settings.

    Attributes:
        width: Of the layer.
    """

    width: int = 1
    depth: int = 1

    def __post_init__(self):
        if self.width < 1:
            raise InputError("width must be at least 1.")


class LacksAnArgument:
    """A thing."""

    def __init__(self, size):
        self.size = size

    def grow(self, by):
        """Grow."""


@pytest.mark.parametrize(
    ("thing", "faults"),
    [
        (whole, []),
        (undocumented, ["no docstring"]),
        (lacks_a_parameter, ["parameter scale is not in Args"]),
        (explains_too_much, ["Args explains scale, which is no parameter"]),
        (lacks_returns, ["no Returns"]),
        (lacks_raises, ["raises OutputError, which Raises does not say"]),
        (names_another_error, ["raises ConvergenceError, which Raises does not say"]),
    ],
)
def test_a_fault_of_a_function_is_found(thing, faults):
    assert function_faults(thing) == faults


def test_faults_of_a_class_and_its_methods_are_found():
    fields = ["depth is in neither Args nor Attributes", "raises InputError, which Raises does not say"]
    assert class_faults(LacksAField) == fields
    assert faults_of("Thing", LacksAnArgument) == [
        "Thing: size is in neither Args nor Attributes",
        "Thing.grow: parameter by is not in Args",
    ]


INTERNAL = '''
def helper(x):
    """Return x.

    Args:
        x: A number.
    """
    def inner():
        """Return x.

        Returns:
            x.
        """

def short(x):
    """Return x `(N,)`."""

class Thing:
    def method(self):
        """Do it.

        Raises:
            InputError: Never.
        """

class Contract(ABC):
    def method(self):
        """Do it.

        Returns:
            What every child returns.
        """
'''


def test_sections_of_internal_functions_are_found():
    tree = ast.parse(INTERNAL)
    every = {"helper": ["Args"], "helper.inner": ["Returns"], "Thing.method": ["Raises"]}
    assert dict(sectioned(tree, set())) == every
    assert set(dict(sectioned(tree, {"Thing"}))) == {"helper", "helper.inner"}
    assert set(dict(sectioned(tree, set(), {"helper"}))) == {"helper.inner", "Thing.method"}
