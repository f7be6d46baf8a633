"""The library on a GPU, as far as a processor can tell: see `tests/second_device.py`."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.cases import clusters
from tests.second_device import SecondDevice, second_device

import lsi
from lsi.errors import InputError
from lsi.features.design import Design
from lsi.loo.newton import engine, sweep
from lsi.loo.newton.cost import working_dtype
from lsi.planning.plan import room_on
from lsi.posterior import POSTERIORS
from lsi.probes.softmax.cg import conjugate_gradients
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel
from lsi.system.device import add_rows, exact_products
from lsi.tasks import classification
from lsi.validation.problem import Shape

CUDA = torch.device("cuda")
X, Y = clusters(2, (10, 9, 8, 8), 5)
BLOCKS = lsi.Newton(solver="blocks")


def both(monkeypatch, x=X, y=Y, **settings):
    """Return the scores of a processor and of a device, and the device."""
    monkeypatch.setattr(classification, "is_small", lambda *shape: False)
    settings = {"subset": [0, 20], "audit": 1, "label_noise": False} | settings
    expected = lsi.score(x, y, **settings)
    with second_device(monkeypatch) as device:
        found = lsi.score(x, y, device="cuda", **settings)
    return expected, found, device


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
def test_nothing_is_mixed_by_the_dense_solver(posterior, sampled, monkeypatch):
    if sampled:
        monkeypatch.setattr(engine, "SAMPLED_WORK", 0.0)
    expected, found, _ = both(monkeypatch, posterior=posterior)
    assert_allclose(found.lsi, expected.lsi, rtol=1e-9)
    assert_allclose(found.audit.exact, expected.audit.exact, rtol=1e-6)


@pytest.mark.parametrize("posterior", ["diag", "kron"])
def test_nothing_is_mixed_by_class_blocks(posterior, monkeypatch):
    expected, found, _ = both(monkeypatch, posterior=posterior, method=BLOCKS)
    assert_allclose(found.lsi, expected.lsi, rtol=1e-3)  # chord steps in single precision


def test_nothing_is_mixed_in_single_precision(monkeypatch):
    monkeypatch.setattr(classification, "working_dtype", lambda *shape: torch.float32)
    expected, found, _ = both(monkeypatch, posterior="kron")
    assert_allclose(found.lsi, expected.lsi, rtol=1e-3)


def test_nothing_is_mixed_by_features_of_a_file(tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    expected, found, _ = both(monkeypatch, mapped, posterior="kron")
    assert_allclose(found.lsi, expected.lsi, rtol=1e-9)


def test_nothing_is_mixed_by_the_estimate_of_label_noise(monkeypatch):
    _, found, _ = both(monkeypatch, method=lsi.Newton(tol=None), audit=False, label_noise=True)
    assert np.isfinite(found.to_frame()["wrong_probability"]).all()


def test_an_evaluation_waits_once_however_many_blocks_it_reads(monkeypatch):
    counts = []
    for n in (5_000, 80_000):
        with SecondDevice() as device:
            design = Design(np.ones((n, 2)), dtype=torch.float64, device=CUDA)
            target = torch.zeros(n, dtype=torch.long, device=CUDA)
            weight = torch.ones(n, dtype=torch.float64, device=CUDA)
            model = SoftmaxModel.start(design, target, weight, 1e-3, 3)
            model.objective_and_gradient(model.theta)
        counts.append(sum(device.waits.values()))
    assert counts == [1, 1]


@pytest.mark.parametrize("posterior", ["diag", "kron"])
def test_a_sweep_waits_no_more_often_for_more_rows(posterior, monkeypatch):
    monkeypatch.setattr(sweep, "ELEMENTS", 64)
    counts = []
    for n in (1_000, 4_000):
        x, y = clusters(2, (n // 2, n // 2), 3)
        with SecondDevice() as device:
            design = Design(x, dtype=torch.float64, device=CUDA)
            weight = torch.ones(n, dtype=torch.float64, device=CUDA)
            model = SoftmaxModel.start(design, torch.from_numpy(y).to(CUDA), weight, 1e-3, 2)
            built = POSTERIORS[posterior](model, 1.0)
            index = torch.tensor([0, n - 1], device=CUDA)
            delta = 1e-3 * torch.ones((2, 1, 3), dtype=torch.float64, device=CUDA)
            before = sum(device.waits.values())
            x_i, residual, _ = model.residual_at(index)
            sweep.sweep(model, index, delta, residual, x_i, built)
            counts.append(sum(device.waits.values()) - before)
    assert counts[0] == counts[1] <= 3


def test_a_change_of_probabilities_waits_for_nothing():
    p = torch.softmax(4.0 * torch.randn(40, 5, dtype=torch.float64), 1)
    for scale in (1e-8, 1.0, 30.0, 300.0):
        shift = scale * torch.randn(40, 5, 7, dtype=torch.float64)
        expected = torch.softmax(p.log()[:, :, None] + shift, 1) - p[:, :, None]
        with SecondDevice() as device:
            found = probability_shift(p.to(CUDA), shift.to(CUDA)).cpu()
        assert list(device.waits) == []  # the copy back is the test's own
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-15)


def test_conjugate_gradients_ask_now_and_then():
    matrix = torch.diag(torch.linspace(1.0, 50.0, 24, dtype=torch.float64))
    right = torch.randn(3, 4, 6, dtype=torch.float64)

    def operator(v):
        return (v.reshape(len(v), -1) @ matrix.to(v.device)).view(v.shape)

    def solve(v):
        return conjugate_gradients(operator, lambda r: r, v, 1e-20)

    expected = solve(right)
    with SecondDevice() as device:
        found = solve(right.to(CUDA)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert 1 <= sum(device.waits.values()) <= 4


def test_sums_over_rows_are_the_same_whatever_the_order_of_threads():
    calls = []

    class Watch(SecondDevice):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(getattr(func, "__name__", ""))
            return super().__torch_function__(func, types, args, kwargs)

    out, index, values = torch.zeros(3, 2), torch.tensor([0, 2, 0]), torch.rand(3, 2)
    with Watch():
        found = add_rows(out.to(CUDA), index.to(CUDA), values.to(CUDA)).cpu()
    assert "index_add_" not in calls
    torch.testing.assert_close(found, add_rows(out, index, values))


@pytest.mark.parametrize("before", ["medium", "high", "highest"])
def test_products_are_exact_whatever_the_caller_has_set(before, monkeypatch):
    seen = []
    expected = lsi.score(X.astype(np.float32), Y, method=BLOCKS, audit=False, label_noise=False).lsi
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        found = lsi.score(X.astype(np.float32), Y, method=BLOCKS, audit=False, label_noise=False).lsi
        assert torch.get_float32_matmul_precision() == before
        with pytest.raises(KeyError), exact_products():
            seen.append(torch.get_float32_matmul_precision())
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(kept)
    assert seen == ["highest"]
    assert (found == expected).all()


def test_precision_follows_what_the_device_does_fast(monkeypatch):
    shape = Shape(200_000, 300, 3, 10)  # N·K² = 7e10
    assert working_dtype(shape) == torch.float64
    for capability, dtype in (((9, 0), torch.float64), ((8, 0), torch.float64), ((8, 9), torch.float32)):
        with second_device(monkeypatch, capability):
            assert working_dtype(shape, CUDA) == dtype
            assert working_dtype(Shape(60_000, 60, 3, 10), CUDA) == torch.float64


def test_room_is_that_of_the_device_and_what_was_allowed(monkeypatch):
    with second_device(monkeypatch, free=1 << 33):
        assert room_on(CUDA, None) == 1 << 33
        assert room_on(CUDA, 1 << 30) == 1 << 30
        assert room_on(CUDA, 1 << 40) == 1 << 33


def test_the_solver_is_the_same_on_every_device(monkeypatch):
    with second_device(monkeypatch, free=1 << 20), pytest.raises(InputError, match="are available"):
        lsi.score(X, Y, device="cuda")


def test_a_device_that_is_mixed_up_is_noticed():
    with SecondDevice() as device:
        near, far = torch.ones(3), torch.ones(3, device="cuda")
        assert (far.device.type, near.device.type, far.is_cuda) == ("cuda", "cpu", True)
        for wrong in (
            lambda: near + far,
            lambda: near[torch.zeros(2, dtype=torch.long, device="cuda")],
            lambda: torch.stack([near, far]),
            lambda: far.numpy(),
            lambda: torch.add(far, far, out=far),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert ((far + 1.0) * torch.tensor(2.0)).device.type == "cuda"
        assert far[:2].device.type == far.to(torch.float64).device.type == "cuda"
    assert not device.waits
