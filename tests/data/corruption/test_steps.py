"""All changes on purpose together: their order, and which task takes which."""

from dataclasses import replace

import numpy as np
import pytest

from lsi.data import Samples, corrupt, corrupt_data, corrupt_labels
from lsi.errors import InputError


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return Samples("made", np.arange(40), np.arange(40) % 4, features=rng.normal(size=(40, 3)))


def test_nothing_asked_for_changes_nothing(samples):
    assert corrupt(samples) == (samples, None)
    assert corrupt(samples, human_kind="False", data_strength=0.0) == (samples, None)


def test_label_noise_comes_before_noise_on_the_data(samples):
    changed, truth = corrupt(samples, label_share=0.25, data_strength=0.5, data_classes=("1",), seed=3)
    labels = corrupt_labels(samples.labels, 0.25, 3)
    expected, noise = corrupt_data(samples, labels.labels, 0.5, ["1"], 3)
    np.testing.assert_array_equal(truth.labels, labels.labels)
    np.testing.assert_array_equal(truth.original_labels, samples.labels)
    np.testing.assert_array_equal(truth.mask, labels.mask | noise.mask)
    np.testing.assert_array_equal(changed.features, expected.features)
    np.testing.assert_array_equal(changed.labels, samples.labels)


def test_clean_labels_are_the_truth_also_after_a_change(samples):
    clean = samples.labels.copy()
    clean[0] = 3
    _, truth = corrupt(replace(samples, clean_labels=clean), label_share=0.1, seed=1)
    np.testing.assert_array_equal(truth.original_labels, clean)
    assert truth.mask[0]
    assert truth.mask.sum() >= 4


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"human_kind": "worst"}, "--human-label-noise"),
        ({"label_kind": "pairwise"}, "--corrupt-kind"),
        ({"data_strength": 0.1}, "--corrupt-data"),
    ],
)
def test_targets_that_are_no_classes_take_a_share_only(samples, given, flag):
    with pytest.raises(InputError, match=f"{flag}: for classes, and this is a regression"):
        corrupt(samples, "regression", **given)
    _, truth = corrupt(samples, "regression", label_share=0.2)
    assert truth.n_corrupted == 8
