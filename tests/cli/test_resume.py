"""Commands that end before their time, and the parts of a run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lsi
from lsi.cli import compute, main
from lsi.execution.checkpoint import Checkpoint

WINE = ["compute", "--dataset", "wine", "--audit", "3", "--no-label-noise"]


def stop_after(monkeypatch, count, how=KeyboardInterrupt):
    put, kept = Checkpoint.put, []

    def last(self, name, arrays):
        put(self, name, arrays)
        kept.append(name)
        if len(kept) == count:
            raise how

    monkeypatch.setattr(Checkpoint, "put", last)
    return kept


def interrupted(monkeypatch, arguments, count=4):
    with monkeypatch.context() as patch:
        stop_after(patch, count)
        assert main(arguments) == 130


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "scores"
    assert main([*WINE, "-q", "--no-checkpoint", "--output", str(folder)]) == 0
    return (folder / "scores.parquet").read_bytes()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_an_interrupted_command_goes_on_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys, whole):
    command = [*WINE, "--output", str(tmp_path / "scores")]
    interrupted(monkeypatch, command)
    err = capsys.readouterr().err
    kept = str(tmp_path / "scores.unfinished")
    assert err.endswith(
        f"interrupted: 2 of 3 blocks of leave-one-out are kept in {kept!r}. Start the same run again to "
        "continue from there.\n"
    )
    assert names(tmp_path) == ["scores.unfinished"]
    assert main(command) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "2 finished blocks" in err
    assert "leave-one-out: 2 of 3 blocks are done already" in err
    assert names(tmp_path) == ["scores"]
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole


def test_a_quiet_command_says_only_that_it_was_interrupted(tmp_path, monkeypatch, capsys):
    command = [*WINE, "-q", "--output", str(tmp_path / "scores")]
    interrupted(monkeypatch, command)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")


def test_interruptions_before_and_after_the_blocks_are_told_too(tmp_path, monkeypatch, capsys, whole):
    command = [*WINE, "-q", "--output", str(tmp_path / "scores")]
    interrupted(monkeypatch, command, 1)
    assert "what is done so far is kept in" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(compute, "write", _interrupt)
        assert main(command) == 130
    assert "blocks of audit are kept in" in capsys.readouterr().err
    assert main(command) == 0
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_end_between_the_scores_and_the_removal_of_the_blocks_loses_nothing(
    tmp_path, monkeypatch, capsys, whole
):
    command = [*WINE, "-q", "--output", str(tmp_path / "scores")]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", _interrupt)
        assert main(command) == 130
    assert names(tmp_path) == ["scores", "scores.unfinished"]
    capsys.readouterr()
    assert main([*command, "--posterior", "kron"]) == 2  # the scores there are of another run
    assert "config.posterior" in capsys.readouterr().err
    assert main(command) == 0
    assert names(tmp_path) == ["scores"]
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole
    assert main(command) == 2
    assert "already holds scores" in capsys.readouterr().err


def test_overwriting_goes_on_too_and_old_scores_stay_until_the_end(tmp_path, monkeypatch, whole):
    place = ["--output", str(tmp_path / "scores")]
    assert main([*WINE, "-q", "--posterior", "kron", *place]) == 0
    old = (tmp_path / "scores" / "scores.parquet").read_bytes()
    interrupted(monkeypatch, [*WINE, "-q", "--overwrite", *place])
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == old
    assert main([*WINE, "-q", *place]) == 2
    assert main([*WINE, "-q", "--overwrite", *place]) == 0
    assert names(tmp_path) == ["scores"]
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--posterior", "kron"], "config.posterior ('diag' there, 'kron' now)"),
        (["--corrupt-label", "0.1"], "data.fingerprint"),
        (["--tol", "0.001"], "config.method.tol"),
        (["--shard", "1/2"], "shard"),
        (["--threads", "2"], "threads (1 there, 2 now)"),
    ],
)
def test_another_command_does_not_go_on_from_these_blocks(changed, named, tmp_path, monkeypatch, capsys):
    import torch

    command = [*WINE, "-q", "--output", str(tmp_path / "scores")]
    interrupted(monkeypatch, command)
    capsys.readouterr()
    try:
        assert main([*command, *changed]) == 2
    finally:
        torch.set_num_threads(1)
    err = capsys.readouterr().err
    assert named in err
    assert "remove the folder to start anew" in err


def test_a_checkpoint_without_output_stays(tmp_path, monkeypatch, capsys):
    command = [*WINE, "--checkpoint", str(tmp_path / "kept")]
    interrupted(monkeypatch, command)
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out[out.index("{") :])["data"]["n_samples"] == 178
    assert "2 finished blocks" in " ".join(err.split())
    assert "run.json" in names(tmp_path / "kept")


def test_no_blocks_are_kept_where_none_are_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "put", lambda *_: pytest.fail("a block was kept"))
    assert main([*WINE, "-q", "--no-checkpoint", "--output", str(tmp_path / "scores")]) == 0
    assert main([*WINE, "-q"]) == 0
    assert names(tmp_path) == ["scores"]


@pytest.mark.parametrize("place", ["scores", "scores/kept", "."])
def test_blocks_and_scores_need_folders_of_their_own(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*WINE, "--output", "scores", "--checkpoint", place]) == 2
    assert "need separate places" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_contradictions_are_refused(tmp_path, capsys):
    assert main([*WINE, "--checkpoint", str(tmp_path / "kept"), "--no-checkpoint"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    for wrong in (["--redundancy"], ["--report", str(tmp_path / "page.html")]):
        assert main([*WINE, "--shard", "1/2", *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err
    assert main([*WINE, "--shard", "3/2"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_a_regression_is_refused_before_any_work(capsys):
    assert main(["compute", "--dataset", "diabetes", "--shard", "1/2"]) == 2
    assert "nothing to divide" in capsys.readouterr().err


def test_pairs_go_on_too_and_are_not_divided(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "p.npz", left=rng.normal(size=(40, 4)), right=rng.normal(size=(40, 3)))
    (tmp_path / "a").mkdir()
    monkeypatch.setattr("lsi.loo.contrastive.newton.TASK_PAIRS", 16)
    command = ["compute", "-d", str(tmp_path / "p.npz"), "-q", "--audit", "2", "--dim", "2"]
    output = ["--output", str(tmp_path / "a" / "scores")]
    interrupted(monkeypatch, [*command, *output], 3)
    assert "2 of 3 blocks of leave-one-out" in capsys.readouterr().err
    assert main([*command, *output]) == 0
    assert names(tmp_path / "a") == ["scores"]
    assert main([*command, "--output", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/scores/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()
    assert main([*command, "--shard", "1/2"]) == 2
    assert "pairs cannot be scored in shards" in capsys.readouterr().err


def test_an_encoded_dataset_goes_on_from_its_features_and_its_blocks(tmp_path, monkeypatch, capsys):
    from tests.makers import encoded_image, pictures

    pixels, codes = pictures(140, side=8)
    for k, (picture, code) in enumerate(zip(pixels, codes, strict=True)):
        (tmp_path / "data" / str(code % 3)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / str(code % 3) / f"{k:03}.png").write_bytes(encoded_image(picture))
    settings = ["-q", "--encoder", "raw", "--audit", "3", "--cache-dir", str(tmp_path / "cache")]
    command = ["compute", "-d", str(tmp_path / "data"), *settings]
    (tmp_path / "a").mkdir()
    output = ["--output", str(tmp_path / "a" / "scores")]
    with monkeypatch.context() as patch:
        patch.setattr("lsi.features.growing.Growing.finish", _interrupt)
        assert main([*command, *output]) == 130
    assert "interrupted: what was encoded so far is kept" in capsys.readouterr().err
    interrupted(monkeypatch, [*command, *output], 3)
    assert main([*command, *output]) == 0
    assert lsi.load(tmp_path / "a/scores").manifest["encoder"]["rows_already_there"] == 140
    assert main([*command, "--no-checkpoint", "--output", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a/scores/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()


SLOW = """
import sys, time, torch, lsi.run.key
lsi.run.key._code = lambda: "the same, even while someone edits it"
torch.set_num_threads(1)
from lsi.execution.checkpoint import Checkpoint
from lsi.cli import main
put = Checkpoint.put
def slow(self, name, arrays):
    put(self, name, arrays)
    if name.endswith("-000000"):
        time.sleep(60)
