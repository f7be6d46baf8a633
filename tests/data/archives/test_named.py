import numpy as np
import pytest

from lsi.data import NAMED, load_named
from lsi.data.samples import standardise
from lsi.errors import InputError

SHAPES = {
    "digits": (1797, 64, 10),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
    "diabetes": (442, 10, 214),
}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_named_dataset_has_the_shape_that_is_known(name):
    samples = load_named(name)
    n, d, c = SHAPES[name]
    assert samples.features.shape == (n, d)
    assert len(samples) == len(samples.ids) == len(set(samples.ids.tolist())) == n
    assert len(np.unique(samples.labels)) == c
    assert len(samples.feature_names) == d
    assert samples.source == {"kind": "named", "name": name}


def test_digits_have_pictures_that_match_their_features():
    digits = load_named("digits")
    assert digits.images.shape == (1797, 8, 8)
    assert digits.images.dtype == np.uint8
    np.testing.assert_allclose(digits.images.reshape(1797, 64) / 255, digits.features, atol=1 / 500)
    assert digits.features.max() == 1.0


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_tables_are_standardised_and_say_so(name):
    samples = load_named(name)
    np.testing.assert_allclose(samples.features.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(samples.features.std(axis=0), 1)
    assert "standardised" in samples.description


def test_class_names_are_shown_for_labels():
    assert load_named("breast_cancer").class_name(np.int64(0)) == "malignant"
    assert load_named("digits").class_name(7) == "7"


def test_standardise_leaves_constant_columns_at_zero():
    result = standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(result, [[-1, 0], [1, 0]])


@pytest.mark.parametrize("spelling", ["Breast-Cancer", "breast cancer", " WINE "])
def test_spelling_of_names_is_forgiven(spelling):
    assert load_named(spelling).name in NAMED


def test_unknown_name_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"unknown dataset 'digit'. Did you mean 'digits'\?.*\.npz"):
        load_named("digit")
