"""Where scores cannot be saved: nothing half-written, nothing lost."""

import errno
import os
import shutil
from collections import namedtuple

import pytest
from tests.score_cases import assert_equal, make

from lsi.errors import OutputError
from lsi.results.store import check_output
from lsi.scores import load
from lsi.system import files


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


def test_a_file_that_appears_meanwhile_is_not_deleted(tmp_path, monkeypatch):
    folder = make().save(tmp_path / "scores")
    flush = files.flush_folder

    def flush_and_intrude(path):
        (folder / "notes.txt").write_text("mine")
        flush(path)

    monkeypatch.setattr(files, "flush_folder", flush_and_intrude)
    with pytest.raises(OutputError, match="meanwhile"):
        make().save(folder, overwrite=True)
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
    (errno.EIO, "Choose another folder"),
]


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize(("code", "message"), FAILURES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_disk_leaves_what_was_there(tmp_path, monkeypatch, call, code, message, existing):
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


def test_the_old_scores_return_where_the_new_cannot_take_their_place(tmp_path, monkeypatch):
    folder = make().save(tmp_path / "scores")
    rename, calls = os.rename, []

    def fail_second(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail_second)
        with pytest.raises(OutputError, match="cannot be written"):
            make(audit=None).save(folder, overwrite=True)
    assert len(calls) == 3
    assert os.listdir(tmp_path) == ["scores"]
    assert_equal(load(folder), make())


def test_old_scores_that_cannot_be_deleted_are_named(tmp_path, monkeypatch):
    folder = make().save(tmp_path / "scores")

    def fail(*_args, **_settings):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.raises(OutputError, match="are saved in .*could not be deleted.*delete it"):
            make(audit=None).save(folder, overwrite=True)
    assert_equal(load(folder), make(audit=None))
