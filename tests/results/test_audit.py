"""The audit's figures, its dictionary and its sentence."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lsi.errors import InputError
from lsi.results.audit import Audit, relative_error, spearman, top_k_overlap

EXACT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
CLOSE = [1.1, 2.0, 3.0, 4.0, 5.0, 6.0, 7.7, 7.2]


def test_figures_by_hand():
    audit = Audit.from_values(range(8), EXACT, CLOSE, [0.2] * 7 + [0.05], seconds=2.0)
    assert_allclose(audit.spearman, 1 - 6 * 2 / (8 * 63))  # two neighbours swapped
    assert_allclose(audit.median_relative_error, 0.0)
    assert_allclose(audit.max_relative_error, 0.1)
    assert_allclose(audit.p95_relative_error, 0.1)
    assert (audit.top_k, audit.top_k_overlap) == (2, 1.0)
    assert_allclose(audit.certificate_coverage, 7 / 8)
    assert audit.positions == list(range(8))


def test_sentence():
    audit = Audit.from_values(range(8), EXACT, CLOSE, [0.2] * 8, seconds=2.0)
    assert audit.summary() == (
        "8 samples were left out again by brute force in 2.0 s: rank correlation 0.9762, relative error 0 % "
        "median and 10 % at most, 2 of the top 2 agree, the certificate held for 100%."
    )


def test_sentence_of_a_single_sample_that_is_not_finite():
    audit = Audit.from_values([3], [1.0], [np.nan], None, seconds=0.0)
    assert audit.summary().startswith("1 sample was left out")
    assert "no rank correlation" in audit.summary()
    assert "not finite median and not finite at most" in audit.summary()
    assert "0 of the top 1" in audit.summary()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("exact", "close"),
    [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0], [1.0]), ([1.0, 2.0], [1.0, np.inf])],
)
def test_undefined_rank_correlation_is_nan_without_a_warning(exact, close):
    assert np.isnan(spearman(np.array(exact), np.array(close)))


@pytest.mark.filterwarnings("error")
def test_relative_error_where_exact_is_zero():
    assert_allclose(
        relative_error(np.array([0.0, 1.0, 2.0, np.nan]), np.array([0.0, 0.0, 4.0, 1.0])),
        [0, np.inf, 0.5, np.nan],
    )


def test_an_error_that_is_not_finite_is_never_dropped():
    audit = Audit.from_values(range(3), [1.0, 2.0, 3.0], [1.0, 2.0, np.nan], None, seconds=0.0)
    assert np.isnan(audit.max_relative_error)
    assert np.isnan(audit.median_relative_error)


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 1.0),
        ([4.0, 3.0, 2.0, 1.0], 0.0),
        ([1.0, 4.0, 2.0, 3.0], 0.5),
        ([1.0, 3.0, 3.0, 4.0], 1.0),
    ],
)
def test_top_k_overlap(close, expected):
    assert top_k_overlap(np.array([1.0, 2.0, 3.0, 4.0]), np.array(close), 2) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 1), (12, 3), (100, 10)])
def test_default_of_top_k(count, expected):
    values = np.arange(1.0, count + 1)
    assert Audit.from_values(range(count), values, values, None, seconds=0.0).top_k == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], [], None, 0.0), "one value per position"),
        (([1], [1.0, 2.0], [1.0], None, 0.0), "one value per position"),
        (([1], [1.0], [1.0], [1.0, 2.0], 0.0), "one value per position"),
        (([1], [1.0], [1.0], None, 0.0, 2), "top_k must lie between 1 and 1"),
        (([1], [1.0], [1.0], None, 0.0, 0), "top_k must lie between 1 and 1"),
    ],
)
def test_values_that_do_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        Audit.from_values(*arguments)


any_float = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(st.lists(st.tuples(any_float, any_float, any_float), min_size=1, max_size=8), any_float)
def test_strict_json_brings_back_every_field(rows, seconds):
    exact, close, promised = (list(column) for column in zip(*rows, strict=True))
    with np.errstate(all="ignore"):
        audit = Audit.from_values(range(len(rows)), exact, close, promised, seconds)
    text = json.dumps(audit.to_dict(), allow_nan=False)
    again = Audit.from_dict(json.loads(text))
    assert repr(again) == repr(audit)  # NaN equals NaN in the repr, and floats are exact in it
    assert audit.to_dict().keys() == {"broken", *(field.name for field in dataclasses.fields(Audit))}


def test_a_dictionary_that_is_no_audit():
    values = Audit.from_values([1], [1.0], [1.0], None, seconds=0.0).to_dict()
    with pytest.raises(InputError, match="spearman"):
        Audit.from_dict({key: value for key, value in values.items() if key != "spearman"})
    with pytest.raises(InputError, match="audit cannot be read"):
        Audit.from_dict({**values, "exact": ["many"]})


def test_broken_certificates_raise_an_alarm():
    promised = [0.05, 0.2, np.nan, np.inf, 1e-3, 1e-3, 0.05, 0.2]
    audit = Audit.from_values(
        range(8), EXACT, CLOSE, promised, seconds=1.0, trusts="nothing", resolution=1e-6
    )
    assert audit.broken == [0, 6]  # off by a tenth; row 7 is off by less than it says
    assert audit.alarm().startswith("Certificates are broken: 2 of 8 audited samples are further from")
    assert "(rows 0, 6). Row 0 is off by 10 % at a certificate of 5 %." in audit.alarm()
    assert audit.summary().endswith(audit.alarm())
    assert "Brute force trusts nothing." in audit.summary()
    assert audit.to_dict()["broken"] == [0, 6]
    again = Audit.from_dict(json.loads(json.dumps(audit.to_dict())))
    assert (again.broken, again.trusts, again.resolution) == ([0, 6], "nothing", 1e-6)


def test_brute_force_may_be_off_itself():
    exact, close = [1.0, 2.0], [1.0 + 2e-6, 2.0]
    assert Audit.from_values([0, 1], exact, close, [1e-6, 1e-6], 1.0).broken == [0]
    assert Audit.from_values([0, 1], exact, close, [1e-6, 1e-6], 1.0, resolution=1.1e-6).broken == []
    assert Audit.from_values([0, 1], [np.nan, 2.0], close, [1e-6, 1e-6], 1.0).broken == []


def test_an_audit_from_before_says_less():
    described = Audit.from_values(range(8), EXACT, CLOSE, [0.2] * 8, seconds=2.0).to_dict()
    del described["trusts"], described["resolution"], described["broken"]
    assert Audit.from_dict(described).trusts == ""
    with pytest.raises(InputError, match="cannot be read"):
        Audit.from_dict(described | {"trusts": 3})
    assert "\x1b" not in Audit.from_dict(described | {"trusts": "\x1b[2Jall"}).summary()
