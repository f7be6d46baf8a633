"""Copies, hinges and strangers among test rows."""

import numpy as np
import pytest
from tests.fitted.data import CASES, blobs, one

import lsi


@pytest.fixture(scope="module")
def planted():
    """Test rows of which row 0 copies training row 5, row 1 copies row 6 with another label, row 2 is far."""
    x, y, new_x, new_y = blobs(300, 60, d=6, spread=2.0, seed=31, flipped=0.0)
    new_x[0], new_y[0] = x[5] + 1e-4, y[5]
    new_x[1], new_y[1] = x[6] + 1e-4, (y[6] + 1) % 3
    new_x[2] = 40.0
    return x, y, new_x, new_y, lsi.fit(x, y, probe=lsi.LinearProbe(1e-2))


def test_planted_copies_and_strangers_are_named(planted):
    x, _, new_x, new_y, fitted = planted
    table = fitted.leaks(new_x, new_y)
    assert table["finding"][0].startswith("near-copy of 5")
    assert "another label" not in table["finding"][0]
    assert table["finding"][1].startswith("near-copy of 6, which has another label")
    assert table["finding"][2].endswith("far from every training row")
    assert table["finding"].str.startswith("near-copy").sum() == 2
    exact = np.linalg.norm((new_x[:, None] - x[None]) / x.std(0), axis=2)
    np.testing.assert_allclose(table["distance"], exact.min(1), rtol=1e-6)
    assert (table["nearest"] == exact.argmin(1)).all()


def test_far_rows_are_about_one_in_a_hundred_without_a_shift_and_nearly_all_with_one(planted):
    *_, fitted = planted
    _, _, same, _ = blobs(3, 500, d=6, spread=2.0, seed=77)
    assert (fitted.leaks(same)["far_p"] <= 0.01).mean() < 0.03
    assert (fitted.leaks(same + 8.0)["far_p"] <= 0.01).mean() > 0.9


def test_without_labels_nothing_is_said_about_them(planted):
    _, _, new_x, _, fitted = planted
    table = fitted.leaks(new_x)
    assert table["same_label"].isna().all()
    assert table["finding"][1] == "near-copy of 6" or table["finding"][1].startswith("near-copy of 6; ")


@pytest.mark.parametrize("name", ["three classes", "two classes", "twins"])
def test_a_prediction_hangs_on_a_row_where_training_without_it_says_so(name):
    case = CASES[name]
    table = case.fitted.leaks(case.new_x, case.new_y)
    before = case.refits.prediction(one(case.new_x))
    turned = np.array([case.refits.prediction(one(case.new_x), [i]) != before for i in range(len(case.x))])
    hangs = table["hangs_on"].notna().to_numpy()
    assert (hangs == turned.any(0)).all()
    for place in np.flatnonzero(hangs):
        assert turned[table["hangs_on"][place], place]
        assert f"another prediction without {table['hangs_on'][place]}" in table["finding"][place]


def test_several_labels_hang_on_rows_of_any_head():
    x, _, new_x, _ = blobs(40, 30, seed=11)
    y = np.column_stack([x[:, 0] > 0, x[:, 1] + 0.5 * x[:, 2] > 0]).astype(int)
    fitted = lsi.fit(x, y, probe=lsi.SigmoidProbe(1e-2))
    single = fitted.smallest_change(new_x, limit=1)
    assert (fitted.leaks(new_x)["hangs_on"].notna() == single["found"]).all()
