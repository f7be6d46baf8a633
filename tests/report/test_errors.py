"""The worst validation errors beside the training samples that caused them, for every kind of data."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from lsi.data import Samples
from lsi.data.items import ArrayItems
from lsi.report import build_page, summarize, wording
from lsi.report.cards import FaceMaker
from lsi.report.errors import MOST_CAUSES, MOST_ERRORS, Validation

HOSTILE = "</script><img src=x onerror=alert(1)>"


def found(samples, n_errors=2):
    """Return errors on the first rows of `samples`, the first of them with three causes."""
    errors = pd.DataFrame(
        {
            "query": samples.ids[:n_errors],
            "position": np.arange(n_errors),
            "label": "cat",
            "prediction": HOSTILE,
            "loss": np.linspace(3, 1, n_errors),
        }
    )
    causes = pd.DataFrame(
        {
            "query": 0,
            "rank": [1, -2, -1, -3],
            "sample_id": [4, 5, 6, 7],
            "loss_change": [0.9, -0.2, -0.4, -0.1],
            "changes_prediction": [False, False, True, False],
            "relative_error": [0.01, 0.01, 0.02, 1.5],  # of the last nothing is known
            "label": ["eel", "cat", HOSTILE, "dog"],
        }
    )
    return Validation(samples, errors, causes)


def kinds(make_scores, make_samples, kind):
    """Return scores, their samples, and validation rows of a kind of data."""
    scores = make_scores()
    samples = make_samples(scores, images=kind == "image")
    if kind == "text":
        texts = ArrayItems("text", [f"{HOSTILE} {k}" for k in range(60)], "text")
        samples = dataclasses.replace(samples, items=texts, features=None)
    rows = samples.select(np.arange(20, 30))
    return scores, samples, dataclasses.replace(rows, ids=np.array([f"row {HOSTILE} {k}" for k in range(10)]))


@pytest.mark.parametrize("kind", ["image", "text", "features"])
def test_causes_stand_beside_the_error(make_scores, make_samples, kind):
    scores, samples, rows = kinds(make_scores, make_samples, kind)
    told = summarize(scores, samples, validation=found(rows))["validation"]
    assert (told["n"], told["n_wrong"]) == (10, 2)
    first, second = told["rows"]
    # Those that spoke against the label, the strongest first, if more is known of them than their error.
    assert [cause["sample_id"] for cause in first["causes"]] == ["6", "5"]
    face = FaceMaker(samples)
    assert first["face"] == face(20)
    assert [cause["face"] for cause in first["causes"]] == [face(6), face(5)]
    assert second["causes"] == []
    page = build_page(scores, samples, found(rows))
    assert HOSTILE not in page and "onerror=alert(1)&gt;" in page
    section = page[page.index('<section id="errors"') :].partition("</section>")[0]
    assert section.count("<img") == (4 if kind == "image" else 0)
    assert section.count('class="text"') == (4 if kind == "text" else 0)
    assert section.count('class="profile"') == (4 if kind == "features" else 0)
    assert re.findall(r"<strong>([^<]*)</strong>", section) == ["3.00", "−0.400", "−0.200", "1.00"]
    assert "Without it the prediction is another." in section
    assert "No single sample lowers this loss" in section


def test_features_of_both_are_on_the_scale_of_the_training_samples(make_scores, make_samples):
    samples = make_samples(make_scores(), images=False)
    far = dataclasses.replace(samples, features=samples.features + 100)
    assert min(FaceMaker(far, FaceMaker(samples))(0)["profile"]) == 3
    assert FaceMaker(far)(0) == FaceMaker(samples)(0)


def test_without_samples_the_section_names_them_only(make_scores, make_samples):
    scores, _, rows = kinds(make_scores, make_samples, "image")
    rows = dataclasses.replace(rows, images=None, features=None)
    told = summarize(scores, None, validation=found(rows))["validation"]
    assert told["rows"][0]["face"] == {} == told["rows"][0]["causes"][0]["face"]
    assert "id 6" in build_page(scores, None, found(rows))


def test_only_the_worst_are_shown_and_no_error_is_said_to_be_none(make_scores, make_samples):
    scores = make_scores()
    samples = make_samples(scores)
    many = found(samples, 30)
    again = pd.concat([many.causes.assign(sample_id=many.causes["sample_id"] + 4 * k) for k in range(3)])
    told = summarize(scores, samples, validation=dataclasses.replace(many, causes=again))["validation"]
    assert (len(told["rows"]), len(told["rows"][0]["causes"])) == (MOST_ERRORS, MOST_CAUSES)
    said = wording.validation(told)
    assert "30 of 60 validation rows are predicted wrongly. Here are the 12 of the highest loss." in said
    none = Validation(samples, many.errors[:0], many.causes[:0])
    assert "0 of 60 validation rows are predicted wrongly." in build_page(scores, samples, none)
    assert 'id="errors"' not in build_page(scores, samples)


def test_ids_of_a_dataset_that_is_read_again_as_text_are_found(make_scores):
    scores = make_scores()
    ids = np.array([str(k) for k in range(60)])
    samples = Samples("animals", ids, scores.to_frame()["label"].to_numpy(), features=np.eye(60))
    told = summarize(scores, samples, validation=found(samples))["validation"]
    assert told["rows"][0]["causes"][0]["face"]["striking"][0]["name"] == "x6"
