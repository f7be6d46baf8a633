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

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests import makers, onnx_maker

from lsi.errors import InputError
from lsi.features.encoders.timm_models import _timm

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


ENCODER = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
"""

# Every kind of data and of encoder that a first run may bring, one line each.
FIRST_RUNS = {
    "a table": "compute --dataset customers.csv --label-column churn --id-column customer --output table",
    "its wrong labels": "mislabeled customers.csv --label-column churn --id-column customer -o suspects.csv",
    "settings from a file": "init --from table -o again.toml",
    "a run of them": "compute --config again.toml --output again",
    "an encoder of one's own": "compute --dataset photos --encoder mine:build --output mine",
    "a network of any framework": "compute --dataset photos --encoder net.onnx --output net",
    "questions": "fit --dataset photos --encoder net.onnx -o fitted",
}
TIMM_RUN = {"torchvision's weights": "compute --dataset photos --encoder resnet18.tv_in1k:r.pth --output r"}

# All in one process, since it takes seconds to start one. torchvision and the repository have to be absent.
SCRIPT = """
import json, sys
from lsi.cli import main
for name, words in json.load(open("runs.json")).items():
    print(name, flush=True)
    if code := main([*words.split()]):
        sys.exit(f"{name}: exit code {code}")
assert not any("torchvision" == name for name in sys.modules)
"""


def has_timm():
    try:
        return _timm("the tests") is not None
    except InputError:
        return False


def test_every_kind_of_data_and_encoder_works_where_only_the_wheel_is(environment, clean, tmp_path):
    pixels, codes = makers.pictures(40, side=8)
    for k, code in enumerate(codes % 2):
        place = tmp_path / "photos" / ("cat", "dog")[code]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[k]).save(place / f"{k}.png")
    rng, churn = np.random.default_rng(0), np.arange(60) % 2
    columns = {
        "customer": [f"C{k}" for k in range(60)],
        "age": np.where(np.arange(60) == 7, np.nan, rng.normal(40, 4, 60) + 9 * churn),
        "plan": np.where(rng.random(60) < 0.2 + 0.6 * churn, "basic", "pro"),
        "churn": np.where(churn, "yes", "no"),
    }
    pd.DataFrame(columns).to_csv(tmp_path / "customers.csv", index=False)
    (tmp_path / "net.onnx").write_bytes(onnx_maker.image_encoder())
    (tmp_path / "mine.py").write_text(ENCODER)
    runs = dict(FIRST_RUNS)
    if has_timm():
        import torch

        model = _timm("the tests").create_model("resnet18", pretrained=False)
        torch.save(model.state_dict(), tmp_path / "r.pth")
        runs |= TIMM_RUN
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "script.py").write_text(SCRIPT)
    told = call(environment[1], "script.py", cwd=tmp_path, env=clean)
    assert [line for line in told.splitlines() if line in runs] == list(runs)
    for name in {"table", "again", "mine", "net"} | ({"r"} if has_timm() else set()):
        assert (tmp_path / name / "scores.parquet").is_file()
    assert (tmp_path / "suspects.csv").is_file()
