import numpy as np
import pytest

from lsi.analysis import detection_quality
from lsi.errors import InputError


def test_perfect_reversed_and_constant_scores():
    truth = np.array([False, False, True, True])
    assert detection_quality(np.array([1, 2, 3, 4]), truth) == {
        "auroc": 1.0,
        "average_precision": 1.0,
        "n_positive": 2,
    }
    assert detection_quality(np.array([4, 3, 2, 1]), truth)["auroc"] == 0.0
    assert detection_quality(np.ones(4), truth)["auroc"] == 0.5


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.3
    wins = score[truth][:, None] - score[~truth][None, :]
    expected = ((wins > 0) + 0.5 * (wins == 0)).mean()
    np.testing.assert_allclose(detection_quality(score, truth)["auroc"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("score", "truth", "message"),
    [
        ([1, 2], [False, False], "no sample is marked"),
        ([1, 2], [True, True], "all samples are marked"),
        ([], [], "no sample is marked"),
        ([1, 2, 3], [True, False], "equal length"),
        ([[1, 2]], [[True, False]], "one-dimensional"),
        ([1, np.nan], [True, False], "1 scores are not finite"),
    ],
)
def test_what_cannot_be_measured(score, truth, message):
    with pytest.raises(InputError, match=message):
        detection_quality(np.array(score), np.array(truth))
