"""Interrupted runs go on to the same bytes, and only with the same data and settings."""

import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

import lsi
from lsi.errors import InputError, OutputError
from lsi.execution.checkpoint import Checkpoint, is_checkpoint, run_of
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.retrain.engine import RetrainEngine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
Y = (X[:, 0] + 0.5 * RNG.normal(size=200) > 0).astype(int) + 2 * (X[:, 1] > 0.8)
NAMES = np.array(["ant", "bee", "cat", "dog"])[Y]
SEVERAL = np.stack([X[:, 0] > 0, X[:, 1] > 0.5], 1).astype(int)
LEFT, RIGHT = RNG.normal(size=(50, 4)), RNG.normal(size=(50, 3))
STOPPED = lsi.Retrain(epochs=6, lr=0.05, n_seeds=2, record_every=3)


def score(**settings):
    arguments = {"X": X, "y": Y, "audit": 3, "label_noise": False} | settings
    return lsi.score(arguments.pop("X"), arguments.pop("y"), **arguments)


def pairs(**settings):
    probe = lsi.ContrastiveProbe(dim=2)
    return lsi.score_pairs(LEFT, RIGHT, probe=probe, **{"audit": 2, **settings})


KINDS = {
    "newton": lambda **more: score(**more),
    "named": lambda **more: score(y=NAMES, label_noise=True, posterior="kron", **more),
    "full": lambda **more: score(posterior="full", **more),
    "blocks": lambda **more: score(method=lsi.Newton(solver="blocks"), **more),
    "retrain": lambda **more: score(method=STOPPED, **more),
    "sigmoid": lambda **more: score(y=SEVERAL, probe=lsi.SigmoidProbe(), **more),
    "mlp": lambda **more: score(
        probe=lsi.MLPProbe(hidden=(3,)), method=lsi.Retrain(epochs=4, lr=0.05), subset=range(90), **more
    ),
    "last layer": lambda **more: score(
        probe=lsi.MLPProbe(
            hidden=(3,), posterior_layers="last", training=lsi.Retrain(epochs=4, lr=0.05), compare_whole=3
        ),
        **more,
    ),
    "pairs": lambda **more: pairs(**more),
    "pairs, unrefined": lambda **more: pairs(method=lsi.Newton(tol=None), **more),
    "pairs, retrain": lambda **more: pairs(method=lsi.Retrain(epochs=4, lr=0.1), **more),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(BlockEngine, "block_size", lambda self: 50)
    monkeypatch.setattr(RetrainEngine, "block_size", lambda self: 50)
    monkeypatch.setattr("lsi.loo.contrastive.newton.TASK_PAIRS", 20)


def content(scores, folder):
    scores.save(folder, overwrite=True)
    return (folder / "scores.parquet").read_bytes()


def stop_after(monkeypatch, count):
    """Let the count-th result that is kept be the last one."""
    put, kept = Checkpoint.put, []

    def last(self, name, arrays):
        put(self, name, arrays)
        kept.append(name)
        if len(kept) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "put", last)
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_interrupted_again_and_again_ends_in_the_same_bytes(kind, tmp_path, monkeypatch):
    run, folder = KINDS[kind], tmp_path / "kept"
    whole = run()
    ends, done = 0, []
    while True:
        with monkeypatch.context() as patch:
            names = stop_after(patch, 2)
            try:
                resumed = run(checkpoint=folder)
                break
            except KeyboardInterrupt:
                assert not set(names) & set(done)  # nothing is done twice
                done += names
                ends += 1
    assert ends >= 2
    assert content(resumed, tmp_path / "a") == content(whole, tmp_path / "b")
    assert resumed.audit.exact == whole.audit.exact
    for entry in ("fit", "training", "label_noise", "whole_network"):
        assert resumed.manifest.get(entry) == whole.manifest.get(entry)


def test_a_run_that_kills_itself_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("lsi.run.key._code", lambda: "the same, even while someone edits it")
    code = f"""
import os, signal, numpy as np, torch, lsi, lsi.run.key
lsi.run.key._code = lambda: "the same, even while someone edits it"
from lsi.execution.checkpoint import Checkpoint
torch.set_num_threads(1)
put = Checkpoint.put
def kill(self, name, arrays):
    put(self, name, arrays)
    if name.endswith("-000001"):
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.put = kill
with np.load({str(tmp_path / "data.npz")!r}) as data:
    lsi.score(data["X"], data["y"], audit=3, label_noise=False, checkpoint={str(tmp_path / "kept")!r})
"""
    np.savez(tmp_path / "data.npz", X=X, y=Y)
    process = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == -signal.SIGKILL
    assert {"fit.block", "leave-one-out-000001.block", "run.json"} <= set(os.listdir(tmp_path / "kept"))
    resumed = score(checkpoint=tmp_path / "kept")
    assert content(resumed, tmp_path / "a") == content(score(), tmp_path / "b")


