"""L-BFGS beside torch's products: where it ends, and whose threads it leaves alone."""

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from lsi.probes.softmax.lbfgs import lbfgs

HEIGHTS = np.array([1.0, 30.0, 400.0])


def threads():
    """Return the threads of each OpenBLAS in this process."""
    found = ThreadpoolController().select(internal_api="openblas").info()
    if not found:
        pytest.skip("NumPy and SciPy use another BLAS")
    return [library["num_threads"] for library in found]


def bowl(x):
    return 0.5 * float(HEIGHTS @ (x - 1) ** 2), HEIGHTS * (x - 1)


def test_it_minimises():
    found = lbfgs(bowl, np.zeros(3), {"gtol": 1e-10, "ftol": 0.0})
    np.testing.assert_allclose(found.x, 1, rtol=1e-9)


def test_one_thread_while_it_runs():
    before, seen = threads(), []

    def objective(x):
        seen.extend(threads())
        return bowl(x)

    lbfgs(objective, np.zeros(3), {})
    assert set(seen) == {1}
    assert threads() == before


def test_threads_come_back_after_an_error():
    before = threads()

    def fail(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lbfgs(fail, np.zeros(3), {})
    assert threads() == before


def test_a_callback_may_stop_it():
    values = []

    def stop(intermediate_result):
        values.append(intermediate_result.fun)
        raise StopIteration

    lbfgs(bowl, np.zeros(3), {}, stop)
    assert len(values) == 1
