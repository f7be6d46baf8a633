"""What docstrings have to hold: full sections on everything public, one line with shapes on everything else.

Public is what `lsi` and the packages that a page tells users to import from list in `__all__`, and what
docs/api.md shows, with the methods that the page shows. The `__all__` of other packages is what packages
offer each other: sections are welcome there, as in contracts (abstract classes and protocols), but not
required. The linter cannot tell these apart.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

import lsi
from lsi.errors import ConvergenceError, InputError, OutputError

ROOT = Path(lsi.__file__).parent
PAGES = Path(__file__).parents[1] / "docs"
API_PAGE = (PAGES / "api.md").read_text(encoding="utf-8")
TOLD = {kind.__name__: kind for kind in (InputError, OutputError, ConvergenceError)}
HEADING = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Source|Examples|Note|Notes|References):\s*$")
CONTRACT_SECTIONS = {"Args", "Returns", "Yields", "Raises"}
# The formula that everything serves, and the contract of blocks of work: in full, though users call neither.
CONTRACT_MODULES = {"divergence.py", "execution/work.py"}


def sections(doc):
    """Return the Google sections of a docstring: heading → its text."""
    found, current = {}, None
    for line in inspect.cleandoc(doc or "").splitlines():
        if match := HEADING.match(line):
            current = match[1]
            found[current] = []
        elif line and not line[0].isspace():
            current = None
        elif current:
            found[current].append(line)
    return {heading: textwrap.dedent("\n".join(lines)) for heading, lines in found.items()}


def entries(text):
    """Return the names that a section explains: `name: …`, `name, other: …` or `name (type): …`."""
    names = set()
    for line in text.splitlines():
        if match := re.match(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", line):
            names.update(name.strip().lstrip("*") for name in match[1].split(","))
    return names


def raised(node):
    """Return which of the library's own errors a function raises itself, by name."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) and part.exc is not None:
            called = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
            name = getattr(called, "id", getattr(called, "attr", None))
            names.update({name} & set(TOLD))
    return names


def source_tree(thing):
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def raises_faults(trees, told):
    wanted = {name for tree in trees for name in raised(tree)}
    named = entries(told.get("Raises", ""))
    ways = {name: {kind.__name__ for kind in TOLD[name].__mro__} for name in wanted}
    return [f"raises {name}, which Raises does not say" for name in sorted(wanted) if not ways[name] & named]


def function_faults(function):
    """Return what the docstring of a public function lacks."""
    if not function.__doc__:
        return ["no docstring"]
    told, signature, faults = sections(function.__doc__), inspect.signature(function), []
    names = [
        name for name in signature.parameters if name not in ("self", "cls") and not name.startswith("_")
    ]
    explained = entries(told.get("Args", ""))
    faults += [f"parameter {name} is not in Args" for name in names if name not in explained]
    faults += [f"Args explains {name}, which is no parameter" for name in sorted(explained - set(names))]
    returns = signature.return_annotation not in (None, "None", "NoReturn", inspect.Signature.empty)
    # A function without parameters whose one line begins with "Return" has said it.
    said = {"Returns", "Yields"} & set(told) or not names and function.__doc__.startswith("Return ")
    if returns and not said:
        faults.append("no Returns")
    return faults + raises_faults([source_tree(function)], told)


def class_faults(kind):
    """Return what the docstring of a public class lacks, its methods apart."""
    if not kind.__doc__:
        return ["no docstring"]
    told = sections(kind.__doc__)
    explained = entries(told.get("Args", "")) | entries(told.get("Attributes", ""))
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")]
    elif kind.__init__ is object.__init__ or getattr(kind, "_is_protocol", False):
        names = []
    elif issubclass(kind, Exception) and "__init__" not in vars(kind):
        names = []
    else:
        names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    faults = [f"{name} is in neither Args nor Attributes" for name in names if name not in explained]
    body = source_tree(kind).body
    makers = [part for part in body if getattr(part, "name", None) in ("__init__", "__post_init__")]
    return faults + raises_faults(makers, told)


def methods(kind):
    """Yield the public methods that a class has from its own top package, by name; no properties."""
    top = kind.__module__.partition(".")[0]
    for name in dir(kind):
        if name.startswith("_"):
            continue
        raw = inspect.getattr_static(kind, name)
        function = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw
        if inspect.isfunction(function) and function.__module__.partition(".")[0] == top:
            yield name, function


def keeps_a_contract(kind, name):
    """Whether a method fills in one whose docstring has the sections already."""
    parents = [vars(parent).get(name) for parent in kind.__mro__[1:]]
    own = next(vars(parent)[name] for parent in kind.__mro__ if name in vars(parent))
    return any(parent is not own and sections(parent.__doc__) for parent in parents if parent is not None)


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
    pages = [PAGES.parent / "README.md", *PAGES.glob("*.md")]
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


def faults_of(name, thing, with_methods=True):
    """Return every fault of a public object, its methods included."""
    if inspect.isclass(thing):
        faults = [f"{name}: {fault}" for fault in class_faults(thing)]
        for method, function in methods(thing) if with_methods else ():
            if not keeps_a_contract(thing, method):
                faults += [f"{name}.{method}: {fault}" for fault in function_faults(function)]
        return faults
    if inspect.isfunction(thing):
        return [f"{name}: {fault}" for fault in function_faults(thing)]
    return []


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


def is_contract(node):
    """Whether a class says what others have to fulfil: an abstract class or a protocol."""
    bases = {getattr(base, "id", getattr(base, "attr", None)) for base in node.bases}
    return bool(bases & {"ABC", "Protocol"})


def sectioned(tree, public, commands=()):
    """Yield the internal functions of a module that have sections: name, headings."""

    def visit(node, prefix, free):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.", child.name in public or is_contract(child))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                private = child.name.startswith("_")
                shown = free and not private or not prefix and child.name in {*public, *commands}
                headings = CONTRACT_SECTIONS & set(sections(ast.get_docstring(child)))
                if headings and not shown:
                    yield f"{prefix}{child.name}", sorted(headings)
                yield from visit(child, f"{prefix}{child.name}.", False)
            else:
                yield from visit(child, prefix, free)

    return visit(tree, "", False)


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
        if name not in ("--help", "-h", "--version"):
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
