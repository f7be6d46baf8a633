"""The scikit-learn face: its conventions, and that it is nothing but `lsi.score`."""

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import lsi
from lsi import estimator as estimator_module
from lsi.errors import InputError
from lsi.estimator import LaplaceSampleInformation

IRIS = load_iris(as_frame=True)
X, Y = IRIS.data.iloc[::5], IRIS.target.iloc[::5]


# One check is skipped, with the words "SCIPY_ARRAY_API is not set": arrays of other libraries have no claim.
@parametrize_with_checks(
    [LaplaceSampleInformation(), LaplaceSampleInformation(posterior="full", method="retrain", audit=False)]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_it_is_lsi_score():
    fitted = LaplaceSampleInformation(posterior="kron", prior_precision=2.0, subset=[4, 2], audit=False).fit(
        X, Y
    )
    direct = lsi.score(X, Y, posterior="kron", prior_precision=2.0, subset=[4, 2], audit=False)
    assert_array_equal(fitted.scores_, direct.lsi)
    assert_array_equal(fitted.result_.lsi, direct.lsi)
    assert fitted.scores_.dtype == np.float64
    assert len(fitted.result_) == 2


def test_settings_and_defaults_are_those_of_lsi_score():
    theirs = inspect.signature(lsi.score).parameters
    ours = inspect.signature(LaplaceSampleInformation).parameters
    assert set(ours) == set(theirs) - {
        "X",
        "y",
        "sample_id",
        "groups",
        "shard",
    }  # what belongs to samples goes to fit
    for name in ours:
        assert ours[name].default == theirs[name].default, name


class Called(Exception):
    """Stops a fit after its settings were seen."""


@pytest.fixture
def seen(monkeypatch):
    settings = {}

    def remember(*_data, **given):
        settings.update(given)
        raise Called

    monkeypatch.setattr(estimator_module, "score", remember)
    return settings


def test_every_setting_is_passed_on(seen):
    settings = {name: object() for name in inspect.signature(LaplaceSampleInformation).parameters}
    ids = object()
    with pytest.raises(Called):
        LaplaceSampleInformation(**settings).fit(X, Y, sample_id=ids)
    assert seen == {**settings, "sample_id": ids}


def test_fitted_attributes():
    names = IRIS.target_names[Y]
    fitted = LaplaceSampleInformation(audit=False).fit(X, names)
    assert fitted.scores_.shape == (len(X),)
    assert fitted.n_features_in_ == 4
    assert_array_equal(fitted.feature_names_in_, IRIS.feature_names)
    assert_array_equal(fitted.classes_, ["setosa", "versicolor", "virginica"])
    assert_array_equal(fitted.result_.sample_id, X.index)  # the index of a frame names the samples


@pytest.mark.parametrize(
    ("labels", "kind"), [([0, 1], "i"), ([True, False], "b"), ([0.0, 1.0], "i"), ([1, "a"], "O")]
)
def test_classes_keep_their_type(labels, kind):
    fitted = LaplaceSampleInformation(audit=False, subset=[0]).fit(X, (labels * len(X))[: len(X)])
    assert fitted.classes_.dtype.kind == kind
    assert set(fitted.classes_) == set(labels)


def test_ids_may_be_passed_to_fit():
    ids = [f"flower {i}" for i in range(len(X))]
    fitted = LaplaceSampleInformation(audit=False, subset=[2, 0]).fit(X, Y, sample_id=ids)
    assert fitted.result_.sample_id.tolist() == ["flower 2", "flower 0"]


def test_object_arrays_of_numbers_are_numbers_as_in_scikit_learn():
    plain = LaplaceSampleInformation(audit=False).fit(X.to_numpy(), Y.to_numpy())
    objects = LaplaceSampleInformation(audit=False).fit(X.to_numpy(dtype=object), Y.to_numpy())
    assert_array_equal(objects.scores_, plain.scores_)


def test_it_ends_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), LaplaceSampleInformation(audit=False)).fit(X, Y)
    direct = lsi.score(StandardScaler().fit_transform(X), Y.to_numpy(), audit=False)
    assert_array_equal(pipeline[-1].scores_, direct.lsi)


def test_it_can_be_cloned_and_pickled():
    probe = lsi.LinearProbe(weight_decay=1e-2)
    estimator = LaplaceSampleInformation(probe=probe, posterior="kron", subset=[1, 2])
    copied = clone(estimator)
    assert copied.get_params() == estimator.get_params()
    fitted = copied.fit(X, Y)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).scores_, fitted.scores_)


def test_it_is_no_classifier_and_needs_labels():
    estimator = LaplaceSampleInformation()
    assert not is_classifier(estimator)
    assert not hasattr(estimator, "predict")
    assert get_tags(estimator).target_tags.required


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (X.assign(kind="a"), Y, "not numbers: 'kind'"),
        (X, None, "requires y to be passed"),
        (X, Y[:-1], "30 rows but y has 29 labels"),
        (X.to_numpy()[:, 0], Y, "2-D"),
    ],
)
def test_bad_input_is_named(features, labels, message):
    with pytest.raises(InputError, match=message):
        LaplaceSampleInformation().fit(features, labels)


def test_bad_settings_are_named_in_fit():
    with pytest.raises(InputError, match="Did you mean 'kron'"):
        LaplaceSampleInformation(posterior="krona").fit(X, Y)


def test_a_series_from_another_selection_is_refused():
    with pytest.raises(InputError, match="different indexes"):
        LaplaceSampleInformation().fit(X, pd.Series(Y.to_numpy()))
