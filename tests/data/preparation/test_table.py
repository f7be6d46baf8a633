"""A table of mixed columns: features that can be learnt from, and a word on each column."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from tests.data.preparation.messes import tables

import lsi
from lsi.data import prepare_table
from lsi.data.preparation.categories import MAX_LEVELS
from lsi.data.preparation.numbers import BOUND
from lsi.data.preparation.plan import MIN_ROWS
from lsi.errors import InputError

N = 60


def column(values, name="c", filler=True):
    """Return the plan of one column, next to one that is fine."""
    frame = pd.DataFrame({name: values})
    if filler:
        frame["filler"] = np.arange(len(frame)) % 7 * 1.5
    X, how = prepare_table(frame)
    plan = how.columns[0]
    return X[:, : len(plan.features)], plan


def repeated(*values, n=N):
    return [values[k % len(values)] for k in range(n)]


@settings(max_examples=30)
@given(tables())
def test_any_table_gives_finite_features_or_an_error_that_names_its_columns(frame):
    """No raw exception, no NaN, the same again, and row by row: the order of the rows carries nothing."""
    try:
        X, how = prepare_table(frame)
    except InputError as error:
        assert "'c0'" in str(error)
        return
    assert X.shape == (len(frame), len(how.feature_names))
    assert np.isfinite(X).all()
    np.testing.assert_array_equal(prepare_table(frame)[0], X)
    np.testing.assert_array_equal(how.transform(frame), X)
    assert len(how.describe()) == frame.shape[1]
    backwards = how.transform(frame.iloc[::-1])
    np.testing.assert_array_equal(backwards[::-1], X)


def test_numbers_are_scaled_by_their_quartiles_and_bounded():
    rng = np.random.default_rng(0)
    values = rng.normal(50, 10, 10_000)
    X, plan = column(values)
    assert plan.features == ("c",)
    assert np.median(X) == pytest.approx(0, abs=1e-12)
    low, high = np.quantile(X, [0.25, 0.75])
    z = 0.6745 / np.hypot(1, 0.6745 / BOUND)
    np.testing.assert_allclose([low, high], [-z, z], rtol=0.05)
    slipped = values.copy()
    slipped[0] = 999_999
    Y, _ = column(slipped)
    assert np.abs(Y).max() <= BOUND
    np.testing.assert_allclose(Y[1:], X[1:], atol=1e-3)


def test_missing_and_infinite_values_become_the_median_and_are_marked():
    X, plan = column(repeated(1.0, 2.0, 4.0, np.nan, np.inf))
    assert plan.features == ("c", "c is missing")
    assert plan.missing == 24
    assert plan.doubt == "12 infinite values count as missing."
    np.testing.assert_array_equal(X[:5, 1], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(X[3:5, 0], 0)
    few = [np.nan] * (MIN_ROWS - 1) + [1.0, 2.0] * 10
    assert column(few)[1].features == ("c",)


@pytest.mark.parametrize("scale", [1e308, 1e300, 1e-300, 5e-324])
def test_numbers_of_any_size_are_scaled(scale):
    X, _ = column(np.array(repeated(1.0, -1.0, 0.0)) * scale)
    np.testing.assert_array_equal(np.sign(X[:3, 0]), [1, -1, 0])
    assert (np.abs(X[:2]) > 0.1).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (repeated(7), "constant"),
        (repeated("x"), "constant"),
        (repeated(None), "no values"),
        (repeated("n/a", ""), "no values"),
        (repeated(np.inf), "no values"),
        (range(1000, 1000 + N), "id"),
        (np.random.default_rng(0).permutation(N), "id"),
        ([f"C{k:05}" for k in range(N)], "id"),
        ([str(k) for k in range(N)], "id"),
        ([f"a/{k}.png" for k in range(N)], "--image-column"),
        ([f"b/{k}.wav" for k in range(N)], "--audio-column"),
        ([f"called about invoice {k} again" for k in range(N)], "--text-column"),
        ([[1] * (k % 3) for k in range(N)], "lists of different lengths"),
        (repeated(["a"], ["b"]), "lists of other things"),
        (repeated({"a": 1}), "type dict"),
        (repeated(1j, 2j), "complex"),
        ([f"v{k // 2}" for k in range(N)], f"30 values, none in {MIN_ROWS} rows"),
        ([f"v{k // 2}" for k in range(797)] + ["w"] * 3, f"400 values, of which 1 in {MIN_ROWS} rows"),
        ([f"{13 + k % 15}/{1 + k % 12}/2020" for k in range(N // 2)]
         + [f"{1 + k % 12}/{13 + k % 15}/2020" for k in range(N // 2)], "day first and with the month first"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from_is_left_out_with_the_reason(values, why):
    X, plan = column(values)
    assert (X.shape[1], plan.kind) == (0, "left out")
    assert why in plan.did
    with pytest.raises(InputError, match=f"'c' .*{why.split()[0]}"):
        column(values, filler=False)


@pytest.mark.parametrize("name", ["customer_id", "customerID", "ID", "Key"])
def test_whole_numbers_without_order_are_ids_by_their_name(name):
    values = np.random.default_rng(0).choice(10**6, N, replace=False)
    assert column(values)[1].kind == "number"
    assert "id" in column(values, name)[1].did
    assert column(values * 1.5, name)[1].kind == "number"


def test_integer_codes_stay_numbers():
    X, plan = column(repeated(1, 2, 3, 3))
    assert (plan.kind, X.shape[1], plan.doubt) == ("number", 1, None)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (repeated("a", "b", "b"), ["c=a"]),
        (repeated("a", "b", "c"), ["c=a", "c=b", "c=c"]),
        (repeated("a", "b", None), ["c=a", "c=b", "c is missing"]),
        (repeated(True, False, None), ["c=False", "c=True", "c is missing"]),
        (repeated(True, False, False), ["c=True"]),
        (repeated("x", "x", None), ["c is missing"]),
        (["a"] * 30 + ["b"] * 20 + ["r1", "r2", "r3", "r4"], ["c=a", "c=b", "c: other"]),
        (pd.Categorical(repeated(3, 1, 1), categories=[3, 1, 99]), ["c=3"]),
        (repeated("01067", "01069", "80331"), ["c=01067", "c=01069", "c=80331"]),
        (repeated("12", 12, "basic", 7), ["c=12", "c=7", "c=basic"]),
    ],
)
def test_categories_become_zeros_and_ones(values, names):
    X, plan = column(values)
    assert (plan.kind, sorted(plan.features)) == ("category", sorted(names))
    assert set(np.unique(X)) == {0.0, 1.0}
    assert (X.sum(axis=1) <= 1).all()


def test_a_column_of_thousands_of_categories_makes_few_features():
    rng = np.random.default_rng(0)
    values = [f"v{k}" for k in (rng.pareto(0.5, 20_000) * 10).astype(np.int64) % 10**4]
    X, plan = column(values)
    assert X.shape[1] == MAX_LEVELS + 1
    assert "others together" in plan.did
    assert (X.sum(axis=1) == 1).all()


def test_which_categories_are_kept_does_not_depend_on_the_order_of_the_rows():
    values = [f"v{k:02}" for k in range(50)] * 4
    assert column(values)[1].features == column(values[::-1])[1].features


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        (repeated("12", 12, "n/a", 13.5, "?"), None),
        (repeated("1e3", "-5", " 7 "), None),
        ([str(k * 1.5) for k in range(N - 3)] + ["unknown"] * 3,
         "3 values that are no numbers count as missing ('unknown')."),
    ],
)  # fmt: skip
def test_texts_that_are_numbers_are_read_as_numbers(values, doubt):
    _, plan = column(values)
    assert (plan.kind, plan.doubt) == ("number", doubt)


def dates(*forms, n=N):
    days = pd.date_range("2019-01-13", periods=n, freq="23D")
    return [day.strftime(forms[k % len(forms)]) for k, day in enumerate(days)]


def test_dates_in_any_form_are_the_same_dates():
    expected, plan = column(pd.date_range("2019-01-13", periods=N, freq="23D"))
    assert plan.kind == "date"
    assert plan.features[:2] == ("c", "c: time of year (sine)")
    one_each = ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %B %Y", "%b %d, %Y", "%Y-%m-%dT00:00:00Z", "%Y/%m/%d"]
    for form in one_each:
        X, plan = column(dates(form))
        np.testing.assert_allclose(X, expected, atol=1e-12, err_msg=form)
        assert plan.doubt is None
    X, plan = column(dates("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"))
    np.testing.assert_allclose(X, expected, atol=1e-12)
    assert plan.doubt == "dates in 3 forms: day.month.year 20, month/day/year 20, year-month-day 20."


def test_dates_that_could_be_read_in_two_ways_say_which_was_taken():
    X, plan = column(repeated("03/04/2020", "05/06/2021", "07/08/2022"))
    Y, _ = column(repeated("2020-03-04", "2021-05-06", "2022-07-08"))
    np.testing.assert_array_equal(X, Y)
    assert plan.doubt == "nothing tells day from month in dates with '/': the month was taken first."


def test_time_zones_are_taken_into_account():
    aware = pd.date_range("2024-01-01", periods=N, freq="7h", tz="America/New_York")
    X, plan = column(aware)
    np.testing.assert_allclose(column(aware.tz_convert("Asia/Tokyo"))[0], X, atol=1e-12)
    np.testing.assert_allclose(column([t.isoformat() for t in aware])[0], X, atol=1e-9)
    assert "time of day" in plan.did


def test_a_day_and_a_time_that_do_not_exist_are_counted():
    _, plan = column([*dates("%Y-%m-%d", n=58), "2021-02-30", "2021-03-04 29:00"])
    assert plan.kind == "date"
    assert plan.doubt.startswith("2 values that are no dates count as missing ('2021-02-30'")


def test_vectors_stay_as_they_are_and_holes_become_means():
    X, plan = column([[k % 5, 2.5, float(k)] for k in range(N)])
    np.testing.assert_array_equal(X[:, 2], np.arange(N))
    assert plan.features == ("c[0]", "c[1]", "c[2]")
    X, plan = column([[1.0, 3.0], [3.0, np.nan], None, *[[2.0, 5.0]] * 20])
    np.testing.assert_allclose(X[2], [2.0, np.mean([3.0, *[5.0] * 20])])
    assert plan.missing == 2


def test_other_rows_get_the_same_features_as_the_table():
    frame = pd.DataFrame(
        {"a": repeated(1.0, 2.0, 5.0, None), "b": repeated("x", "y", "z"), "d": dates("%d.%m.%Y")}
    )
    X, how = prepare_table(frame)
    np.testing.assert_array_equal(how.transform(frame.iloc[[5, 2]]), X[[5, 2]])
    strange = how.transform(
        pd.DataFrame({"d": ["2019-01-13", "soon"], "b": ["new", None], "a": [1e9, None], "more": 0})
    )
    assert np.isfinite(strange).all()
    with pytest.raises(InputError, match="no column 'b'"):
        how.transform(frame[["a", "d"]])
    with pytest.raises(InputError, match=r"'d' does not hold what it held \(date\)|finite"):
        X, how = prepare_table(pd.DataFrame({"d": pd.to_datetime(frame["d"], dayfirst=True)}))
        how.transform(pd.DataFrame({"d": ["soon"]}))


def test_frames_that_cannot_be_prepared_say_why():
    with pytest.raises(InputError, match="two columns of the same name: a. Rename"):
        prepare_table(pd.DataFrame(np.ones((3, 2)), columns=["a", "a"]))
    with pytest.raises(InputError, match="no rows"):
        prepare_table(pd.DataFrame({"a": []}))
    with pytest.raises(InputError, match="DataFrame, got ndarray"):
        prepare_table(np.ones((3, 2)))


def test_score_says_the_one_line_that_helps_and_the_line_helps():
    rng = np.random.default_rng(0)
    y = np.array(repeated("yes", "no"))
    frame = pd.DataFrame({"age": rng.normal(40 + 9 * (y == "yes"), 4), "plan": repeated("a", "b", "c")})
    with pytest.raises(InputError, match=r"'plan'\. .*X, how = lsi\.prepare_table\(X\)"):
        lsi.score(frame, y)
    frame.loc[:6, "age"] = np.nan
    with pytest.raises(InputError, match=r"7 of 60 rows .*'age' in 7\. .*lsi\.prepare_table"):
        lsi.score(frame[["age"]], y)
    X, how = lsi.prepare_table(frame)
    assert len(lsi.score(X, y, audit=False)) == N
    assert how.sentence() == "5 features from 2 of 2 columns: 1 number (1 with missing values), 1 category"
