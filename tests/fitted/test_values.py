"""Values against training again, for every probe that has them."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.fitted.data import CASES, Asked, blobs, one
from tests.oracles.refits import SigmoidRefits

import lsi
from lsi.loo.attribution import sample, values


def error(table):
    return (table["relative_error"] * table["loss_change"].abs()).to_numpy()


def refitted(case):
    return case.exact.mean(1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_are_those_of_training_again(case):
    table = case.fitted.values(case.new_x, case.new_y)
    exact = refitted(case)
    off = np.abs(table["loss_change"] - exact)
    assert (off <= error(table) + 1e-10).all()
    assert spearmanr(table["loss_change"], exact).statistic > 0.999
    assert np.median(table["relative_error"]) < 1e-2


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_certificates_hold_without_any_walk(case, monkeypatch):
    monkeypatch.setattr(values, "WALK_WORK", 0.0)
    table = case.fitted.values(case.new_x, case.new_y)
    assert (np.abs(table["loss_change"] - refitted(case)) <= error(table) + 1e-10).all()


def test_the_correction_takes_most_of_the_first_order_error_away(monkeypatch):
    monkeypatch.setattr(values, "WALK_WORK", 0.0)
    case = CASES["three classes"]
    corrected = case.fitted.values(case.new_x, case.new_y)["loss_change"]
    engine = next(case.fitted.engines())
    index = values.torch.arange(len(case.x))
    queries = values.Queries.of(
        engine.model, values.torch.from_numpy(one(case.new_x)), values.torch.from_numpy(case.new_y)
    )
    first, _ = queries.mean_change(engine.solver.first_order(index).delta)
    exact = refitted(case)
    assert np.median(np.abs(corrected - exact)) < 0.3 * np.median(np.abs(first.numpy() - exact))


def test_certificates_hold_where_few_rows_are_read(monkeypatch):
    monkeypatch.setattr(values, "WALK_WORK", 0.0)
    case = Asked(*blobs(150, 20, d=6, classes=4, seed=8), 1e-2)
    whole = case.fitted.values(case.new_x, case.new_y)
    monkeypatch.setattr(sample, "READ", 20)
    sampled = case.fitted.values(case.new_x, case.new_y)
    assert not sampled["loss_change"].equals(whole["loss_change"])
    assert (error(sampled) > error(whole)).mean() > 0.9
    chosen = range(0, 150, 4)
    exact = [case.refits.loss_change([i], one(case.new_x), case.new_y).mean() for i in chosen]
    off = np.abs(sampled["loss_change"].to_numpy()[chosen] - exact)
    assert (off <= error(sampled)[chosen] + 1e-10).all()


def test_accuracy_is_that_of_training_again():
    case = CASES["three classes"]
    table = case.fitted.values(case.new_x, case.new_y)
    right = case.refits.prediction(one(case.new_x)) == case.new_y
    for i in range(0, len(case.x), 5):
        without = case.refits.prediction(one(case.new_x), [i]) == case.new_y
        assert table["accuracy_change"][i] == pytest.approx(without.mean() - right.mean(), abs=1e-12)


def test_positive_helps_and_negative_hurts():
    x, y, new_x, new_y = blobs(60, 40, classes=2, spread=3.0, seed=9, flipped=0.0)
    y[0] = 1 - y[0]
    table = lsi.fit(x, y, probe=lsi.LinearProbe(1e-2)).values(new_x, new_y)
    assert table["loss_change"][0] < 0 and table["effect"][0] == "hurts"
    assert table["loss_change"].idxmin() == 0
    assert ((table["effect"] == "helps") == (table["loss_change"] > 0)).all()


def test_a_value_smaller_than_its_error_is_called_unclear(monkeypatch):
    monkeypatch.setattr(values, "WALK_WORK", 0.0)
    case = CASES["separable"]
    table = case.fitted.values(case.new_x, case.new_y)
    doubtful = table["relative_error"] >= 1
    assert doubtful.any() and (table["effect"][doubtful] == "unclear").all()
    assert (table["effect"][~doubtful] != "unclear").all()


@pytest.mark.parametrize("posterior", ["kron", "full"])
def test_the_posterior_does_not_matter(posterior):
    case = CASES["three classes"]
    fitted = lsi.fit(case.x, case.y, probe=case.probe, posterior=posterior)
    np.testing.assert_allclose(
        fitted.values(case.new_x, case.new_y)["loss_change"],
        case.fitted.values(case.new_x, case.new_y)["loss_change"],
        rtol=1e-2,
        atol=1e-9,
    )


def test_blocks_of_queries_and_samples_do_not_matter(monkeypatch):
    case = CASES["three classes"]
    whole = case.fitted.values(case.new_x, case.new_y)
    fitted = lsi.fit(case.x, case.y, probe=case.probe)
    next(fitted.engines()).solver.block_size = 7
    monkeypatch.setattr(
        values.Queries, "blocks", lambda self, width: (slice(k, k + 3) for k in range(0, 20, 3))
    )
    parts = fitted.values(case.new_x, case.new_y)
    np.testing.assert_allclose(parts["loss_change"], whole["loss_change"], rtol=1e-9)
    np.testing.assert_allclose(parts["accuracy_change"], whole["accuracy_change"], atol=1e-12)


@pytest.mark.parametrize("labels", [1, 3])
def test_sigmoid_heads_add_up(labels):
    x, _, new_x, _ = blobs(40, 15, seed=11)
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(4, labels))
    y, new_y = ((rows @ plane + rng.normal(size=(len(rows), labels)) > 0).astype(int) for rows in (x, new_x))
    given = (y[:, 0], new_y[:, 0]) if labels == 1 else (y, new_y)
    table = lsi.fit(x, given[0], probe=lsi.SigmoidProbe(1e-2)).values(new_x, given[1])
    heads = [SigmoidRefits(one(x), y[:, k], 1e-2) for k in range(labels)]
    for i in range(0, 40, 6):
        parts = (head.loss_change([i], one(new_x), new_y[:, k]).mean() for k, head in enumerate(heads))
        assert table["loss_change"][i] == pytest.approx(sum(parts), abs=error(table)[i] + 1e-10)


def test_groups_are_left_out_together():
    case = CASES["three classes"]
    groups = np.arange(48) // 8
    table = case.fitted.values(case.new_x, case.new_y, groups=groups)
    assert table["n"].tolist() == [8] * 6
    exact = [
        case.refits.loss_change(np.flatnonzero(groups == g), one(case.new_x), case.new_y).mean()
        for g in range(6)
    ]
    assert (np.abs(table["loss_change"] - exact) <= error(table)).all()
    assert (table["relative_error"] < 1e-2).all()


def test_groups_of_one_row_are_that_row():
    case = CASES["two classes"]
    single = case.fitted.values(case.new_x, case.new_y)
    groups = case.fitted.values(case.new_x, case.new_y, groups=np.arange(len(case.x)))
    np.testing.assert_allclose(groups["loss_change"], single["loss_change"], rtol=2e-2, atol=1e-8)


def test_labels_may_be_words_and_come_in_any_order():
    case = CASES["three classes"]
    words = np.array(["ant", "bee", "cat"], dtype=object)
    table = lsi.fit(case.x, words[case.y], probe=case.probe).values(case.new_x[::-1], words[case.new_y[::-1]])
    expected = case.fitted.values(case.new_x, case.new_y)
    np.testing.assert_allclose(table["loss_change"], expected["loss_change"], rtol=1e-6)