Checkpoint.put = slow
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_ends_as_ctrl_c_does_and_another_run_waits_its_turn(tmp_path, monkeypatch, capsys, whole):
    monkeypatch.setattr("lsi.run.key._code", lambda: "the same, even while someone edits it")
    command = [*WINE, "-q", "--output", str(tmp_path / "scores")]
    started = subprocess.Popen([sys.executable, "-c", SLOW, *command], stderr=subprocess.PIPE, text=True)
    try:
        first = tmp_path / "scores.unfinished" / "leave-one-out-000000.block"
        for _ in range(600):
            if first.exists():
                break
            time.sleep(0.05)
        assert main(command) == 2
        assert "another run is about to write" in capsys.readouterr().err
        elsewhere = ["--checkpoint", str(first.parent), "--output", str(tmp_path / "other")]
        assert main([*WINE, "-q", *elsewhere]) == 2
        assert "another run is at work in" in capsys.readouterr().err
        started.send_signal(signal.SIGTERM)
        err = started.communicate(timeout=30)[1]
    finally:
        started.kill()
    assert started.returncode == 130
    assert "1 of 3 blocks of leave-one-out are kept in" in err
    assert main(command) == 0
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole
    assert names(tmp_path) == ["scores"]


def test_locks_of_a_killed_run_do_not_stay_in_the_way(tmp_path):
    (tmp_path / ".scores.lock").write_text("")
    (tmp_path / "scores.unfinished").mkdir()
    (tmp_path / "scores.unfinished" / "run.lock").write_text("")
    assert main([*WINE, "-q", "--output", str(tmp_path / "scores")]) == 0
    assert names(tmp_path) == ["scores"]


