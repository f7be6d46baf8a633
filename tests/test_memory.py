"""Budgets are kept, and blocks that a device has no room for are halved."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.cases import clusters

import lsi
from lsi.errors import InputError
from lsi.execution.halving import halving
from lsi.loo.newton import engine
from lsi.loo.newton.blocks import BlockSolver
from lsi.loo.newton.dense import DenseSolver
from lsi.loo.retrain.copies import CopiesEngine
from lsi.loo.retrain.engine import RetrainEngine
from lsi.planning.label_noise import needed_bytes
from lsi.validation.problem import Shape

X, Y = clusters(3, (40, 35, 25), 5)
MANY = clusters(7, (9,) * 12, 6)


def full(limit, calls):
    """Return a wrapper of a solver's method for a device with room for `limit` samples at a time."""

    def wrapped(method):
        def solve(self, index):
            calls.append(len(index))
            if len(index) > limit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return method(self, index)

        return solve

    return wrapped


def restrict(monkeypatch, limit, *methods):
    calls = []
    for owner, name in methods:
        monkeypatch.setattr(owner, name, full(limit, calls)(getattr(owner, name)))
    return calls


def assert_same(scores, expected, rtol=1e-6):
    assert_allclose(scores.lsi, expected.lsi, rtol=rtol)
    for name in ("loo_probability", "leverage"):
        assert_allclose(scores.to_frame()[name], expected.to_frame()[name], rtol=rtol, atol=1e-12)
    assert_allclose(scores.audit.max_relative_error, expected.audit.max_relative_error, atol=rtol)


@pytest.mark.parametrize(
    ("posterior", "tol"), [("diag", None), ("diag", 1e-2), ("kron", 1e-2), ("full", 1e-2)]
)
def test_dense_blocks_are_halved(monkeypatch, posterior, tol):
    settings = {"posterior": posterior, "method": lsi.Newton(tol=tol), "audit": 4}
    expected = lsi.score(X, Y, **settings)
    calls = restrict(monkeypatch, 20, (DenseSolver, "first_order"))
    assert_same(lsi.score(X, Y, **settings), expected)
    assert max(calls) > 20 >= calls[-1]


def test_sampled_corrections_are_halved(monkeypatch):
    monkeypatch.setattr(engine, "SAMPLED_WORK", 0.0)
    settings = {"subset": range(0, 100, 4), "audit": 2, "label_noise": False}
    expected = lsi.score(X, Y, **settings)
    calls = restrict(monkeypatch, 3, (DenseSolver, "first_order"))
    assert_same(lsi.score(X, Y, **settings), expected)
    assert max(calls) > 3


# Walks of many steps in float32 take another way after another rounding, which depends on what is multiplied
# together. They end within their certificates, here up to 1e-2.
@pytest.mark.parametrize(("tol", "rtol"), [(None, 1e-6), (1e-2, 1e-3)])
@pytest.mark.parametrize("posterior", ["diag", "kron"])
def test_class_blocks_are_halved(monkeypatch, posterior, tol, rtol):
    method = lsi.Newton(solver="blocks", tol=tol)
    settings = {"posterior": posterior, "method": method, "audit": 2, "subset": range(0, 108, 3)}
    expected = lsi.score(*MANY, **settings)
    calls = restrict(monkeypatch, 9, (BlockSolver, "first_order"), (BlockSolver, "sparse"))
    assert_same(lsi.score(*MANY, **settings), expected, rtol)
    assert max(calls) > 9


@pytest.mark.parametrize(("optimizer", "owner"), [("sgd", RetrainEngine), ("adam", CopiesEngine)])
def test_copies_that_are_trained_together_are_halved(monkeypatch, optimizer, owner):
    method = lsi.Retrain(epochs=6, lr=0.01, optimizer=optimizer, record_every=3)
    settings = {"method": method, "audit": 1, "subset": range(0, 100, 4)}
    expected, calls, train = lsi.score(X, Y, **settings), [], owner.train_along

    def along(self, wholes, index, *rest):
        calls.append(len(index))
        copies = train(self, wholes, index, *rest)
        if len(index) > 7:  # after the training, when ticks and records have been made
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return copies

    monkeypatch.setattr(owner, "train_along", along)
    found = lsi.score(X, Y, **settings)
    assert_allclose(found.lsi, expected.lsi, rtol=1e-4)  # float32, subtracted from nearly the same
    assert_allclose(found.to_frame()["lsi_epoch_3"], expected.to_frame()["lsi_epoch_3"], rtol=1e-4)
    assert max(calls) > 7 >= calls[-1]