def test_an_interruption_says_what_is_kept(tmp_path, monkeypatch):
    stop_after(monkeypatch, 4)
    with pytest.raises(
        KeyboardInterrupt, match=r"2 of 4 blocks of leave-one-out are kept in '.*kept'\. Start"
    ):
        score(checkpoint=tmp_path / "kept")


def test_what_is_gone_on_from_is_said(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            score(checkpoint=tmp_path / "kept")
    said = []
    score(checkpoint=Checkpoint(tmp_path / "kept", said.append))
    assert said == [
        f"continuing from what is kept in {str(tmp_path / 'kept')!r}: 2 finished blocks",
        "leave-one-out: 2 of 4 blocks are done already",
    ]


MOVED = X.copy()
MOVED[7, 2] += 1e-9
CHANGES = {
    "data.fingerprint": {"X": MOVED},
    "fingerprint": {"y": np.where(np.arange(200) == 3, 1 - Y % 2, Y)},
    "sample_id": {"sample_id": [f"s{i}" for i in range(200)]},
    "scored": {"subset": range(150)},
    "config.posterior": {"posterior": "kron"},
    "config.method.tol": {"method": lsi.Newton(tol=1e-3)},
    "config.method.kind": {"method": lsi.Retrain()},
    "config.probe.weight_decay": {"probe": lsi.LinearProbe(weight_decay=1e-3)},
    "config.prior_precision (1.0 there, 2.0 now)": {"prior_precision": 2.0},
    "config.seed (0 there, 1 now)": {"seed": 1},
    "audit (3 there, 4 now)": {"audit": 4},
    "label_noise (False there, True now)": {"label_noise": True},
    "memory": {"memory": "2GiB"},
    "shard (None there, [1, 2] now)": {"shard": "1/2"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "kept"
    score(checkpoint=folder)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_by_name(name, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(InputError, match="blocks of another run") as refusal:
        score(checkpoint=finished, **CHANGES[name])
    assert name in str(refusal.value)
    assert "remove the folder to start anew" in str(refusal.value)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_another_number_of_threads_is_refused(finished):
    torch.set_num_threads(2)
    try:
        with pytest.raises(InputError, match=r"threads \(1 there, 2 now\)"):
            score(checkpoint=finished)
    finally:
        torch.set_num_threads(1)


def test_another_version_is_refused(finished, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9")
    with pytest.raises(InputError, match=r"versions\.torch"):
        score(checkpoint=finished)


def test_other_code_of_the_same_version_is_refused(finished, monkeypatch):
    monkeypatch.setattr("lsi.run.key._code", lambda: "f00")
    with pytest.raises(InputError, match="which differs in code"):
        score(checkpoint=finished)


def test_the_solver_stays_when_the_memory_has_changed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            score(checkpoint=tmp_path / "kept")
    monkeypatch.setattr("lsi.tasks.classification.choose_solver", lambda *_, **__: "blocks")
    resumed = score(checkpoint=tmp_path / "kept")
    assert resumed.manifest["fit"]["solver"] == "dense"
    assert score().manifest["fit"]["solver"] == "blocks"


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("echo evil > evil",)


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("theta.npy", bytes(1 << 20))
    return buffer.getvalue()


def signed(checkpoint, payload):
    """A block whose sum is right, as one who can write into the folder can make it."""
    digest = hashlib.sha256(f"{checkpoint.run}/fit/".encode() + payload).hexdigest()
    return b"lsi-block 1 " + digest.encode() + b"\n" + payload


DAMAGES = {
    "empty": lambda block, _: b"",
    "cut": lambda block, _: block[:-20],
    "longer": lambda block, _: block + b"\x00",
    "a bit": lambda block, _: block[:300] + bytes([block[300] ^ 1]) + block[301:],
    "no head": lambda block, _: block[77:],
    "another's": lambda block, store: (store.folder / "other.block").read_bytes(),
    "a pickle": lambda block, store: signed(store, pickle.dumps(Evil())),
    "a pickled array": lambda block, store: signed(store, npz(theta=np.array([Evil()], dtype=object))),
    "a bomb": lambda block, store: signed(store, bomb()),
    "no archive": lambda block, store: signed(store, b"PK\x03\x04 and no more"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_counts_as_not_done(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    store.put("fit", {"theta": np.arange(6.0)})
    store.put("other", {"theta": np.arange(6.0)})
    path = tmp_path / "kept" / "fit.block"
    assert store.get("fit")["theta"].tolist() == list(range(6))
    path.write_bytes(DAMAGES[damage](path.read_bytes(), store))
    with pytest.warns(UserWarning, match=r"fit\.block' is damaged, and is computed again"):
        assert store.get("fit") is None
    store.put("fit", {"theta": np.arange(3.0)})
    assert store.get("fit")["theta"].tolist() == [0, 1, 2]
    assert not (tmp_path / "evil").exists()
    store.close()


def test_blocks_of_another_run_do_not_count(tmp_path):
    for number in (1, 2):
        store = Checkpoint(tmp_path / f"kept{number}")
        store.open({"a": number})
        store.put("fit", {"theta": np.arange(6.0)})
        store.close()
    (tmp_path / "kept1" / "fit.block").replace(tmp_path / "kept2" / "fit.block")
    store.open({"a": 2})
    with pytest.warns(UserWarning, match="computed again"):
        assert store.get("fit") is None
    store.close()
    (tmp_path / "kept2" / "run.json").unlink()
    with pytest.raises(InputError, match="holds other files"):
        store.open({"a": 2})


def test_a_damaged_block_is_done_again_to_the_same_bytes(tmp_path):
    score(checkpoint=tmp_path / "kept")
    for name in ("leave-one-out-000002", "fit", "audit-000000"):
        path = tmp_path / "kept" / f"{name}.block"
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is damaged, and is computed again"):
        again = score(checkpoint=tmp_path / "kept")
    assert content(again, tmp_path / "a") == content(score(), tmp_path / "b")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "lsi-checkpoint"}', '{"format": 1}', "[" * 5000])
def test_a_damaged_key_is_refused(text, tmp_path):
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    store.close()
    (tmp_path / "kept" / "run.json").write_text(text)
    with pytest.raises(InputError, match="Remove the folder to start anew"):
        store.open({"a": 1})
    assert run_of(tmp_path / "kept") is None
    store.close()


def test_a_key_of_a_later_version_is_refused(tmp_path):
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    store.close()
    path = tmp_path / "kept" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(InputError, match="another version wrote it"):
        Checkpoint(tmp_path / "kept").open({"a": 1})


def foreign_file(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")


def foreign_link(folder):
    folder.mkdir()
    (folder.parent / "precious").write_text("years of work")
    (folder / ".lsi-0123456789ab").symlink_to(folder.parent / "precious")


def foreign_draft(folder):
    folder.mkdir()
    (folder / "thesis.tmp").write_text("years of work")


def foreign_folder(folder):
    (folder / "fit.block").mkdir(parents=True)


@pytest.mark.parametrize("make", [foreign_file, foreign_draft, foreign_link, foreign_folder])
def test_a_folder_with_anything_else_is_left_alone(make, tmp_path):
    make(tmp_path / "kept")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert not is_checkpoint(tmp_path / "kept")
    with pytest.raises(InputError, match="holds other files"):
        score(checkpoint=tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_checkpoint_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(InputError, match="is a file"):
        score(checkpoint=tmp_path / "kept")


def test_what_a_killed_run_was_writing_goes(tmp_path):
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    for name in (".lsi-0123456789ab", ".lsi-ba9876543210"):
        (tmp_path / "kept" / name).mkdir()
        (tmp_path / "kept" / name / "draft.block").write_bytes(b"half")
    store.close()
    assert is_checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    assert sorted(os.listdir(tmp_path / "kept")) == ["run.json", "run.lock"]
    store.put("fit", {"theta": np.zeros(1)})
    store.remove()
    assert not (tmp_path / "kept").exists()


def test_two_runs_exclude_each_other(tmp_path):
    store = Checkpoint(tmp_path / "kept")
    store.open({"a": 1})
    store.put("fit", {"x": np.zeros(2)})
    with pytest.raises(OutputError, match="another run is at work in .* Wait for it"):
        score(checkpoint=tmp_path / "kept")
    store.close()
    with pytest.raises(InputError, match="another run"):
        score(checkpoint=tmp_path / "kept")


def test_a_folder_that_was_not_used_goes(tmp_path):
    store = Checkpoint(tmp_path / "kept")
    store.take()
    store.close()
    assert not (tmp_path / "kept").exists()


def test_a_full_disk_keeps_what_is_there(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fsync, calls = os.fsync, []

        def full(handle):
            calls.append(handle)
            if len(calls) > 8:
                raise OSError(28, "No space left on device")
            fsync(handle)

        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"disk is full.*1 of 4 blocks of leave-one-out are kept"):
            score(checkpoint=tmp_path / "kept")
    assert not list((tmp_path / "kept").glob(".lsi-*"))
    resumed = score(checkpoint=tmp_path / "kept")
    assert content(resumed, tmp_path / "a") == content(score(), tmp_path / "b")


@pytest.mark.parametrize("left", [(), ("run.lock",), ("run.json",), ("run.json", "run.lock")])
def test_a_folder_without_blocks_is_in_nobodys_way(left, tmp_path):
    """A run that ended before its first block leaves nothing to lose, whatever its settings were."""
    folder = tmp_path / "kept"
    folder.mkdir()
    for name in left:
        (folder / name).write_text(
            json.dumps({"format": "lsi-checkpoint", "version": 1, "key": {"seed": 1}})
            if "json" in name
            else ""
        )
    store = Checkpoint(folder)
    store.open({"seed": 2})
    store.put("fit", {"x": np.zeros(2)})
    store.close()
    again = Checkpoint(folder)
    with pytest.raises(InputError, match="another run, which differs in seed"):
        again.open({"seed": 1})
    again.close()
