"""Files and folders appear as a whole or not at all: nothing half-written, nothing lost."""

import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
from tests.score_cases import assert_equal, make

from lsi.errors import OutputError
from lsi.execution.checkpoint import Checkpoint
from lsi.features.growing import write_json
from lsi.report import write_report
from lsi.results.store import check_output
from lsi.scores import load
from lsi.system import drafts, files
from lsi.system.drafts import tidy, workplace
from lsi.system.files import drop_lock, explained, new_file, new_folder, take_lock


@pytest.fixture(params=["one step", "journal"])
def steps(request, monkeypatch):
    """Replace folders as systems do that can exchange them, and as those do that cannot."""
    if request.param == "journal":
        monkeypatch.setattr(drafts, "_exchange", lambda: None)
    elif not _exchanges():
        pytest.skip("this system or disk cannot exchange folders")
    return request.param


@functools.cache
def _exchanges():
    with tempfile.TemporaryDirectory() as folder:
        for name in "ab":
            Path(folder, name).mkdir()
        return drafts.exchange(Path(folder, "a"), Path(folder, "b"))


def test_scores_are_replaced_only_on_request(tmp_path):
    folder = make().save(tmp_path / "scores")
    other = make(lsi=[1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(OutputError, match="already holds scores.*overwrite=True.*--overwrite"):
        other.save(folder)
    assert_equal(load(folder), make())
    other.save(folder, overwrite=True)
    assert_equal(load(folder), other)
    assert os.listdir(tmp_path) == ["scores"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "scores").mkdir()
    assert_equal(load(make().save(tmp_path / "scores")), make())


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "manifest.json", "scores.parquet"])
def test_a_folder_with_anything_else_is_never_touched(tmp_path, name):
    (tmp_path / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="files that are no scores"):
            make().save(tmp_path, overwrite=overwrite)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "{}"


def test_scores_with_a_foreign_file_among_them_are_never_touched(tmp_path):
    folder = make().save(tmp_path / "scores")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="files that are no scores"):
        make().save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert_equal(load(folder), make())


def test_a_file_that_appears_meanwhile_is_not_deleted(tmp_path, monkeypatch, steps):
    folder = make().save(tmp_path / "scores")
    flush = files.flush

    def flush_and_intrude(path):
        (folder / "notes.txt").write_text("mine")
        flush(path)

    monkeypatch.setattr(files, "flush", flush_and_intrude)
    with pytest.raises(OutputError, match="meanwhile"):
        make().save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["scores"]


def test_a_file_that_appears_at_the_last_moment_is_not_deleted_either(tmp_path, monkeypatch, steps):
    folder = make().save(tmp_path / "scores")

    def intrude_and_replace(draft, target, check):
        (folder / "notes.txt").write_text("mine")
        drafts.replace(draft, target, check)

    monkeypatch.setattr(files, "replace", intrude_and_replace)
    with pytest.raises(OutputError, match="meanwhile"):
        make(audit=None).save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["scores"]


def test_a_link_keeps_pointing_to_the_scores(tmp_path):
    make().save(tmp_path / "scores")
    (tmp_path / "link").symlink_to(tmp_path / "scores")
    other = make(audit=None)
    other.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert_equal(load(tmp_path / "scores"), other)


def test_places_that_cannot_be_folders(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file.*Choose another name"):
        check_output(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file" / "scores")
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / ("x" * 5000))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(OutputError, match="is the current folder"):
        check_output(".")
    with pytest.raises(OutputError, match="root of a disk"):
        check_output("/")


def test_check_output_creates_nothing(tmp_path):
    assert check_output(tmp_path / "a" / "b") == (tmp_path / "a" / "b").resolve()
    assert os.listdir(tmp_path) == []


def test_a_read_only_parent_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "access", lambda *_: False
    )  # the superuser may write anywhere, so it is simulated
    with pytest.raises(OutputError, match="read-only for this user"):
        check_output(tmp_path / "scores")


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason="the superuser may write into any folder"
)
def test_a_parent_that_is_really_read_only(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="read-only for this user"):
        check_output(tmp_path / "scores")
    tmp_path.chmod(0o755)


