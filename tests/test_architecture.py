"""The page on architecture names every package and nothing that is not there; no page names what is gone."""

import ast
import inspect
import re

import pytest
from tests.pages import DOTTED, PAGES, ROOT, resolve, spans, tables

SOURCE = ROOT / "src" / "lsi"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^( {4,})([\w.]+/?) {2,}\S")
# A changelog tells what there was.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
PATH = re.compile(r"\b(?:src/lsi|tests|benchmarks|docs)/[\w./-]*\w")
FILE = re.compile(r"[\w-]+/[\w./-]+\.py")
COMMAND = re.compile(r"python -m (benchmarks(?:\.\w+)+)")


def drawn(text):
    """Return the paths in the tree of the page, folders with a slash at their end."""
    lines = text[text.index("    src/lsi/\n") :].splitlines()[1:]
    found, above = [], []
    for line in lines:
        entry = ENTRY.match(line)
        if entry is None:
            break
        depth = (len(entry[1]) - 6) // 2
        above[depth:] = [entry[2]]
        found.append("".join(above))
    return found


def built():
    """Return the packages below src/lsi and the modules in its root, spelt in the same way."""
    packages = {init.parent.relative_to(SOURCE).as_posix() + "/" for init in SOURCE.rglob("*/__init__.py")}
    return packages | {module.name for module in SOURCE.glob("*.py")}


def test_the_tree_is_that_of_the_source():
    found = drawn(PAGE)
    assert len(found) == len(set(found))
    assert set(found) == built()


def test_every_line_of_the_tree_is_read():
    tree = "    src/lsi/\n      a.py     x\n      b/       y\n        c/     z\n      d/       w\n\ntext\n"
    assert drawn(tree) == ["a.py", "b/", "b/c/", "d/"]


def test_the_walk_is_numbered_and_names_functions():
    walk = PAGE[PAGE.index("## From X and y") : PAGE.index("## Layers")]
    steps = re.findall(r"^(\d+)\. ", walk, re.M)
    assert steps == [str(k + 1) for k in range(len(steps))]
    assert len(steps) > 10
    assert len(DOTTED.findall(walk)) > 20


def test_the_order_of_layers_has_every_room():
    order = re.search(r"only from rooms below it:\n\n((?: {4}.*\n)+)", PAGE)[1]
    rooms = re.findall(r"\w+", order)
    assert len(rooms) == len(set(rooms))
    top = {path.split("/")[0].removesuffix(".py") for path in built()}
    assert set(rooms) == top - {"__init__"}


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_a_page_names_what_exists(page):
    text = page.read_text(encoding="utf-8")
    for path in set(DOTTED.findall(text)):
        resolve(path)
    for path in set(PATH.findall(text)):
        assert (ROOT / path).exists(), path
    for path in {span for span in spans(text) if FILE.fullmatch(span)}:
        assert (ROOT / path).exists() or (SOURCE / path).exists(), path
    for module in set(COMMAND.findall(text)):
        place = ROOT / module.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").exists()


def stable_calls():
    """Return the calls on the page about stability, each with the defaults that it promises."""
    page = (ROOT / "docs" / "reference" / "stability.md").read_text(encoding="utf-8")
    calls = [span for row in tables(page, "Call") for span in spans(row[0]) if "(" in span]
    return [ast.parse(call, mode="eval").body for call in calls]


@pytest.mark.parametrize("call", stable_calls(), ids=lambda call: ast.unparse(call.func))
def test_a_stable_call_has_the_promised_defaults(call):
    given = inspect.signature(resolve(ast.unparse(call.func))).parameters
    promised = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert promised == {name: given[name].default for name in promised}


def test_a_path_that_is_gone_is_noticed():
    assert PATH.findall("see src/lsi/nothing.py.") == ["src/lsi/nothing.py"]
    assert not (ROOT / "src/lsi/nothing.py").exists()
