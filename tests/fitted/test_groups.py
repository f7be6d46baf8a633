"""Whole groups left out at once, against refits without them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from tests.cases import CASES, POSTERIORS
from tests.oracles import ridge
from tests.oracles.brute_force import LeaveOneOut

import lsi
from lsi.tasks.groups import check_groups

every = pytest.mark.parametrize("posterior", POSTERIORS)
SOME = [
    "binary",
    "multiclass",
    "duplicates",
    "separable",
    "ill-conditioned",
    "N < D",
    "outliers",
    "balanced",
    "no intercept",
    "weak prior",
]


def fitted_on(case, posterior="diag", tol=1e-2):
    return lsi.fit(
        case.features,
        case.target,
        probe=case.probe,
        posterior=posterior,
        method=lsi.Newton(tol=tol),
        prior_precision=case.prior_precision,
    )


def some_groups(case, seed=0):
    """Return a group for each row: of one, two, a quarter and the rest but one of every class."""
    random, n = np.random.default_rng(seed), len(case.target)
    order = random.permutation(n)
    # One row of each class belongs to no group, so that no group is all of a class.
    stays = {int(np.flatnonzero(case.target[order] == c)[0]) for c in range(case.n_classes)}
    free = np.array([row for place, row in enumerate(order) if place not in stays])
    groups = np.full(n, None, dtype=object)
    groups[free[0]], groups[free[1:3]], groups[free[3 : 3 + n // 4]] = "one", "two", "quarter"
    groups[free[3 + n // 4 :]] = "rest"
    return groups


@every
@pytest.mark.parametrize("name", SOME)
def test_groups_against_refits_without_them(name, posterior):
    case = CASES[name]
    groups = some_groups(case)
    table = fitted_on(case, posterior).groups(groups, interaction=False).to_frame()
    assert list(table["group"]) == sorted({name for name in groups if name is not None})
    for row in table.itertuples():
        members = tuple(np.flatnonzero(groups == row.group).tolist())
        mean, covariance = case.oracle.terms(posterior, case.prior_precision, members)
        assert row.n == len(members)
        assert row.relative_error <= 1e-2
        assert abs(row.lsi - (mean + covariance)) <= row.relative_error * (mean + covariance)
        assert_allclose(row.mean_term, mean, rtol=1e-2)
        assert row.lsi_per_row == row.lsi / row.n


@every
def test_a_group_of_one_is_its_row(posterior):
    case = CASES["multiclass"]
    fitted = fitted_on(case, posterior)
    some = np.full(len(case.target), None, dtype=object)
    some[:6] = list("abcdef")
    table = fitted.groups(some).to_frame()
    scores = fitted.scores(range(6), audit=False).to_frame()
    assert_allclose(table["lsi"], scores["lsi"], rtol=1e-3)
    assert_allclose(table["interaction"] / table["lsi"], 0, atol=1e-3)


def test_copies_stand_in_for_each_other():
    case = CASES["duplicates"]
    groups = np.full(len(case.target), None, dtype=object)
    groups[[3, 25]] = "copies"  # row 25 is row 3 again
    assert np.array_equal(case.features[3], case.features[25])
    table = fitted_on(case).groups(groups).to_frame()
    assert table["interaction"].item() > 0.2 * table["lsi"].item()


def test_groups_of_several_labels_add_up():
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 3))
    y = (x[:, :2] + 0.7 * random.standard_normal((40, 2)) > 0).astype(int)
    groups = np.arange(40) // 8
    probe = lsi.SigmoidProbe(weight_decay=1e-2)
    both = lsi.fit(x, y, probe=probe).groups(groups).to_frame()
    each = [lsi.fit(x, y[:, k], probe=probe).groups(groups).to_frame() for k in range(2)]
    for column in ("lsi", "mean_term", "covariance_term", "interaction"):
        assert_allclose(both[column], each[0][column] + each[1][column], rtol=1e-6, atol=1e-12)


def test_names_keep_their_type_and_order():
    case = CASES["multiclass"]
    numbers = pd.Series(np.arange(len(case.target)) % 4 + 10)
    table = fitted_on(case).groups(numbers, interaction=False)
    assert table.to_frame()["group"].tolist() == [10, 11, 12, 13]
    assert len(table) == 4
    assert table.top(1)["lsi"].item() == table.lsi.max()
    assert "lsi_per_row" in table._repr_html_()


def test_a_walk_that_does_not_end_is_trained_again(monkeypatch):
    case = CASES["multiclass"]
    groups = some_groups(case)
    expected = fitted_on(case).groups(groups, interaction=False).to_frame()
    monkeypatch.setattr("lsi.loo.edits.refine.PASSES", 1)
    again = fitted_on(case).groups(groups, interaction=False).to_frame()
    assert_allclose(again["lsi"], expected["lsi"], rtol=1e-3)
    assert (again["relative_error"] <= 1e-2).all()


@every
def test_most_of_a_class_leaves_in_single_precision(posterior, monkeypatch):
    """What is left of its curvature is a small difference: float32 made values up to 2.8 times too high."""
    monkeypatch.setattr("lsi.loo.newton.cost.DOUBLE_LIMIT", 0)
    random, y = np.random.default_rng(0), np.arange(300) % 3
    for scale, apart in ((1.0, 2.0), (3.0, 2.0), (10.0, 2.0)):
        X = scale * (apart * random.normal(size=(3, 8))[y] + random.normal(size=(300, 8)))
        groups = np.full(300, None, dtype=object)
        groups[np.flatnonzero(y == 0)[:97]], groups[np.flatnonzero(y == 1)[:60]] = "most", "many"
        method = lsi.Newton(tol=1e-6)  # walks do not end: both are trained again
        fitted = lsi.fit(X, y, probe=lsi.LinearProbe(1e-4), posterior=posterior, method=method)
        oracle = LeaveOneOut(np.c_[X, np.ones(300)], y, 3, 1e-4, np.ones(300))
        for row in fitted.groups(groups, interaction=False).to_frame().itertuples():
            mean, covariance = oracle.terms(
                posterior, 1.0, tuple(np.flatnonzero(groups == row.group).tolist())
            )
            assert abs(row.lsi / (mean + covariance) - 1.0) <= row.relative_error


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (lambda case: [1, 2, 3], "groups has 3 entries but the data have 30 rows"),
        (lambda case: [None] * len(case.target), "every entry is missing"),
        (lambda case: ["all"] * len(case.target), "group 'all' is all of the data"),
        (lambda case: np.where(case.target == 1, "b", "a"), "holds every sample of class"),
    ],
)
def test_groups_that_cannot_be_left_out(groups, message):
    case = CASES["binary"]
    with pytest.raises(lsi.InputError, match=message):
        fitted_on(case).groups(groups(case))


def test_a_probe_that_keeps_nothing_to_ask():
    case = CASES["binary"]
    with pytest.raises(lsi.InputError, match="keeps no factorised curvature"):
        lsi.fit(case.features, case.target, probe=lsi.MLPProbe(hidden=(3,)))
    with pytest.raises(lsi.InputError, match="this method keeps no factorised curvature"):
        lsi.fit(case.features, case.target, method="retrain")
    with pytest.raises(lsi.InputError, match="score_pairs"):
        lsi.fit(case.features, case.target, probe=lsi.ContrastiveProbe())


@every
def test_scores_of_a_fitted_object_are_those_of_score(posterior):
    case = CASES["multiclass"]
    fitted, direct = fitted_on(case, posterior), case.score(posterior, lsi.Newton(tol=1e-2), audit=3)
    for again in (fitted.scores(audit=3), fitted.scores(audit=3)):
        pd.testing.assert_frame_equal(again.to_frame(), direct.to_frame())
        assert again.audit.exact == direct.audit.exact
    part = fitted.scores([5, 2], audit=False)
    assert_allclose(part.lsi, direct.lsi[[5, 2]], rtol=1e-9)
    assert part.manifest["timings"].keys() >= {"fit", "factor", "leave-one-out"}


@every
@pytest.mark.parametrize("weight_decay", [1e-3, 1e-8])
@pytest.mark.parametrize("targets", [1, 2])
def test_groups_of_a_regression(posterior, weight_decay, targets):
    random = np.random.default_rng(3)
    x = random.standard_normal((40, 5)) * [1, 1, 10, 1, 1] + [0, 0, 0, 5, 0]
    y = x[:, :targets] + random.standard_normal((40, targets))
    groups = np.repeat(["one", "two", "many"], [1, 2, 37]).astype(object)
    groups[20:] = None
    probe = lsi.RidgeProbe(weight_decay=weight_decay, noise_precision=2.0)
    table = lsi.fit(x, y, probe=probe, posterior=posterior).groups(groups).to_frame()
    design, noise = np.column_stack([x, np.ones(40)]), np.full(targets, 2.0)
    for row in table.itertuples():
        gone = np.flatnonzero(groups == row.group)
        exact = sum(ridge.terms(design, y, weight_decay, noise, 1.0, posterior, gone))
        assert_allclose(row.lsi, exact, rtol=1e-9)
        assert row.relative_error < 1e-8
    assert abs(table["interaction"][table["group"] == "one"].item()) < 1e-9


def test_a_group_without_which_a_regression_is_undetermined():
    x = np.zeros((20, 2))
    x[:, 0] = np.arange(20)
    x[:2, 1] = 1.0
    groups = np.where(np.arange(20) < 2, "both", "others")
    groups[5:8] = "more"
    with pytest.raises(lsi.InputError, match="without the 2 rows of a group"):
        lsi.fit(x, x[:, 0], probe=lsi.RidgeProbe(weight_decay=1e-14)).groups(groups)


def test_groups_go_on_after_an_interruption(tmp_path):
    case = CASES["multiclass"]
    groups, calls = some_groups(case), []

    def stop(stage, done, total):
        calls.append(stage)
        if stage == "leave-one-out":
            raise KeyboardInterrupt

    fitted = fitted_on(case)
    with pytest.raises(KeyboardInterrupt):
        fitted.groups(groups, checkpoint=tmp_path / "kept", progress=stop)
    calls.clear()
    again = fitted_on(case).groups(groups, checkpoint=tmp_path / "kept").to_frame()
    pd.testing.assert_frame_equal(again, fitted.groups(groups).to_frame())
    other = np.where(np.arange(len(groups)) < 3, "a", groups)
    with pytest.raises(lsi.LsiError, match="another run|other settings|different"):
        fitted_on(case).groups(other, checkpoint=tmp_path / "kept")


def test_many_groups_are_found_by_one_sort():
    case = CASES["multiclass"]
    names = np.array(["b", "a", "c", None], dtype=object)[np.arange(len(case.target)) % 4]
    problem = fitted_on(case).run.problem
    found, members = check_groups(names, problem)
    assert found.tolist() == ["a", "b", "c"]
    assert [rows.tolist() for rows in members] == [np.flatnonzero(names == name).tolist() for name in found]


def test_scores_with_groups_are_saved_with_them(tmp_path):
    case = CASES["multiclass"]
    groups = some_groups(case)
    scores = case.score(method=lsi.Newton(), groups=groups, label_noise=False)
    expected = fitted_on(case).groups(groups).to_frame()
    pd.testing.assert_frame_equal(scores.groups, expected)
    assert_allclose(scores.lsi, case.score(method=lsi.Newton(), label_noise=False).lsi)
    pd.testing.assert_frame_equal(lsi.load(scores.save(tmp_path / "s")).groups, expected)
    with pytest.raises(lsi.InputError, match="have no groups"):
        case.score().groups  # noqa: B018


@pytest.mark.parametrize("subset", [None, [30, 2, 17]])
@pytest.mark.parametrize("probe", [lsi.SigmoidProbe(1e-2), lsi.RidgeProbe(1e-2)])
def test_a_run_leaves_out_the_groups_of_several_labels_and_targets(probe, subset):
    """The LSI of single rows, which interactions are against, is that of the run where it scored all rows."""
    random = np.random.default_rng(5)
    x = random.standard_normal((40, 3))
    y = x[:, :2] + random.standard_normal((40, 2))
    y = (y > 0).astype(int) if isinstance(probe, lsi.SigmoidProbe) else y
    groups = np.array(["a", "b", "c", None], dtype=object)[np.arange(40) % 4]
    scores = lsi.score(x, y, probe=probe, groups=groups, subset=subset, audit=False)
    expected = lsi.fit(x, y, probe=probe).groups(groups).to_frame()
    pd.testing.assert_frame_equal(scores.groups, expected)


def test_groups_that_a_run_cannot_leave_out():
    case = CASES["multiclass"]
    groups = some_groups(case)
    for wrong in ({"method": "retrain"}, {"shard": "1/2"}, {"groups": groups[:3]}):
        with pytest.raises(lsi.InputError, match="groups"):
            lsi.score(case.features, case.target, **{"groups": groups, **wrong})
