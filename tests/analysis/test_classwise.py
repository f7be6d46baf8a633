import numpy as np
import pytest
from tests.analysis.tables import random_table, scored, table

from lsi.analysis.classwise import by_class, cross_entropy
from lsi.errors import InputError


def test_figures_are_those_of_each_class_alone():
    given = random_table(80, 4)
    found = by_class(scored(given)).set_index("label")
    for label, rows in given.groupby("label"):
        row = found.loc[label]
        assert row["n"] == len(rows)
        np.testing.assert_allclose(row["share"], len(rows) / len(given))
        np.testing.assert_allclose(row["mean"], rows["lsi"].mean())
        levels = row[["q05", "q25", "median", "q75", "q95"]].to_numpy(float)
        np.testing.assert_allclose(levels, np.quantile(rows["lsi"], [0.05, 0.25, 0.5, 0.75, 0.95]))
        np.testing.assert_allclose(row["information"], rows["lsi"].sum() / given["lsi"].sum())
        np.testing.assert_allclose(row["loo_cross_entropy"], -np.log(rows["loo_probability"]).mean())
        np.testing.assert_allclose(row["loo_accuracy"], (rows["loo_prediction"] == label).mean())
        doubtful = (rows["loo_prediction"] != label) & (rows["loo_probability"] < 0.1)
        np.testing.assert_allclose(row["suspected"], doubtful.mean())
    assert found["median"].is_monotonic_decreasing


def test_accuracy_on_a_test_set():
    given = table([3.0, 2.0, 1.0, 0.5], list("aabc"))
    labels, predictions = list("aaaabbc"), list("aabbbbc")
    found = by_class(scored(given), (labels, predictions)).set_index("label")
    assert found["n_test"].to_dict() == {"a": 4, "b": 2, "c": 1}
    assert found["test_accuracy"].to_dict() == {"a": 0.5, "b": 1.0, "c": 1.0}
    correlation = by_class(scored(given), {"a": 0.1, "b": 0.5, "c": 0.9}).attrs["correlation"]
    np.testing.assert_allclose(correlation["median"], -1.0)
    assert correlation["suspected"] is None  # constant: no correlation


def test_a_class_without_test_samples_has_no_accuracy():
    found = by_class(scored(table([1.0, 2.0], list("ab"))), (["a"], ["a"])).set_index("label")
    assert found.loc["b", "n_test"] == 0
    assert np.isnan(found.loc["b", "test_accuracy"])


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ((["a"], ["a", "b"]), "1 labels and 2 predictions"),
        ((["x"], ["x"]), "none of the test labels"),
        ({"a": 1.0}, r"no accuracy for the classes \['b'\]"),
        (3, "must be"),
    ],
)
def test_what_does_not_fit(test, message):
    with pytest.raises(InputError, match=message):
        by_class(scored(table([1.0, 2.0], list("ab"))), test)


def test_an_impossible_label_costs_much_and_not_infinity():
    assert 700 < cross_entropy(np.array([0.0]))[0] < 710
    assert cross_entropy(np.array([1.0]))[0] == 0.0
