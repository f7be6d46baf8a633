import numpy as np
import pytest
from tests.analysis.tables import random_table, scored, table

from lsi.analysis.typicality import REASONS, typicality
from lsi.errors import InputError


def one_of_each():
    """Eleven ordinary samples, then one for each reason (two for hard)."""
    ordinary = 11
    lsi = [0.1 + 0.01 * k for k in range(ordinary)] + [9.0, 8.0, 7.0, 6.0, 0.05]
    labels = ["a", "b"] * 5 + ["a"] * 6
    predicted = ["a", "b"] * 5 + ["a", "b", "b", "a", "a", "a"]
    probability = [0.9] * ordinary + [0.02, 0.3, 0.99, 0.2, 0.95]
    leverage = [0.01] * ordinary + [0.02, 0.03, 0.9, 0.001, 0.01]
    group = [-1] * (ordinary + 4) + [0]
    return table(lsi, labels, predicted, probability, leverage=leverage, redundancy_group=group)


def test_every_reason_is_found():
    reasons = typicality(scored(one_of_each()))["reason"]
    assert reasons[:11].eq("typical").all()
    assert reasons[11:].tolist() == ["mislabeled", "hard", "rare", "hard", "redundant"]


def test_a_calibrated_probability_decides_about_labels():
    given = one_of_each()
    calibrated = given.assign(wrong_probability=np.where(given.index == 3, 0.8, 0.1))
    reasons = typicality(scored(calibrated))["reason"]
    assert reasons[reasons == "mislabeled"].index.tolist() == [3]


def test_a_sample_that_sharpens_is_rare_without_leverage_too():
    given = table([1, 1, 1, 1, 5.0], list("ababa"), probability=[0.9, 0.9, 0.9, 0.9, 0.85])
    given = given.assign(leverage=np.nan, covariance_term=[0, 0, 0, 0, 4.0])
    assert typicality(scored(given))["reason"].iloc[4] == "rare"


def test_ranks_and_shares():
    given = table([0.3, 0.1, 0.2, 0.0], list("aabb"), covariance_term=[0.15, 0.0, 0.2, 0.0])
    found = typicality(scored(given))
    assert found["rank"].tolist() == [4, 2, 3, 1]
    assert found["rank_in_class"].tolist() == [2, 1, 2, 1]
    assert found["quantile"].tolist() == [1.0, 0.5, 0.75, 0.25]
    np.testing.assert_allclose(found["covariance_share"], [0.5, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(found["mean_share"] + found["covariance_share"], 1.0)


def test_the_order_of_rows_does_not_matter():
    given = random_table(50)
    mixed = given.sample(frac=1.0, random_state=1)
    left = typicality(scored(given)).set_index("sample_id")
    right = typicality(scored(mixed)).set_index("sample_id").loc[left.index]
    assert (left == right).all(axis=None)
    assert set(left["reason"]) <= set(REASONS)


def test_without_classes_no_label_is_suspected():
    given = table([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], [0.4, 1.6, 0.1], [0.9, 0.9, 0.01])
    found = typicality(scored(given, task="regression"))
    assert "mislabeled" not in set(found["reason"])
    assert found["rank_in_class"].tolist() == found["rank"].tolist()


@pytest.mark.parametrize("lsi", [[], [1.0, np.nan]])
def test_nothing_is_said_about_nothing(lsi):
    with pytest.raises(InputError, match=r"no scored samples|not finite"):
        typicality(scored(table(lsi, ["a"] * len(lsi))))
