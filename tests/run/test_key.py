"""What identifies a run."""

import shutil
from pathlib import Path

import pytest

import lsi
from lsi.run.key import PACKAGE, _code


def test_the_code_is_that_of_the_whole_package():
    assert Path(lsi.__file__).parent == PACKAGE


@pytest.mark.parametrize("changed", ["run/key.py", "divergence.py", "probes/ridge.py", "loo/newton/sweep.py"])
def test_any_changed_file_makes_another_run(changed, tmp_path):
    copy = shutil.copytree(PACKAGE, tmp_path / "lsi", ignore=shutil.ignore_patterns("__pycache__"))
    assert _code.__wrapped__(copy) == _code()
    with (copy / changed).open("a") as file:
        file.write("# another comment\n")
    assert _code.__wrapped__(copy) != _code()
