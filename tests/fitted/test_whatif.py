"""A changed fitted object is the one that training on the changed data gives."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import lsi
from lsi.errors import InputError
from lsi.fitted import whatif
from lsi.loo.edits import update
from lsi.loo.newton.built import Built
from lsi.loo.newton.refine import _Walk
from lsi.probes.softmax.fit import Curvature

RNG = np.random.default_rng(11)
X = RNG.standard_normal((60, 4)).round(2)
X[:, 0] = np.exp(X[:, 0])
CLASS = (X @ RNG.standard_normal((4, 3)) + RNG.gumbel(size=(60, 3))).argmax(1)
NAMES = np.array(["cat", "dog", "eel"], dtype=object)[CLASS]
SEVERAL = np.stack([CLASS == 1, X[:, 1] > 0], 1).astype(int)
IDS = np.arange(100, 160)
WIDE = RNG.standard_normal((20, 30))
PROBES = {
    "classes": (X, NAMES, lsi.LinearProbe(1e-2)),
    "wide": (WIDE, NAMES[:20], lsi.LinearProbe(1e-2)),
    "class weights": (X, NAMES, lsi.LinearProbe(1e-2, class_weight={"cat": 1.0, "dog": 2.5, "eel": 0.5})),
    "balanced": (X, NAMES, lsi.LinearProbe(1e-2, class_weight="balanced")),
    "two classes": (X, CLASS > 0, lsi.SigmoidProbe(1e-2)),
    "several labels": (X, SEVERAL, lsi.SigmoidProbe(1e-2)),
    "numbers": (X, X @ np.array([1.0, 0, 2, 1]), lsi.RidgeProbe(1e-2)),
}
GONE, NEW = [3, 7, 8], slice(0, 5)


def changed(X, y, how):
    """Return what the change is, and the data after it."""
    ids = IDS[: len(X)]
    y = np.asarray(y)
    if how == "without":
        keep = np.delete(np.arange(len(X)), GONE)
        return (lambda fitted: fitted.without(ids[GONE])), X[keep], y[keep], ids[keep]
    if how == "with_rows":
        more, labels = X[NEW] * 1.5 + 0.1, y[NEW][::-1]
        joined = np.concatenate([y, labels])
        new_ids = np.r_[ids, ids[-1] + 1 + np.arange(5)]
        return (lambda fitted: fitted.with_rows(more, labels)), np.vstack([X, more]), joined, new_ids
    other = y.copy()
    other[GONE] = y[[1, 2, 4]] if y.dtype != bool else ~y[GONE]
    given = dict(zip(ids[GONE].tolist(), other[GONE].tolist(), strict=True))
    return (lambda fitted: fitted.relabel(given)), X, other, ids


@pytest.mark.parametrize("how", ["without", "with_rows", "relabel"])
@pytest.mark.parametrize(
    ("case", "posterior"),
    [*((case, "diag") for case in PROBES), ("classes", "kron"), ("classes", "full"), ("wide", "kron")],
)
def test_it_equals_training_again(case, posterior, how):
    X, y, probe = PROBES[case]
    change, *data, ids = changed(X, y, how)
    before = lsi.fit(X, y, probe=probe, posterior=posterior, sample_id=IDS[: len(X)])
    after, fresh = change(before), lsi.fit(*data, probe=probe, posterior=posterior, sample_id=ids)
    assert_array_equal(after.sample_id, fresh.sample_id)
    one, other = (each.scores(range(0, 15, 2), audit=False) for each in (after, fresh))
    assert_allclose(one.lsi, other.lsi, rtol=1e-5)
    assert one.manifest["data"] == other.manifest["data"]
    if case != "numbers":
        # By 1e-8 of the objective each, twice.
        assert_allclose(one.manifest["fit"]["mean_loss"], other.manifest["fit"]["mean_loss"], rtol=1e-8)
        assert one.manifest["fit"]["decrement"] < 1e-18
    assert before.run.problem.n_samples == len(X)


@pytest.fixture
def large(monkeypatch):
    """Treat every problem as a large one, whose curvature is expensive: count how often it is factorised."""
    counted = []
    of = Curvature.of.__func__

    def count(cls, *given):
        counted.append(1)
        return of(cls, *given)

    monkeypatch.setattr(update, "CHEAP", 0.0)
    monkeypatch.setattr(whatif, "pays_to_factorise", lambda model, n_rows: n_rows > 100)
    monkeypatch.setattr(Curvature, "of", classmethod(count))
    return counted


def draw(n, d=4, c=3):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, d))
    return X, (X @ rng.standard_normal((d, c)) + rng.gumbel(size=(n, c))).argmax(1)


def apart(one, other):
    """Return the largest relative difference of two inverses, in any direction."""
    found = torch.linalg.solve(one.solver.inverse.matrix, other.solver.inverse.matrix)
    return float((torch.linalg.eigvals(found).real - 1).abs().max())


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("how", ["without", "with_rows", "relabel"])
def test_a_small_change_of_large_data_takes_no_new_factor(large, how, posterior):
    X, y = draw(3000)
    probe, ids = lsi.LinearProbe(1e-2), np.arange(3000)
    fitted = lsi.fit(X, y, probe=probe, posterior=posterior)
    before = len(large)
    if how == "without":
        keep = np.delete(ids, GONE)
        after, data = fitted.without(GONE), (X[keep], y[keep])
    elif how == "with_rows":
        after, data = fitted.with_rows(X[:3] + 1, y[:3]), (np.vstack([X, X[:3] + 1]), np.r_[y, y[:3]])
    else:
        other = y.copy()
        other[GONE] = (y[GONE] + 1) % 3
        after, data = fitted.relabel(dict(zip(GONE, other[GONE].tolist(), strict=True))), (X, other)
    (engine,) = after._near()
    assert len(large) == before
    assert not engine.solver.is_current
    assert engine.solver.inverse.drift < 1e-6  # from the curvature that it is said to be of
    fresh = lsi.fit(*data, probe=probe, posterior=posterior)
    if posterior != "kron":  # whose coordinates turn with the rows
        (exact,) = fresh.engines()
        assert 1e-5 < apart(exact, engine) < 0.1  # not quite that of the new optimum
    one, other = (fit.scores(range(9), audit=False).to_frame() for fit in (after, fresh))
    error = np.abs(one.lsi / other.lsi - 1)
    assert (error <= one.relative_error + other.relative_error).all()


def test_a_question_about_all_rows_takes_a_new_factor(large):
    X, y = draw(500)
    fitted = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2))
    after = fitted.relabel({3: int(y[3] + 1) % 3})
    before = len(large)
    assert not next(after._near()).solver.is_current
    assert next(after._near(400)).solver.is_current  # as many rows as a factor costs
    assert len(large) == before + 1
    again = fitted.relabel({3: int(y[3] + 1) % 3})
    assert next(again.engines()).solver.is_current
    assert len(large) == before + 2


def test_steps_with_a_former_curvature_leave_out_what_it_holds_of_the_sample(large):
    """`H̃₋ δ = g ⊗ x + wd θ`, with what the inverse holds of the others."""
    X, y = draw(500)
    fitted = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2))
    after = fitted.relabel({k: int(y[k] + 1) % 3 for k in (4, 9, 11)})
    engine = next(after._near())
    model, built = engine.model, engine.solver.inverse.built
    index = torch.arange(4, 60, 7)
    first = engine.solver.first_order(index)
    for k, place in enumerate(index.tolist()):
        others = built.product(model, first.delta[k])
        own = built.curvature_at(index[k : k + 1], model.contrasts)[0] @ (first.delta[k] @ first.x[k])
        others -= own[:, None] * first.x[k]
        right = first.residual[k][:, None] * first.x[k] + model.weight_decay * model.theta
        assert_allclose(others, right, rtol=1e-6, atol=1e-9 * float(right.abs().max())), place


def test_what_a_step_leaves_of_an_error_is_measured(large, monkeypatch):
    """The largest eigenvalue of `I − H̃⁻¹H`, without which a walk would think to have arrived."""
    X, y = draw(200)
    fitted = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2))
    monkeypatch.setattr(update, "_pays", lambda *given: True)
    after = fitted.relabel({k: int(y[k] + 1) % 3 for k in range(6)})
    engine = next(after._near())
    inverse, model = engine.solver.inverse, engine.model
    exact = Curvature.of(model).into_inverse()
    left = torch.eye(len(exact)).double() - inverse.matrix @ torch.linalg.inv(exact)
    largest = float(torch.linalg.eigvals(left).abs().max())
    assert 0.02 < largest < 0.5
    assert 0.85 * largest < inverse.contraction < 1.001 * largest
    # A first step certifies no more than that, however short it is.
    first = engine.solver.first_order(torch.arange(3))
    walk = _Walk.start(first, model.design.dtype)
    sizes, never = torch.full((2, 3), 1e-9).double(), torch.zeros(3, dtype=torch.bool)
    assert (walk.contraction(sizes, never, least=inverse.contraction) == inverse.contraction).all()
    monkeypatch.setattr(update, "SLOW", 0.5 * largest)
    assert next(fitted.relabel({k: int(y[k] + 1) % 3 for k in range(6)})._near()).solver.is_current


def test_a_row_that_opens_a_slow_direction_takes_a_new_factor(large, monkeypatch):
    """A column of one row gets a second one: steps hardly shrink along it, which no first step would show."""
    monkeypatch.setattr(update, "_pays", lambda *given: True)
    rng, y = np.random.default_rng(0), np.arange(200) % 2
    X = rng.normal(size=(2, 5))[y] * 0.5 + rng.normal(size=(200, 5))
    X[:, 4] = 30.0 * (np.arange(200) == 5)
    new = 2.0 * X[20:21]
    new[0, 4] = 0.1
    probe = lsi.LinearProbe(2e-3)
    before = lsi.fit(X, y, probe=probe, posterior="full")
    after = before.with_rows(new, [1 - y[20]]).without([7])
    data = np.delete(np.vstack([X, new]), 7, 0), np.delete(np.r_[y, 1 - y[20]], 7)
    exact = lsi.fit(*data, probe=probe, posterior="full", method=lsi.Newton(tol=1e-6))
    one, other = (fit.scores(range(10, 190, 15), audit=False).to_frame() for fit in (after, exact))
    assert (np.abs(one.lsi / other.lsi - 1) <= one.relative_error + other.relative_error).all()


def test_a_row_that_alone_holds_a_feature_can_leave(large):
    X, y = draw(500)
    X = np.hstack([X, np.zeros((500, 1))])
    X[5, 4] = 3e3
    fitted, keep = lsi.fit(X, y, probe=lsi.LinearProbe(1e-4)), np.delete(np.arange(500), 5)
    after, fresh = fitted.without([5]), lsi.fit(X[keep], y[keep], probe=lsi.LinearProbe(1e-4))
    one, other = (fit.scores(range(20), audit=False).to_frame() for fit in (after, fresh))
    assert (np.abs(one.lsi / other.lsi - 1) <= one.relative_error + other.relative_error).all()


def test_factorising_is_chosen_by_cost():
    X, y = draw(100)
    (engine,) = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2)).engines()
    n, k = 100, engine.model.theta.numel()
    rows = (0.63 * n * k**2 + k**3) / (6.0 * n * k)  # whose sweeps cost as much
    assert not update.pays_to_factorise(engine.model, int(rows))
    assert update.pays_to_factorise(engine.model, int(rows) + 1)


def test_an_update_that_would_keep_rounding_alone_is_refused():
    # Without the row, only a ten-thousandth of the curvature along it is left.
    eye, x = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    curvature = torch.full((1, 1, 1), -0.9999, dtype=torch.float64)
    assert update._woodbury(eye, x, curvature, most=250.0) is None
    found = update._woodbury(eye, x, curvature, most=2e4)
    assert_allclose(found, np.diag([1e4, 1.0]), rtol=1e-9)


def test_many_rows_are_cheaper_to_factorise(large):
    X, y = draw(100)
    (engine,) = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2)).engines()
    assert update._pays(engine.model, 2)
    assert not update._pays(engine.model, 60)


def test_an_inverse_that_is_off_is_measured(large):
    X, y = draw(400)
    (engine,) = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2)).engines()
    matrix, model = engine.solver.inverse.matrix, engine.model
    for off in (0.0, 0.03):
        wrong = matrix * (1 + off)
        held = update.Updated(wrong, tuple(model.theta.shape), model.theta, 0.0, Built.of(model))
        assert held.measured_drift(model) == pytest.approx(off, abs=1e-5, rel=0.05)


def test_what_a_change_moves_most_is_found():
    X, y = draw(300)
    probe = lsi.LinearProbe(1e-2)
    before = lsi.fit(X, y, probe=probe)
    after = before.relabel({k: int((y[k] + 1) % 3) for k in (4, 9)})
    found = after.affected(before, k=40)
    change = np.abs(after.scores(audit=False).lsi - before.scores(audit=False).lsi)
    most = np.argsort(-change)[:40]
    assert len(np.intersect1d(found, most)) >= 30  # 5 by chance
    joined = before.with_rows(X[:2], y[:2])
    assert joined.affected(before, k=2).tolist() == [300, 301]
    with pytest.raises(InputError, match="k must be at least 1"):
        joined.affected(before, k=0)


def test_rows_that_join_do_not_pass_for_the_last_of_the_others(large, monkeypatch):
    X, y = draw(300)
    before = lsi.fit(X, y, probe=lsi.LinearProbe(1e-2))
    joined = before.with_rows(5.0 * X[:2], y[:2])
    seen = []

    def rank(after, before, scores, k):
        seen.extend(scores)
        return np.arange(k)

    monkeypatch.setattr(whatif, "rank_changes", rank)
    joined.affected(before, k=2)
    ((now, then),) = seen
    assert len(now) == 302
    assert len(then) == 300
    # Two rows of 300 move no other row's energy by a third.
    assert_allclose(then, now[:300], rtol=0.33)


def test_ids_of_new_rows():
    fitted = lsi.fit(X, NAMES, probe=lsi.LinearProbe(1e-2), sample_id=[f"r{k}" for k in range(60)])
    with pytest.raises(InputError, match="Name the new ones: ids="):
        fitted.with_rows(X[:1], ["cat"])
    with pytest.raises(InputError, match="sample_id is not unique; repeated: 'r3'"):
        fitted.with_rows(X[:1], ["cat"], ids=["r3"])
    assert fitted.with_rows(pd.DataFrame(X[:1], index=["new"]), ["cat"]).sample_id[-1] == "new"
    assert fitted.with_rows(X[:1], ["cat"], ids=[7]).sample_id[-2:].tolist() == ["r59", 7]


FITTED = lsi.fit(X, NAMES, probe=lsi.LinearProbe(1e-2), sample_id=IDS)
CATS = IDS[NAMES == "cat"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.without([1, 100]), "ids that no row has: 1. Pass entries of fitted.sample_id"),
        (lambda f: f.without(["100"]), "ids that no row has: '100'"),
        (lambda f: f.without([100, 100]), "ids given twice: 100"),
        (lambda f: f.without([]), "ids is empty"),
        (lambda f: f.without(CATS), "no row of class 'cat' would be left.*fit again without the class"),
        (lambda f: f.without(IDS[2:]), "2 rows would be left"),
        (lambda f: f.relabel({100: "fox"}), "labels that the probe was never trained on: 'fox'"),
        (lambda f: f.relabel({5: "cat"}), "ids that no row has: 5"),
        (lambda f: f.relabel({}), "Pass the new label of each row by its id"),
        (lambda f: f.relabel([100, "cat"]), "Pass the new label of each row by its id"),
        (lambda f: f.relabel(dict.fromkeys(CATS.tolist(), "dog")), "no row of class 'cat' would be left"),
        (lambda f: f.with_rows(X[:1, :3], ["cat"]), "X has 3 columns, but the probe was trained on 4"),
        (lambda f: f.with_rows(X[:1], ["fox"]), "never trained on: 'fox'"),
        (lambda f: f.with_rows(X[:1], ["cat", "dog"]), "X has 1 rows but y has 2 labels"),
        (lambda f: f.with_rows(X[:1] * np.inf, ["cat"]), "NaN or infinite"),
        (lambda f: f.with_rows(X[:1], ["cat"], ids=[100]), "repeated: 100"),
        (lambda f: f.with_rows(X[:1], ["cat"], ids=[1, 2]), "ids has 2 entries but X has 1 rows"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        change(FITTED)


def test_values_beyond_the_type_of_the_data_are_refused():
    fitted = lsi.fit(X.astype(np.float32), NAMES, probe=lsi.LinearProbe(1e-2))
    with pytest.raises(InputError, match="beyond float32, the type of the data"):
        fitted.with_rows(X[:1] * 1e60, ["cat"])


def test_a_changed_object_is_saved_and_loaded(tmp_path):
    after = FITTED.without([100]).relabel({101: "eel"})
    loaded = lsi.load_fitted(after.save(tmp_path / "model"))
    assert_array_equal(loaded.scores(audit=False).lsi, after.scores(audit=False).lsi)
    assert_array_equal(loaded.sample_id, after.sample_id)
