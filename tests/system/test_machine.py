"""What is left of the memory: of the machine, of the process, and of the containers around it."""

import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch

import lsi
from lsi.errors import LsiError, OutOfMemoryError
from lsi.system import machine
from lsi.system.machine import available_memory, memory_explained, ran_out

GIB = 1 << 30
SECOND = "30 25 0:26 {within} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
FIRST = "31 25 0:27 {within} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
OTHER = (
    "32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n22 1 8:1 / / rw - ext4 /dev/vda rw\n"
)


def system(root, mounts, groups):
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "mountinfo").write_text(OTHER + mounts)
    (root / "proc" / "self" / "cgroup").write_text(groups)


def group(folder, limit, used, cached=0, **others):
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "memory.max": limit,
        "memory.current": used,
        "memory.stat": f"anon 5\ninactive_file {cached}",
        **others,
    }
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def group_of_old(folder, limit, used, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 1\ninactive_file 0\ntotal_inactive_file {cached}\n")


def left(root):
    return list(machine._left_to_groups(root))


def test_the_limit_of_a_container_and_of_every_group_around_it(tmp_path):
    system(tmp_path, SECOND.format(within="/"), "0::/box/inner\n")
    top = tmp_path / "sys/fs/cgroup"
    group(top / "box" / "inner", "max", 3 * GIB)
    group(top / "box", 4 * GIB, 3 * GIB, cached=GIB)
    top.joinpath("memory.stat").write_text("")  # the root has no limit
    assert left(tmp_path) == [2 * GIB]


def test_a_container_sees_its_own_group_as_the_root(tmp_path):
    system(tmp_path, SECOND.format(within="/"), "0::/\n")
    group(tmp_path / "sys/fs/cgroup", 2 * GIB, GIB, **{"memory.high": 3 * GIB // 2})
    assert left(tmp_path) == [GIB, GIB // 2]


def test_the_first_version_with_names_from_outside_of_the_container(tmp_path):
    system(tmp_path, FIRST.format(within="/docker/abc"), "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n")
    group_of_old(tmp_path / "sys/fs/cgroup/memory", 2 * GIB, 2 * GIB, cached=GIB)
    assert left(tmp_path) == [GIB]


def test_the_first_version_on_the_machine_itself(tmp_path):
    system(tmp_path, FIRST.format(within="/"), "4:memory:/jobs/7\n0::/\n")
    top = tmp_path / "sys/fs/cgroup/memory"
    group_of_old(top / "jobs" / "7", 3 * GIB, GIB)
    group_of_old(top / "jobs", 1 << 63, GIB)
    group_of_old(top, 1 << 63, GIB)
    assert min(left(tmp_path)) == 2 * GIB


@pytest.mark.parametrize("groups", ["", "nonsense", "0::/gone\n", "0::/../up\n"])
def test_a_system_that_tells_nothing_of_groups_limits_nothing(tmp_path, groups):
    assert left(tmp_path) == []
    system(tmp_path, SECOND.format(within="/"), groups)
    assert left(tmp_path) == []


def test_the_least_counts(monkeypatch):
    monkeypatch.setattr(machine, "_left_to_groups", lambda: [7, 9])
    assert available_memory() == 7
    monkeypatch.setattr(machine, "_left_to_groups", lambda: [-7])
    assert available_memory() == 0


def test_a_system_that_tells_nothing_at_all(monkeypatch):
    def fail():
        raise NotImplementedError

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    monkeypatch.setattr(machine, "_left_to_process", lambda: [])
    monkeypatch.setattr(machine, "_left_to_groups", lambda: [])
    assert available_memory() is None


LIMITED = """
import resource
from lsi.system.machine import available_memory
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(available_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to this limit")
def test_the_limit_of_a_process_counts():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 1 << 30


def numpy_is_refused():
    np.empty(1 << 60, dtype=np.uint8)


def torch_is_refused():
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("allocate", [numpy_is_refused, torch_is_refused])
def test_memory_that_is_refused_becomes_an_error_with_its_cures(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as raw:
        allocate()
    assert ran_out(raw.value)
    with pytest.raises(
        OutOfMemoryError, match=r"memory ran out, with .* GB available.*memory=.*--subset"
    ) as said:
        with memory_explained():
            allocate()
    assert isinstance(said.value, LsiError) and isinstance(said.value, MemoryError)
    assert "\n" not in str(said.value)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="^boom$"), memory_explained():
        raise RuntimeError("boom")


def test_a_run_that_gets_no_memory_says_so(monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2
    monkeypatch.setattr("lsi.pipeline.build_table", lambda *_: torch_is_refused())
    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        lsi.score(X, y, audit=False, label_noise=False)
