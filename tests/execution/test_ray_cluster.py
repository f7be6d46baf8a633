"""Runs on a Ray cluster against runs in this process: the same bytes, whatever happens to workers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from tests import makers

import lsi
import lsi.execution.ray_cluster
from lsi.data.items import ArrayItems, FileItems
from lsi.errors import ConvergenceError, InputError
from lsi.execution.work import Here, Work
from lsi.features import FeatureCache, chunks, encode_items
from lsi.features.encoders.base import Encoder

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")

from lsi.execution.packing import LARGE, pack, unpack  # noqa: E402
from lsi.execution.ray_cluster import RayExecutor, WorkersLostError, check_cluster, open_cluster  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    """Two single-core workers; starting them takes seconds."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=256 << 20,
        )
    yield "auto"
    ray.shutdown()


def clusters(n=240, d=12, c=4, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, c, n)
    X = random.normal(size=(c, d))[y] * 0.6 + random.normal(size=(n, d))
    return X.astype(np.float32), y


@pytest.mark.parametrize("address", ["", 3, "here", "host:port", "host:99999", "ray://"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="cluster"):
        check_cluster(address)


def test_nobody_at_the_address_is_told_within_seconds():
    began = time.monotonic()
    with pytest.raises(InputError, match="nothing answers at '127.0.0.1:9'"):
        lsi.score(*clusters(), cluster="127.0.0.1:9")
    assert time.monotonic() - began < 10


def test_a_gpu_with_a_number_is_refused():
    with pytest.raises(InputError, match="choose their GPUs"), open_cluster("local", torch.device("cuda:1")):
        pass


RUNS = {
    "dense, certified": dict(method=lsi.Newton(tol=1e-4)),
    "blocks": dict(method=lsi.Newton(solver="blocks")),
    "retrain": dict(method=lsi.Retrain(epochs=15, n_seeds=2), subset=range(120)),
    "network": dict(probe=lsi.MLPProbe(hidden=(6,)), method=lsi.Retrain(epochs=10), subset=range(60)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_cluster_gives_the_bytes_of_a_local_run(cluster, name):
    X, y = clusters()
    here, there = lsi.score(X, y, **RUNS[name]), lsi.score(X, y, cluster=cluster, **RUNS[name])
    pd.testing.assert_frame_equal(here.to_frame(), there.to_frame(), check_exact=True)
    assert here.audit.exact == there.audit.exact
    assert here.manifest["data"] == there.manifest["data"]


def test_pairs_too(cluster):
    random = np.random.default_rng(0)
    left = random.normal(size=(40, 6))
    right = left @ random.normal(size=(6, 5)) + 0.1 * random.normal(size=(40, 5))
    here = lsi.score_pairs(left, right, probe=lsi.ContrastiveProbe(dim=3), audit=2)
    there = lsi.score_pairs(left, right, probe=lsi.ContrastiveProbe(dim=3), audit=2, cluster=cluster)
    pd.testing.assert_frame_equal(here.to_frame(), there.to_frame(), check_exact=True)
    assert here.audit.exact == there.audit.exact


class Shades(Encoder):
    """Mean and spread of pictures, through weights; the first chunks take longest."""

    name, chunk = "shades", 4

    def __init__(self):
        self.weights = torch.nn.Linear(2, 3, bias=False).requires_grad_(False)

    def key(self):
        return {"encoder": "shades"}

    def prepare(self, items):
        pixels = [np.asarray(item, dtype=np.float32) for item in items]
        return [(list(range(len(items))), torch.tensor([[part.mean(), part.std()] for part in pixels]))]

    def forward(self, inputs):
        time.sleep(float(0.2 * (inputs[0, 0] < 40)))
        return self.weights(inputs)


def pictures(folder, broken=()):
    from PIL import Image

    for k in range(26):
        pixels = np.random.default_rng(k).integers(0, 10 * k + 5, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        if k in broken:
            (folder / f"{k:02d}.png").write_bytes(b"nothing")
    return FileItems("image", folder, [f"{k:02d}.png" for k in range(26)])


def test_pictures_are_encoded_in_workers(cluster, tmp_path):
    (tmp_path / "images").mkdir()
    items, encoder = pictures(tmp_path / "images", broken=[9]), Shades()
    here = encode_items(items, encoder, FeatureCache(tmp_path / "here"), skip_broken=True)
    there = encode_items(items, encoder, FeatureCache(tmp_path / "there"), skip_broken=True, cluster=cluster)
    np.testing.assert_array_equal(there.features, here.features)
    assert here.broken == there.broken and list(here.broken) == [9]
    assert np.isfinite(np.delete(here.features, 9, axis=0)).all()
    with pytest.raises(InputError, match=r"09\.png.*--skip-broken"):
        encode_items(items, encoder, FeatureCache(tmp_path / "strict"), cluster=cluster)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_pretrained_encoders_give_the_same_bytes_in_workers(cluster, tmp_path, kind):
    pytest.importorskip("transformers", reason="needs the extra 'encoders'")
    from lsi.features import build_encoder

    (tmp_path / "images").mkdir()
    folder = makers.tiny_resnet(tmp_path) if kind == "image" else makers.tiny_bert(tmp_path)
    texts = ["good film", "the very bad plot", "a", "bad film a good plot"] * 20
    items = pictures(tmp_path / "images") if kind == "image" else ArrayItems("text", texts)
    encoder = build_encoder(kind, str(folder), batch_size=4)
    here = encode_items(items, encoder, FeatureCache(tmp_path / "here"))
    there = encode_items(items, encoder, FeatureCache(tmp_path / "there"), cluster=cluster)
    assert np.ptp(here.features, axis=0).max() > 0
    np.testing.assert_array_equal(there.features, here.features)


def test_files_are_sent_by_their_content(tmp_path):
    items = pictures(tmp_path)
    sent = [payload for _, payloads in chunks.Blocks(items, 0, 4, by_content=True) for payload in payloads]
    assert sent == [(tmp_path / f"{k:02d}.png").read_bytes() for k in range(26)]
    (tmp_path / "25.png").unlink()  # then the worker says why it cannot be read
    assert list(chunks.Blocks(items, 24, 4, by_content=True))[0][1][1] == tmp_path / "25.png"


def test_an_interrupted_encoding_goes_on_anywhere(cluster, tmp_path):
    (tmp_path / "images").mkdir()
    items, encoder, cache = pictures(tmp_path / "images"), Shades(), FeatureCache(tmp_path / "cache")

    def interrupt(stage, done, total):
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="go on"):
        encode_items(items, encoder, cache, cluster=cluster, progress=interrupt)
    found = encode_items(items, encoder, cache)
    assert found.record["rows_already_there"] == 12
    whole = encode_items(items, encoder, FeatureCache(tmp_path / "whole"))
    np.testing.assert_array_equal(found.features, whole.features)


def test_progress_counts_every_sample(cluster):
    seen = []
    X, y = clusters()
    lsi.score(X, y, audit=False, cluster=cluster, progress=lambda *told: seen.append(told))
    assert [told for told in seen if told[0] == "leave-one-out"][-1] == ("leave-one-out", 240, 240)


class Blocks:
    """An owner whose blocks last, fail, or tell where they were done."""

    def __init__(self, shared):
        self.shared = shared

    def slow(self, block, tick):
        time.sleep(0.2)
        return {"sum": (self.shared.sum(0) * block).numpy(), "pid": np.array(os.getpid())}

    def deadly(self, block, tick):
        if os.getpid() != block:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": np.array(os.getpid())}

    def fail(self, block, tick):
        raise ConvergenceError(f"block {block}")

    def write(self, block, tick):
        return {"writable": np.array(block)}

    def threads(self, block, tick):
        return {"threads": np.array(torch.get_num_threads())}


def done(executor, owner, method, blocks):
    return dict(Work(executor).map("stage", owner, method, blocks, [1] * len(blocks)))


def test_killed_workers_change_nothing(cluster):
    owner, blocks, stop = Blocks(torch.arange(200_000.0).view(-1, 4)), list(range(12)), threading.Event()
    executor, pids, killed = RayExecutor(torch.device("cpu")), set(), []

    def kill():
        while not stop.wait(0.6) and len(killed) < 3:
            victims = pids - set(killed) - {os.getpid()}
            if victims:
                killed.append(victims.pop())
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = {}
        for place, arrays in executor.run(owner, "slow", blocks, None):
            pids.add(int(arrays.pop("pid")))
            found[place] = arrays
    finally:
        stop.set()
        killer.join()
    assert killed
    assert sorted(found) == blocks
    for block in blocks:
        np.testing.assert_array_equal(found[block]["sum"], (owner.shared.sum(0) * block).numpy())


def test_a_long_block_that_no_worker_survives_is_done_here(cluster):
    owner = Blocks(torch.zeros(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lsi.execution.ray_cluster, "ATTEMPTS", 2)
        with pytest.raises(WorkersLostError, match="may lack memory"):
            done(RayExecutor(torch.device("cpu")), owner, "deadly", [os.getpid()])
    owner.tries_elsewhere = 2
    found = done(RayExecutor(torch.device("cpu")), owner, "deadly", [os.getpid()])
    assert int(found[0]["pid"]) == os.getpid()


def test_errors_come_back_as_themselves_and_are_not_tried_again(cluster):
    with pytest.raises(ConvergenceError, match="^block 3$"):
        done(RayExecutor(torch.device("cpu")), Blocks(torch.zeros(2)), "fail", [3])


def test_a_worker_that_is_cancelled_while_it_imports_does_not_go_on():
    """A half-finished import cannot be repeated: the next block would fail at it, as `scipy.ndimage` did."""
    code = """if True:
        import lsi.execution.ray_cluster as ray_cluster
        def unpack(payload, parts):
            raise KeyboardInterrupt
        ray_cluster.unpack = unpack
        try:
            ray_cluster._do(1, "", None, "", b"")
        finally:
            print("went on")
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")


def test_an_interrupted_run_leaves_its_finished_blocks(cluster, tmp_path):
    X, y = clusters()

    def interrupt(stage, count, total):
        if stage == "leave-one-out" and count > 60:
            raise KeyboardInterrupt

    settings = dict(audit=False, label_noise=False, cluster=cluster, checkpoint=tmp_path / "blocks")
    with pytest.raises(KeyboardInterrupt):
        lsi.score(X, y, progress=interrupt, **settings)
    assert list((tmp_path / "blocks").glob("leave-one-out-*.block"))
    again = lsi.score(X, y, **settings)
    whole = lsi.score(X, y, audit=False, label_noise=False)
    pd.testing.assert_frame_equal(again.to_frame(), whole.to_frame(), check_exact=True)


def test_workers_use_the_threads_of_the_driver(cluster):
    found = done(RayExecutor(torch.device("cpu")), Blocks(torch.zeros(2)), "threads", [0, 1])
    assert {int(arrays["threads"]) for arrays in found.values()} == {torch.get_num_threads()}


def test_the_same_memory_is_sent_once(cluster, monkeypatch):
    sent, put = [], ray.put
    monkeypatch.setattr(ray, "put", lambda value: sent.append(np.asarray(value).nbytes) or put(value))
    executor, large = RayExecutor(torch.device("cpu")), torch.zeros(LARGE)
    for _ in range(3):
        done(executor, Blocks(large), "write", [1, 2])
    assert sum(size >= large.nbytes for size in sent) == 1
    large[0] = 1.0
    done(executor, Blocks(large), "write", [1])
    assert sum(size >= large.nbytes for size in sent) == 2


def test_a_worker_that_no_node_can_hold_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(InputError, match="64 processors"):
        RayExecutor(torch.device("cpu"))


def test_other_versions_are_refused(cluster, monkeypatch):
    mine = lsi.execution.ray_cluster.versions()
    monkeypatch.setattr(lsi.execution.ray_cluster, "versions", lambda: {**mine, "torch": "1.0"})
    with pytest.raises(InputError, match=r"torch .* instead of 1\.0"):
        RayExecutor(torch.device("cpu"))


def test_the_command_tells_how_many_workers_share_the_work(cluster, capsys):
    from lsi.cli import main

    assert main(["compute", "--dataset", "digits", "--first", "200", "--ray", cluster, "--no-audit"]) == 0
    assert "cluster auto: 2 workers of 1 thread" in capsys.readouterr().err
    assert main(["plan", "digits", "--ray", cluster]) == 0
    assert "2 workers on the cluster" in capsys.readouterr().out


class TestPacking:
    def test_strides_alignment_and_shared_memory_survive(self):
        whole = torch.arange(60_000.0).view(300, 200)
        views = {"t": whole.T, "cut": whole[:, :150], "row": whole[7:], "small": whole[:2, :3].clone()}
        payload, parts = pack(views)
        assert len(parts) == 1
        again = unpack(payload, [part.read() for part in parts])
        for name, view in views.items():
            assert again[name].stride() == view.stride()
            assert torch.equal(again[name], view)

    def test_a_view_takes_only_its_own_memory_along(self):
        large = torch.zeros((100, LARGE // 4))
        payload, parts = pack(large[3])
        assert len(payload) < 2000
        assert sum(part.read().nbytes for part in parts) <= large[3].nbytes + 64
        assert torch.equal(unpack(payload, [part.read() for part in parts]), large[3])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])
    def test_every_type_survives(self, dtype):
        tensor = (torch.arange(LARGE) % 2).to(dtype)
        payload, parts = pack([tensor])
        (again,) = unpack(payload, [part.read() for part in parts])
        assert again.dtype == dtype and torch.equal(again, tensor)

    def test_mapped_files_become_plain_arrays(self, tmp_path):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(100, 200)))
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        payload, parts = pack(mapped)
        assert parts[0].key == pack(mapped)[1][0].key
        again = unpack(payload, [part.read() for part in parts])
        assert type(again) is np.ndarray and np.array_equal(again, mapped)


def test_class_rows_are_the_whole_hessian():
    from lsi.features.design import Design
    from lsi.probes.softmax.class_rows import ClassRows
    from lsi.probes.softmax.model import SoftmaxModel

    X, y = clusters(d=140)
    weight = torch.rand(len(X), dtype=torch.float64)
    model = SoftmaxModel.start(Design(X, True), torch.from_numpy(y), weight, 1e-3, 4)
    model.theta = torch.randn(model.theta.shape, dtype=torch.float64)
    assert torch.equal(ClassRows(model).hessian(model.theta, Work(Here())), model.hessian())


LOCAL_RUN = """
import json, os, signal, sys, warnings
import numpy as np, psutil
warnings.simplefilter("ignore")
import torch
from lsi.execution.ray_cluster import open_cluster
torch.set_num_threads(1)
with open_cluster("local", torch.device("cpu")):
    found = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ports = [c.laddr.ip for p in found for c in p.net_connections(kind="inet") if c.status == "LISTEN"]
    import ray
    session = ray._private.worker._global_node.get_session_dir_path()
    print(json.dumps([ports, session, [p.pid for p in found[1:]]]), flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


# They try to tell a head that has gone for about a minute, and then end.
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def local_run(how):
    """Start and leave a local cluster in a process; return addresses, session folder, other processes."""
    done = subprocess.run([sys.executable, "-c", LOCAL_RUN, how], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 0)
    return json.loads(done.stdout)


def living(pids):
    """Return the names of these processes that still run: zombies do not."""
    names = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            one = psutil.Process(pid)
            names += [one.name()] * (one.status() != psutil.STATUS_ZOMBIE)
    return names


def test_a_local_cluster_is_for_this_machine_alone_and_leaves_nothing_behind():
    addresses, killed_session, pids = local_run("kill")
    assert len(addresses) > 3
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}
    until = time.monotonic() + 30
    while working := set(living(pids)) - AGENTS:
        assert time.monotonic() < until, working
        time.sleep(0.2)
    _, session, pids = local_run("leave")
    assert not Path(session).parents[1].exists()
    assert not Path(killed_session).parents[1].exists()  # the next cluster removes it
    assert not living(pids)