def test_too_little_space_is_found_before_any_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**7, 10**7))
    assert check_output(tmp_path / "scores", n_rows=1000)
    with pytest.raises(OutputError, match=r"need .* MB but the disk of .* has 10\.0 MB left"):
        check_output(tmp_path / "scores", n_rows=1_000_000)


FAILURES = [
    (errno.ENOSPC, "disk is full. Free some space"),
    (errno.EDQUOT, "disk is full. Free some space"),
    (errno.EROFS, "read-only for this user"),
    (errno.EACCES, "read-only for this user"),
    (errno.EIO, "Choose another place"),
]


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize(("code", "message"), FAILURES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_disk_leaves_what_was_there(tmp_path, monkeypatch, call, code, message, existing):
    monkeypatch.setattr(drafts, "_exchange", lambda: None)  # which would not need `rename`
    folder = tmp_path / "scores"
    if existing:
        make().save(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_args, **_settings):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OutputError, match=message):
            make(audit=None).save(folder, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert os.listdir(tmp_path) == (["scores"] if existing else [])


def test_a_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    folder = make().save(tmp_path / "scores")

    class FullDisk:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", FullDisk, raising=False)
        with pytest.raises(OutputError, match="disk is full"):
            make(audit=None).save(folder, overwrite=True)
        with pytest.raises(OutputError, match="disk is full"):
            make(audit=None).save(tmp_path / "new")
    assert os.listdir(tmp_path) == ["scores"]
    assert_equal(load(folder), make())


@pytest.mark.parametrize("how", [OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()])
def test_the_old_scores_return_where_the_new_cannot_take_their_place(tmp_path, monkeypatch, how):
    monkeypatch.setattr(drafts, "_exchange", lambda: None)
    folder = make().save(tmp_path / "scores")
    rename, calls = os.rename, []

    def fail_second(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise how
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail_second)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            make(audit=None).save(folder, overwrite=True)
    assert len(calls) == 3
    assert os.listdir(tmp_path) == ["scores"]
    assert_equal(load(folder), make())


def test_old_scores_that_cannot_be_deleted_are_named(tmp_path, monkeypatch, steps):
    folder = make().save(tmp_path / "scores")

    def fail(*_args, **_settings):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.warns(UserWarning, match="could not be removed. It is tried again"):
            make(audit=None).save(folder, overwrite=True)
    assert_equal(load(folder), make(audit=None))
    make(audit=None).save(folder, overwrite=True)
    assert os.listdir(tmp_path) == ["scores"]


def test_exchange_takes_folders_and_files_and_says_where_it_cannot(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    if drafts.exchange(tmp_path / "file", tmp_path / "folder"):
        assert (tmp_path / "folder").read_text() == "content"
    assert not drafts.exchange(tmp_path / "file", tmp_path / "nothing")


def write_new_file(folder):
    with new_file(folder / "new.txt") as draft:
        draft.write_text("content")
    return "new.txt"


def write_new_folder(folder):
    with new_folder(folder / "new") as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "file").write_text("content")
    return "new"


def write_page(folder):
    return write_report(folder / "report.html", make()).name


def write_scores(folder):
    return make().save(folder / "scores", overwrite=True).name


def write_features(folder):
    write_json(folder / "manifest.json", {"shape": [1, 2]})
    return "manifest.json"


WRITERS = [write_new_file, write_new_folder, write_page, write_scores, write_features]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_everything_is_flushed_before_it_gets_its_name_and_the_name_after(
    tmp_path, monkeypatch, write, again
):
    if again and write not in (write_new_file, write_new_folder):
        write(tmp_path)
    events, names = [], {}

    def flushed(handle):
        events.append(("flush", os.fstat(handle).st_ino))

    def moved(move):
        def wrapped(source, target):
            inside = [entry.stat().st_ino for entry in source.rglob("*")] if source.is_dir() else []
            names[target.name] = {source.stat().st_ino, *inside}
            events.append(("move", target.name))
            return move(source, target)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flushed)
        for name in ("link", "rename", "replace"):
            patch.setattr(os, name, moved(getattr(os, name)))
        patch.setattr(drafts, "exchange", moved(drafts.exchange))
        name = write(tmp_path)
    place = len(events) - 1 - events[::-1].index(("move", name))
    assert names[name] <= {inode for kind, inode in events[:place] if kind == "flush"}
    assert ("flush", tmp_path.stat().st_ino) in events[place:]