def test_parts_are_merged_to_the_whole(tmp_path, capsys, whole):
    for k in (1, 2, 3):
        assert main([*WINE, "-q", "--shard", f"{k}/3", "--output", str(tmp_path / f"part{k}")]) == 0
    assert main([*WINE, "--shard", "3/3", "--output", str(tmp_path / "part3"), "--overwrite"]) == 0
    assert "part 3/3 of it" in capsys.readouterr().err
    parts = [str(tmp_path / f"part{k}") for k in (1, 2, 3)]
    assert main(["merge", *parts[:2], "--output", str(tmp_path / "scores")]) == 2
    assert "3 is missing" in capsys.readouterr().err
    page = tmp_path / "page.html"
    assert main(["merge", *parts, "--output", str(tmp_path / "scores"), "--report", str(page)]) == 0
    assert "178" in page.read_text(encoding="utf-8")
    assert "Audit: 9 samples" in capsys.readouterr().out
    assert (tmp_path / "scores" / "scores.parquet").read_bytes() == whole
    assert names(tmp_path) == ["page.html", "part1", "part2", "part3", "scores"]
    assert main(["merge", *parts, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overview"]["n_scored"] == 178
    assert main(["merge", *parts, "--output", parts[0], "--overwrite"]) == 2
    assert "one of the parts" in capsys.readouterr().err
    assert main(["merge", *parts, "--output", str(tmp_path / "scores")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "scores")]) == 2
    assert "is not part of a run" in capsys.readouterr().err
    assert main(["merge"]) == 2
    assert main(["merge", str(tmp_path / "nowhere")]) == 2


def test_a_full_disk_is_told_with_what_is_kept(tmp_path, monkeypatch, capsys):
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*WINE, "-q", "--output", str(tmp_path / "scores")]) == 2
    err = capsys.readouterr().err
    assert "disk is full" in err
    assert "1 of 3 blocks of leave-one-out are kept" in err


def test_what_a_run_left_that_kept_nothing_blocks_no_other(tmp_path, monkeypatch):
    command = [*WINE, "-q", "--output", str(tmp_path / "scores"), "--overwrite"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*command, "--weight-decay", "1e-2"]) == 130
    assert set(names(tmp_path / "scores.unfinished")) <= {"run.json", "run.lock"}
    assert main(command) == 0
    assert names(tmp_path) == ["scores"]
