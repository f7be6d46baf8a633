"""What a fitted ridge probe answers in closed form, against plain refits."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.fitted.data import one
from tests.oracles.refits import RidgeRefits

import lsi
from lsi.errors import InputError

RNG = np.random.default_rng(5)
POSTERIORS = ["diag", "kron", "full"]


class Case:
    """A regression with rows to ask about."""

    def __init__(self, n, d, t, weight_decay, noise):
        self.x, self.new_x = RNG.normal(size=(n, d)) + 1.0, RNG.normal(size=(9, d)) + 1.0
        true = RNG.normal(size=(d, t))
        self.y, self.new_y = self.x @ true + RNG.normal(size=(n, t)), self.new_x @ true
        self.weight_decay, self.noise = weight_decay, np.broadcast_to(noise, t).astype(float)
        self.refits = RidgeRefits(one(self.x), self.y, weight_decay, self.noise)

    def fit(self, posterior="diag"):
        probe = lsi.RidgeProbe(self.weight_decay, noise_precision=self.noise)
        return lsi.fit(self.x, self.y, probe=probe, posterior=posterior)


CASES = {
    "one target": Case(40, 5, 1, 1e-2, 2.0),
    "three targets": Case(30, 4, 3, 1e-3, [1.0, 3.0, 0.5]),
    "no penalty": Case(25, 3, 1, 0.0, 1.0),
    "more features than samples": Case(8, 12, 2, 1e-2, 1.0),
}
CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@CASE
def test_values_are_those_of_refits(case):
    table = case.fit().values(case.new_x, case.new_y)
    exact = [case.refits.loss_change([i], one(case.new_x), case.new_y).mean() for i in range(len(case.x))]
    assert_allclose(table["loss_change"], exact, rtol=1e-8, atol=1e-12)
    assert (table["relative_error"] * np.abs(table["loss_change"]) < 1e-7 * np.abs(exact).max()).all()
    assert_array_equal(table["effect"], np.where(np.array(exact) > 0, "helps", "hurts"))
    groups = np.arange(len(case.x)) // 3
    table = case.fit().values(case.new_x, case.new_y, groups)
    for name, change in zip(table["group"], table["loss_change"], strict=True):
        gone = np.flatnonzero(groups == name)
        assert_allclose(change, case.refits.loss_change(gone, one(case.new_x), case.new_y).mean(), rtol=1e-7)


@CASE
def test_causes_are_those_of_refits(case):
    frame = pd.DataFrame(case.new_x, index=list("abcdefghi"))
    table = case.fit().explain(frame, case.new_y, k=3)
    n, names = len(case.x), [c for c in table if c.startswith("prediction_change")]
    exact = np.stack([case.refits.loss_change([i], one(case.new_x), case.new_y) for i in range(n)])
    shift = np.stack([case.refits.prediction_change([i], one(case.new_x)) for i in range(n)])
    for place, query in enumerate(frame.index):
        mine = table[table["query"] == query]
        up, down = mine[mine["rank"] > 0], mine[mine["rank"] < 0]
        order = np.argsort(exact[:, place])
        assert_array_equal(up["sample_id"], order[::-1][: len(up)])
        assert_array_equal(down["sample_id"], order[: len(down)])
        assert len(up) == min(3, (exact[:, place] > 0).sum())
        assert_allclose(mine["loss_change"], exact[mine["sample_id"], place], rtol=1e-7, atol=1e-13)
        assert_allclose(mine[names], shift[mine["sample_id"], place], rtol=1e-7, atol=1e-13)


def test_without_targets_causes_are_ranked_by_the_change_of_the_prediction():
    case = CASES["one target"]
    table = case.fit().explain(case.new_x[:1], k=2)
    shift = np.array([case.refits.prediction_change([i], one(case.new_x[:1]))[0, 0] for i in range(40)])
    order = np.argsort(shift)
    assert table["rank"].tolist() == [1, 2, -1, -2]
    assert table["sample_id"].tolist() == [*order[::-1][:2], *order[:2]]
    with pytest.raises(InputError, match=r"changes of several targets have no order. Pass the targets"):
        CASES["three targets"].fit().explain(case.new_x[:, :4])


@pytest.mark.parametrize("posterior", POSTERIORS)
@CASE
def test_candidates_are_worth_what_they_are_once_they_have_joined(case, posterior):
    table = case.fit(posterior).candidates(case.new_x, case.new_y, ids=list("rstuvwxyz"))
    for k, row in table.to_frame().iterrows():
        mean, covariance = case.refits.joined(one(case.new_x)[k], case.new_y[k], 1.0, posterior)
        assert_allclose([row["mean_term"], row["covariance_term"]], [mean, covariance], rtol=1e-7)
        assert abs(row["lsi"] / (mean + covariance) - 1) <= row["relative_error"] + 1e-9
    joined = case.fit(posterior).with_rows(case.new_x[:1], case.new_y[:1])
    assert_allclose(table.lsi[0], joined.scores([len(case.x)], audit=False).lsi[0], rtol=1e-8)


@pytest.mark.parametrize("posterior", ["diag", "full"])
@pytest.mark.parametrize("name", ["one target", "more features than samples"])
def test_without_targets_candidates_are_expectations(name, posterior):
    case = CASES[name]
    fitted = case.fit(posterior)
    found = fitted.candidates(case.new_x[:3]).lsi
    # Gauss-Hermite with two points is exact: the terms are quadratic in each target, which do not mix.
    predicted, apart = one(case.new_x[:3]) @ case.refits.theta.T, 1 / np.sqrt(case.noise)
    exact = np.mean([fitted.candidates(case.new_x[:3], predicted + s * apart).lsi for s in (1, -1)], axis=0)
    assert_allclose(found, exact, rtol=1e-9)


@CASE
def test_rows_are_chosen_by_the_determinant(case):
    table = case.fit().choose(case.new_x, 4)
    ridge = len(case.x) * case.weight_decay
    matrix = one(case.x).T @ one(case.x) + ridge * np.eye(case.x.shape[1] + 1)
    new, taken = one(case.new_x), []
    for place, gain in zip(table["position"], table["gain"], strict=True):
        leverage = np.einsum("nd,de,ne->n", new, np.linalg.inv(matrix), new)
        leverage[taken] = -1
        assert place == leverage.argmax()
        assert_allclose(gain, 0.5 * case.y.shape[1] * np.log1p(leverage[place]), rtol=1e-7)
        matrix = matrix + np.outer(new[place], new[place])
        taken.append(place)
    with pytest.raises(InputError, match="budget must lie between 1 and the 9 rows"):
        case.fit().choose(case.new_x, 10)


def test_copies_of_training_rows_are_found():
    x = RNG.normal(size=(200, 6))
    y = x[:, 0] * 2
    test, answers = np.vstack([x[17] + 1e-9, x[40] + 1e-9, RNG.normal(size=(3, 6))]), np.zeros(5)
    answers[0] = y[17]
    table = lsi.fit(x, y, probe=lsi.RidgeProbe(1e-2)).leaks(test, answers)
    assert table["finding"][0] == "near-copy of 17"
    assert table["finding"][1] == "near-copy of 40, which has another label"
    assert table["hangs_on"].isna().all()
    assert_allclose(table["prediction"], test[:, 0] * 2, atol=0.1)


def test_whose_scores_a_change_moves_most():
    case = CASES["one target"]
    before = case.fit()
    after = before.relabel({3: float(case.y[3, 0]) + 9.0})
    change = np.abs(after.scores(audit=False).lsi - before.scores(audit=False).lsi)
    assert_array_equal(after.affected(before, k=5), np.argsort(-change)[:5])
    assert after.affected(before, k=1).tolist() == [3]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda f: f.smallest_change(np.ones((1, 5))), "predicts numbers: it has no class.*Ask explain"),
        (lambda f: f.values(np.ones((2, 5)), np.ones((2, 2))), "y has 2 targets, .* trained on 1"),
        (lambda f: f.values(np.ones((2, 5)), np.ones(3)), "X has 2 rows but y has 3 labels"),
        (lambda f: f.values(np.ones((2, 5)), [1.0, np.nan]), "y is NaN or infinite in 1 of 2 rows"),
        (lambda f: f.candidates(np.ones((2, 4))), "X has 4 columns"),
        (lambda f: f.with_rows(np.ones((1, 5)), [[1.0, 2.0]]), "y has 2 targets"),
    ],
)
def test_what_cannot_be_answered_is_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask(CASES["one target"].fit())