def test_no_room_for_one_sample_is_refused_with_the_cure(monkeypatch):
    restrict(monkeypatch, 0, (DenseSolver, "first_order"))
    with pytest.raises(InputError, match="even a single sample.*Use fewer features"):
        lsi.score(X, Y)


def test_a_size_that_fits_is_kept_and_each_entry_is_done_once():
    seen = []

    def do(part):
        seen.append(len(part))
        if len(part) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return part.tolist()

    parts = list(halving(np.arange(11), 8, do))
    assert sum(parts, []) == list(range(11))
    assert seen == [8, 4, 2, 2, 2, 2, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def do(part):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(halving(np.arange(4), 4, do))


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
def test_budgets_move_values_by_rounding_only(posterior):
    expected = lsi.score(X, Y, posterior=posterior, audit=False).lsi
    for memory in ("40MiB", "64MiB", "1GiB"):
        assert_allclose(
            lsi.score(X, Y, posterior=posterior, audit=False, memory=memory).lsi, expected, rtol=1e-6
        )


def test_what_does_not_fit_is_refused_before_any_work():
    with pytest.raises(InputError, match="are available"):
        lsi.score(X, Y, memory="1MiB")


def test_an_estimate_of_label_noise_that_does_not_fit_is_refused_or_left_out():
    x, y = np.zeros((30_000, 40), dtype=np.float32), np.arange(30_000) % 2
    x[:, 0] = y
    memory = needed_bytes(Shape(30_000, 41, 2, 30_000)) - 1
    with pytest.raises(InputError, match="estimate of label noise needs about"):
        lsi.score(x, y, memory=memory, label_noise=True)


MEASURED = """
import json, resource, sys, numpy as np, lsi
random = np.random.default_rng(0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
lsi.score(random.normal(size=(60, 3)), np.arange(60) % 3, audit=2, label_noise=True)
X, y = random.normal(size=(6000, 160)).astype(np.float32), random.integers(0, 8, 6000)
base = peak() - X.nbytes
found = []
for memory in sys.argv[1:]:
    scores = lsi.score(X, y, memory=memory, subset=range(0, 6000, 60), audit=1, label_noise=False)
    found.append([scores.manifest["fit"]["solver"], peak() - base, scores.lsi.tolist()])
print(json.dumps(found))
"""


MAPPED = """
import json, sys, threading, time, numpy as np, lsi
def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
def peak(x, y):
    base = most = held()
    scoring = True
    def watch():
        nonlocal most
        while scoring:
            most = max(most, held())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    lsi.score(x, y, subset=range(4), audit=1, label_noise=False)
    scoring = False
    watcher.join()
    return most - base
random, found = np.random.default_rng(0), []
lsi.score(random.normal(size=(60, 3)), np.arange(60) % 3, audit=1, label_noise=False)
for n in (12_000, 36_000):  # blocks of rows are as large as they get with either
    x = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (n, 256))
    for start in range(0, n, 4000):
        x[start : start + 4000] = random.normal(size=(4000, 256))
    y = (x[:, 0] + random.logistic(size=n) > 0).astype(int)
    x.flush()
    del x
    found.append(peak(np.load(sys.argv[1], mmap_mode="r"), y))
print(json.dumps(found))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's count of memory")
def test_features_of_a_file_stay_in_the_file(tmp_path):
    """What a row takes: its 96 coordinates for neighbours, 16 for twins, and some 30 numbers of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MAPPED, str(tmp_path / "X.npy")],
        capture_output=True,
        # Freed memory goes back to the system at once, so that what is held is what is in use.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"},
        text=True,
        check=True,
    )
    few, many = json.loads(done.stdout)
    bound = 4 * 96 + 4 * 16 + 8 * 30
    assert (many - few) / 24_000 < bound < 4 * 256  # a copy, let alone N × K in float64


def test_the_peak_stays_within_the_budget():
    budgets = (220, 300)  # rising, since the peak of a process never falls
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *(f"{mebibytes}MiB" for mebibytes in budgets)],
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        check=True,
    )
    solvers, beyond, values = zip(*json.loads(done.stdout), strict=True)
    assert all(peak < mebibytes << 20 for peak, mebibytes in zip(beyond, budgets, strict=True))
    assert solvers == ("dense", "dense")
    assert_allclose(values[0], values[1], rtol=1e-6)
