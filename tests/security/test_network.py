"""Nothing leaves the machine unless a user names something that is elsewhere."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lsi
from lsi.data.archives.cifar import CIFAR
from lsi.data.archives.vision import _FASHION_MD5, _FOLDERS

SOURCE = Path(lsi.__file__).parent
NETWORK = {
    "urllib",
    "http",
    "socket",
    "requests",
    "httpx",
    "aiohttp",
    "ftplib",
    "smtplib",
    "websockets",
    "ssl",
}
RUN = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
import lsi
from lsi.cli import main
code = main(["compute", "-d", "wine", "--audit", "2", "-q", "-o", sys.argv[1], "--report", sys.argv[2]])
code = code or main(["show", sys.argv[1]]) or main(["report", sys.argv[1], "-o", sys.argv[2]])
sys.exit(code)
"""


def test_a_whole_run_opens_no_connection(tmp_path):
    places = [str(tmp_path / "scores"), str(tmp_path / "r.html")]
    found = subprocess.run([sys.executable, "-c", RUN, *places], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "urllib.parse":
            continue  # takes texts apart, and opens nothing
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_two_modules_only_know_the_network():
    """One for downloads, one that tries the address of a cluster that the user names."""
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if NETWORK & set(imports_of(path))
    }
    assert users == {"data/archives/fetch.py", "execution/ray_cluster.py"}


def test_no_module_pickles_to_files_or_runs_text():
    """One reads foreign pickles under restrictions, one packs objects for workers, in memory only."""
    for path in SOURCE.rglob("*.py"):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(SOURCE).as_posix()
        used = set(imports_of(path)) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
        known = name in ("data/archives/unpickle.py", "execution/packing.py")
        assert used <= ({"pickle"} if known else set()), name
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and not (node.args and isinstance(node.args[0], ast.Constant))  # such text is code of ours
        }
        assert not calls & {"eval", "exec", "compile", "__import__"}, name
        assert "allow_pickle=True" not in text, name
        assert "torch.load(" not in text or name == "features/encoders/weights.py", name
        assert "shell=True" not in text and "os.system" not in text, name


def test_torch_reads_weights_alone():
    text = (SOURCE / "features" / "encoders" / "weights.py").read_text(encoding="utf-8")
    calls = [
        {given.arg: given.value.value for given in node.keywords if isinstance(given.value, ast.Constant)}
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"
    ]
    assert [call.get("weights_only") for call in calls] == [True]


def test_what_is_packed_for_workers_is_never_a_file():
    tree = ast.parse((SOURCE / "execution" / "packing.py").read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"open", "Path", "write_bytes", "read_bytes", "fromfile", "tofile", "save"}
    users = {p.name for p in SOURCE.rglob("*.py") if "lsi.execution.packing" in set(modules_of(p))}
    assert users == {"ray_cluster.py"}


def modules_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_download_has_a_checksum():
    downloads = [which.archive for which in CIFAR.values()] + [_FOLDERS["imagenette"]]
    assert all(len(archive.md5) == 32 and archive.url.startswith("https://") for archive in downloads)
    assert all(len(md5) == 32 for md5 in _FASHION_MD5.values())
    assert _FOLDERS["imagewoof"].md5 == ""  # none is published: `locate` never downloads it


def test_only_locate_downloads_and_only_with_a_checksum():
    tree = ast.parse((SOURCE / "data" / "archives" / "fetch.py").read_text(encoding="utf-8"))
    callers = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_download", "_copy")
    }
    assert callers == {"locate", "_download"}


@pytest.mark.parametrize("word", ["telemetry", "analytics", "sentry", "posthog", "google-analytics"])
def test_no_telemetry(word):
    texts = [path.read_text(encoding="utf-8").lower() for path in SOURCE.rglob("*.py")]
    assert not [text for text in texts if f"import {word}" in text or f"{word}." in text]
