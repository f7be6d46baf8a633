"""What `import lsi` offers, and what it costs."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import lsi
from lsi.cli import main

HEAVY = ("torch", "numpy", "pandas", "scipy", "sklearn")


@pytest.mark.parametrize("name", lsi.__all__)
def test_a_public_name_is_that_of_its_home(name):
    assert getattr(lsi, name) is getattr(import_module(lsi._HOME[name]), name)


def test_names_are_listed_and_others_are_refused():
    assert set(dir(lsi)) == {*lsi.__all__, "__version__"}
    assert {"score", "load", "Scores", "InputError"} <= set(lsi.__all__)
    with pytest.raises(AttributeError, match="no attribute 'scoer'"):
        _ = lsi.scoer
    with pytest.raises(ImportError):
        from lsi import scoer  # noqa: F401


def test_the_version_is_that_of_the_installed_package(capsys):
    assert lsi.__version__ == version("laplace-sample-information")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == lsi.__version__


@pytest.mark.parametrize("ask", ["lsi.__version__", "dir(lsi)", "lsi.InputError"])
def test_what_needs_no_numbers_loads_no_heavy_package(ask):
    code = f"import sys, lsi; {ask}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_is_there_without_an_import_of_its_own(monkeypatch):
    for name in ("data", "errors"):
        monkeypatch.delattr(lsi, name, raising=False)  # as after `import lsi` alone
    assert lsi.data.load_samples is lsi.load_samples
    assert lsi.errors.InputError is lsi.InputError
