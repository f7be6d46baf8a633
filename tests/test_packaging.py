"""The wheel and the source distribution: built, installed into an empty environment, and used there."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def call(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The two files of a release; the wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory):
    """An environment with the wheel, and a path to the dependencies at hand, but none to the repository."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", built[0]]
    call(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # Folders that a .pth file names are searched, but .pth files there (of an editable install) are not read.
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder, python, scripts / "lsi"


@pytest.fixture(scope="module")
def clean():
    """The environment variables without those that lead Python back to the repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}


def package_files():
    """Return the files of the package, relative to src."""
    found = (REPOSITORY / "src" / "lsi").rglob("*")
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(REPOSITORY / "src").as_posix() for path in files}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = message_from_bytes(wheel.read(metadata))
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    assert {"lsi/py.typed", "lsi/report/templates/report.html.j2"} <= set(names)
    assert about["Name"] == "laplace-sample-information"
    assert about.get_payload().startswith("# Laplace Sample Information")  # the README is the page on PyPI
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_can_be_tested(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "README.md",
        "constraints.txt",
        "tests/conftest.py",
        "docs/reference/api.md",
        "mkdocs.yml",
    }
    assert needed <= names
    assert {f"src/{name}" for name in package_files()} <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith((".venv", "site"))]


def test_the_demo_runs_where_only_the_wheel_is(built, environment, clean, tmp_path):
    folder, python, lsi = environment
    home = call(python, "-c", "import lsi; print(lsi.__file__)", cwd=tmp_path, env=clean)
    assert Path(home).is_relative_to(folder)
    assert call(lsi, "--version", cwd=tmp_path, env=clean).strip() == built[0].name.split("-")[1]

    demo = "--dataset digits --first 200 --corrupt-label 0.1 --output scores --report report.html --threads 1"
    told = call(lsi, "compute", *demo.split(), cwd=tmp_path, env=clean)
    assert "Audit" in told
    assert json.loads((tmp_path / "scores" / "manifest.json").read_text())["data"]["n_samples"] == 200
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
