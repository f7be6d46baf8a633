"""What a docstring lacks, and which functions have sections: the checks behind tests/test_docstrings.py."""

import ast
import dataclasses
import inspect
import re
import textwrap

from lsi.errors import ConvergenceError, InputError, OutputError

TOLD = {kind.__name__: kind for kind in (InputError, OutputError, ConvergenceError)}
HEADING = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Source|Examples|Note|Notes|References):\s*$")
CONTRACT_SECTIONS = {"Args", "Returns", "Yields", "Raises"}


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
