"""The workflows and the Makefile say the same as pyproject.toml."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tests.skips import ALLOWED, unexpected

REPOSITORY = Path(__file__).parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def workflow(name):
    return yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))


def steps(content):
    return [step for job in content["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_sound(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job or "uses" in job for job in content["jobs"].values())
    for step in steps(content):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", step["uses"])  # by major version
        for target in re.findall(r"^\s*make (\S+)", step.get("run", ""), re.M):
            assert re.search(
                rf"^{re.escape(target)}:", MAKEFILE.replace("$(CREATED)", ".venv/.created"), re.M
            )


def test_every_supported_python_is_tested():
    tested = workflow("ci")["jobs"]["check"]["strategy"]["matrix"]["python"]
    names = [
        name.rpartition(" ")[2] for name in PROJECT["project"]["classifiers"] if ":: Python :: 3." in name
    ]
    assert tested == names
    assert PROJECT["project"]["requires-python"] == f">={tested[0]}"
    lowest = [step.get("run") for step in workflow("ci")["jobs"]["lowest"]["steps"]]
    assert f"uv venv --seed --python {tested[0]}" in lowest


def test_only_a_tag_publishes_and_only_after_all_checks():
    content = workflow("release")
    assert content[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    publish = content["jobs"].pop("publish")
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == set(content["jobs"])
    assert "permissions" not in str(content["jobs"])


def requirements():
    """Yield what the project and its extras need, itself apart."""
    project = PROJECT["project"]
    for line in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        if not line.startswith(project["name"]):
            yield Requirement(line)


def test_what_is_tested_together_is_what_is_declared():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len({canonicalize_name(name) for name in pins}) == len(pins)
    for requirement in requirements():
        assert Version(pins[requirement.name]) in requirement.specifier, requirement


def test_every_floor_is_a_version():
    """`uv --resolution lowest-direct` takes a package without a floor at its first version ever."""
    for requirement in requirements():
        assert [part for part in requirement.specifier if part.operator == ">="], requirement


SKIPPING = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="ray is not installed")
def test_is_skipped():
    pass

@pytest.mark.skip(reason="needs --shared-data FOLDER")
def test_may_be_skipped():
    pass
"""


def test_a_skip_that_is_not_listed_fails_the_run(tmp_path):
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-q", "--no-skips", "-n", "1", "-p", "tests.conftest"]
    command += ["--confcutdir", str(tmp_path), "--rootdir", str(tmp_path), str(tmp_path)]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SKIPPED WITHOUT LEAVE test_skipping.py::test_is_skipped: ray is not installed" in done.stdout
    assert "--shared-data" not in done.stdout


def test_a_module_that_is_skipped_is_noticed_too():
    class Report:
        nodeid, longrepr = "tests/test_x.py", ("test_x.py", 3, "Skipped: needs the extra 'ray'")

    assert unexpected([Report]) == ["tests/test_x.py: needs the extra 'ray'"]


def test_what_may_be_skipped_is_skipped_somewhere():
    """A reason that no test gives any more does not stay on the list."""
    tests = [path for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "skips.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in tests if path.name != "test_workflows.py")
    assert [reason for reason in ALLOWED if reason not in text] == []
