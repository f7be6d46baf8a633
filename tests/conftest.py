"""Settings shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest
import threadpoolctl
import torch
from tests.skips import unexpected

# Two busy cores make single examples slow now and then; that is no failure. The suite tries the same
# examples every time, so that a change is judged by what it changed; HYPOTHESIS_PROFILE=search looks for
# new ones.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Tests are small: one thread is quickest, and leaves the other cores to other workers.
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)  # numpy's and scipy's too, for the oracles
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and those of the processes that tests start


def pytest_addoption(parser):
    parser.addoption(
        "--shared-data",
        type=Path,
        default=None,
        help="folder with data/ and golden/: runs the tests that need real data or published values",
    )

    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail where a test is skipped that tests/skips.py does not list",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--no-skips") or terminal is None:  # the workers of xdist have none
        return
    if found := unexpected(terminal.stats.get("skipped", [])):
        session.config.stash[FOUND] = found
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for line in terminalreporter.config.stash.get(FOUND, []):
        terminalreporter.write_line(f"SKIPPED WITHOUT LEAVE {line}", red=True)


FOUND = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def shared_data(request):
    folder = request.config.getoption("--shared-data")
    if folder is None:
        pytest.skip("needs --shared-data FOLDER")
    return folder
