"""How the library is installed: no package index has it yet."""

import re
from pathlib import Path

from lsi.system.versions import install_hint

ROOT = Path(__file__).parents[2]


def test_a_hint_is_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = install_hint("report").partition(", ")[2]
    assert command.startswith("python -m pip install")
    assert command in readme


def test_nothing_is_said_to_come_from_an_index():
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    asked = re.compile(r"pip install[^\n]*laplace-sample-information")
    assert not [path.name for path in files if asked.search(path.read_text(encoding="utf-8"))]
