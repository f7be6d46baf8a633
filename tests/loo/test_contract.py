"""What every engine promises: `run` and brute force give the same LSI, within the certificate of `run`."""

import inspect

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from tests.cases import CASES, POSTERIORS, clusters

import lsi
from lsi.loo.contrastive.newton import PairNewton
from lsi.loo.contrastive.retrain import PairRetrain
from lsi.loo.engine import Engine
from lsi.loo.networks.engine import NetworkEngine
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.retrain.engine import RetrainEngine
from lsi.loo.ridge import RidgeEngine
from lsi.tasks.sigmoid import HeadsEngine

# Engines without a certificate compute the same training twice: many copies at a time, and one by one, both
# in float32 (a linear probe) or in float64 (pairs and networks here). Float32 keeps about seven digits of the
# weights, and LSI is the square of a small difference of them.
FLOAT32, FLOAT64 = 1e-3, 1e-6
# Brute force in float64 is itself good to 1e-7 (`AUDIT_TOLERANCE`).
ROUNDING = 1e-7

X, Y = clusters(2, (10, 9, 8), 4)
VIEWS = load_digits().data[:24, :4] / 16.0, load_digits().data[:24, 20:24] / 16.0
SEVERAL = np.stack([X[:, 0] > 0, X[:, 1] > 0.5], 1).astype(int)
NUMBERS = np.stack([X @ [1.0, -2.0, 0.5, 0.3], X[:, 0] ** 2], 1)
SUBSET = [11, 3, 0, 17, 8, 5]  # in no order, and not a whole number of blocks
TRAINED = lsi.Retrain(epochs=30, lr=0.05, tol=None)
PAIRS = lsi.ContrastiveProbe(dim=2, temperature=0.3)


def newton(posterior, **settings):
    case = CASES["multiclass"]
    return case.score(posterior, lsi.Newton(tol=1e-3, **settings), audit=1, subset=SUBSET)


def score(y, probe, posterior, method="newton", **settings):
    return lsi.score(
        X, y, probe=probe, posterior=posterior, method=method, audit=1, subset=SUBSET, **settings
    )


def pairs(posterior, method="newton"):
    return lsi.score_pairs(*VIEWS, probe=PAIRS, posterior=posterior, method=method, audit=1, subset=SUBSET)


ENGINES = {
    "newton": (NewtonEngine, None, newton),
    "blocks": (BlockEngine, None, lambda kind: newton(kind, solver="blocks")),
    "retrain": (RetrainEngine, FLOAT32, lambda kind: score(Y, lsi.LinearProbe(), kind, TRAINED)),
    "retrain, two seeds": (
        RetrainEngine,
        FLOAT32,
        lambda kind: score(Y, lsi.LinearProbe(), kind, lsi.Retrain(epochs=30, lr=0.05, tol=None, n_seeds=2)),
    ),
    "network": (
        NetworkEngine,
        FLOAT64,
        lambda kind: score(Y, lsi.MLPProbe(hidden=(3,), dtype="float64"), kind, TRAINED),
    ),
    "adam": (
        NetworkEngine,
        FLOAT64,
        lambda kind: score(Y, lsi.LinearProbe(), kind, lsi.Retrain(epochs=30, lr=0.05, optimizer="adam")),
    ),
    "ridge": (RidgeEngine, None, lambda kind: score(NUMBERS, lsi.RidgeProbe(1e-2), kind)),
    "one head": (HeadsEngine, None, lambda kind: score(Y > 0, lsi.SigmoidProbe(1e-2), kind)),
    "several heads": (HeadsEngine, None, lambda kind: score(SEVERAL, lsi.SigmoidProbe(1e-2), kind)),
    "pairs": (PairNewton, None, pairs),
    "pairs, retrained": (PairRetrain, FLOAT64, lambda kind: pairs(kind, lsi.Retrain(epochs=30, lr=0.1))),
}
WITHOUT = {("blocks", "full")}  # refused: the full posterior needs the Hessian that blocks never form
EVERY = [(name, kind) for name in ENGINES for kind in POSTERIORS if (name, kind) not in WITHOUT]


@pytest.fixture(scope="module", params=EVERY, ids=[f"{name}, {kind}" for name, kind in EVERY])
def engine(request):
    """The engine of a real run, as the audit gets it, the positions to leave out, and the rounding error."""
    name, posterior = request.param
    kind, rounding, run = ENGINES[name]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsi.tasks.classification.is_small", lambda *_: False)  # whose audit needs no engine
        patch.setattr("lsi.run.context.audit", lambda engine, index, *_: seen.append((engine, index)))
        run(posterior)
    ((engine, index),) = seen
    assert type(engine) is kind
    return engine, index, rounding


def excess(result, exact, rounding):
    """Return by how much each value is further off than promised, by a certificate or by `rounding`."""
    promised = result.relative_error if rounding is None else np.full(len(exact), rounding)
    assert np.isfinite(promised).all()
    assert np.isfinite(exact).all() and (exact > 0).all()
    return np.abs(result.lsi - exact) - (promised + ROUNDING) * exact


def brute_force(engine, positions):
    size = engine.audit_block
    blocks = [positions[low : low + size] for low in range(0, len(positions), size)]
    return np.concatenate([engine.exact(block, lambda _: None)["exact"] for block in blocks])


def test_run_is_exact_within_its_certificate(engine):
    engine, index, rounding = engine
    result = engine.run(index)
    exact = brute_force(engine, index.numpy())
    assert result.done.all()
    assert (np.isnan(result.relative_error)).all() == (rounding is not None)
    assert (excess(result, exact, rounding) <= 0).all()

    # Otherwise the test could not fail: a result that is off, or stands in another place, breaks the promise.
    promise = result.relative_error if rounding is None else np.full(len(exact), rounding)
    mean_term = result.mean_term
    result.mean_term = mean_term + 2.0 * (promise + ROUNDING) * exact + np.abs(result.lsi - exact)
    assert (excess(result, exact, rounding) > 0).all()
    result.mean_term = mean_term
    assert (excess(result.select(np.roll(np.arange(6), 1)), exact, rounding) > 0).any()


def test_brute_force_answers_in_the_order_of_its_positions(engine):
    engine, index, _ = engine
    exact = brute_force(engine, index.numpy()[[4, 1]])
    # Samples in another order are solved with sums in another order.
    assert_allclose(brute_force(engine, index.numpy()[[1, 4]])[::-1], exact, rtol=1e-6)


def test_every_engine_is_held_to_it():
    def below(kind):
        return {kind} | {each for child in kind.__subclasses__() for each in below(child)}

    concrete = {kind for kind in below(Engine) if not inspect.isabstract(kind)}
    assert concrete == {kind for kind, _, _ in ENGINES.values()}


def test_the_audit_compares_run_with_exact(monkeypatch):
    monkeypatch.setattr(RidgeEngine, "exact", lambda self, positions, tick: {"exact": 100.0 + positions})
    audit = score(NUMBERS, lsi.RidgeProbe(1e-2), "diag", seed=1).audit
    assert len(audit.positions) == 1
    assert_array_equal(audit.exact, 100.0 + np.array(audit.positions))
