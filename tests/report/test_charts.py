import numpy as np
import pytest

from lsi.report import charts, summarize


def test_bars_lie_inside_the_box_and_planted_parts_inside_bars(make_scores):
    drawn = charts.histogram(summarize(make_scores(planted=6))["distribution"])
    for bar in drawn["bars"]:
        assert 0 <= bar["x"] <= bar["x"] + bar["width"] <= 100 + 1e-9
        assert 0 <= bar["planted"] <= bar["height"] <= 100
    assert max(bar["height"] for bar in drawn["bars"]) == 100
    assert any("planted" in bar["text"] for bar in drawn["bars"])
    assert 0 < drawn["median"] < 100


@pytest.mark.parametrize(("low", "high"), [(-4, 1), (-14, 2), (0, 1), (-0.5, 0.7)])
def test_ticks_are_powers_of_ten_in_their_place(low, high):
    ticks = charts.decades(low, high)
    assert 1 <= len(ticks) <= 7
    places = [tick["x"] for tick in ticks]
    assert places == sorted(places)
    exponents = low + np.array(places) / 100 * (high - low)
    np.testing.assert_allclose(exponents, exponents.round(), atol=1e-9)


def test_the_curve_runs_from_corner_to_corner():
    path = charts.detection_curve([[0, 0], [0.5, 1], [1, 1]])
    assert path["line"] == "M0.00 100.00 L50.00 0.00 L100.00 0.00"
    assert path["area"].endswith("L0 100 Z")


def test_equal_values_lie_on_the_diagonal_of_the_audit():
    drawn = charts.audit_scatter([[0.01, 0.01], [3.0, 3.0], [0.0, 0.0], [None, 1.0]])
    assert len(drawn["points"]) == 2
    for point in drawn["points"]:
        np.testing.assert_allclose(point["x"], 100 - point["y"])
    assert charts.audit_scatter([[1.0, 1.0]]) is None