def test_a_block_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    events = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_ino))
        replace = os.replace
        patch.setattr(os, "replace", lambda *names: events.append("move") or replace(*names))
        store.put("fit", {})
    block, folder = (path.stat().st_ino for path in (tmp_path / "kept" / "fit.block", tmp_path / "kept"))
    store.close()
    assert events == [block, "move", folder]


@pytest.mark.parametrize("write", [write_new_file, write_new_folder, write_page, write_scores])
@pytest.mark.parametrize(("code", "message"), FAILURES)
def test_every_writer_says_what_failed_and_leaves_nothing(tmp_path, monkeypatch, write, code, message):
    def fail(*_args, **_settings):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match=f"cannot be written to '.*{message}"):
            write(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_caller_may_name_what_is_written_and_the_cure():
    with (
        pytest.raises(
            OutputError, match=r"^The page cannot be written to 'x': the disk is full\. Delete it\.$"
        ),
        explained("x", "the page", "Delete it."),
    ):
        raise OSError(errno.ENOSPC, "no space")


def test_only_workplaces_that_nobody_holds_are_removed(tmp_path):
    names = [".lsi-notes", ".lsi-0123456789ab-old", "lsi-0123456789ab"]
    others = [*names, ".lsi-000000000000", ".lsi-111111111111"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / others[3]).write_text("a file")
    (tmp_path / others[4]).mkdir()
    (tmp_path / others[4] / "thesis.tex").write_text("years of work")
    (tmp_path / ".lsi-222222222222").symlink_to(tmp_path / "lsi-0123456789ab")
    (tmp_path / ".lsi-ba9876543210" / "draft").mkdir(parents=True)
    (tmp_path / ".lsi-ba9876543210" / "draft" / "half").write_text("")
    with workplace(tmp_path, ".txt") as draft:
        draft.write_text("half")
        tidy(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([*others, ".lsi-222222222222", draft.parent.name])
        assert draft.read_text() == "half"
    assert not draft.parent.exists()


def left_behind(folder, name="scores"):
    """Return a workplace whose process died between the two steps."""
    place = folder / ".lsi-ba9876543210"
    (place / "draft").mkdir(parents=True)
    (folder / "scores").rename(place / "old")
    (place / "belongs-to").write_text(name)
    return place


def test_scores_that_a_killed_process_moved_away_come_back(tmp_path):
    make().save(tmp_path / "scores")
    left_behind(tmp_path)
    check_output(tmp_path / "scores", overwrite=True)
    assert os.listdir(tmp_path) == ["scores"]
    assert_equal(load(tmp_path / "scores"), make())


def test_reading_brings_them_back_too(tmp_path):
    make().save(tmp_path / "scores")
    left_behind(tmp_path)
    assert_equal(load(tmp_path / "scores"), make())
    assert os.listdir(tmp_path) == ["scores"]


@pytest.mark.parametrize("name", ["../precious", "", ".", "..", "a/b", "taken"])
def test_a_workplace_that_someone_made_up_writes_nowhere_else(tmp_path, name):
    folder = tmp_path / "folder"
    make().save(folder / "scores")
    (folder / "taken").write_text("mine")
    left_behind(folder, name)
    tidy(folder)
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(folder) == ["taken"]
    assert (folder / "taken").read_text() == "mine"


HOLD = """
import sys
from pathlib import Path
from lsi.system.files import take_lock
lock = take_lock(Path(sys.argv[1]), "the file", busy="taken")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_keeps_other_processes_away_until_they_end(tmp_path):
    path, waited = tmp_path / "folder" / "lock", []
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="^taken$"):
            take_lock(path, "the file", busy="taken")
        lock = take_lock(path, "the file", on_wait=lambda: waited.append(other.kill()))
    assert len(waited) == 1
    drop_lock(lock)
    assert os.listdir(path.parent) == []
