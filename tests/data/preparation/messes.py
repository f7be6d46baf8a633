"""Columns as people keep them, for hypothesis: every type, every kind of hole, every habit."""

import decimal
from datetime import date, datetime, time, timedelta

import numpy as np
import pandas as pd
from hypothesis import strategies as st

_DATES = [
    "2021-03-04", "04.03.2021", "3/14/2021", "14/3/2021", "Mar 4, 2021", "4 March 2021",
    "2021-03-04T05:06:07+02:00",
]  # fmt: skip
_SCALARS = [
    None, float("nan"), pd.NaT, pd.NA, "", " ", "n/a", "NaN", "12", 12, "12.5", -0.0, 1e300, -1e308, 5e-324,
    10**400, float("inf"), "inf", "1_000", "007", True, False, "yes", "Yes ", "é", "a\x00b", "\ud800",
    "x" * 300, b"bytes", decimal.Decimal("1.5"), 1j, [], [1.0, 2.0], [1.0], ["a"], {"a": 1}, (1, 2), {1},
    np.array([1.0, np.nan]), object(), date(2021, 3, 4), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59),
    time(3, 4), timedelta(days=3), np.datetime64("2021-03-04"), np.timedelta64(3, "D"), np.float32(1.5),
    np.int8(3), "a/b.png", "a/c.JPG", "one two three four five", *_DATES, "2021-13-45", "99/99/2021",
]  # fmt: skip


def _series(values):
    column = pd.Series(index=range(len(values)), dtype=object)
    for row, value in enumerate(values):
        column.iat[row] = value
    return column


def _typed(n):
    """Return columns of n rows with a type of their own."""
    numbers = st.lists(st.floats(width=64), min_size=n, max_size=n)
    whole = st.lists(st.integers(-(2**62), 2**62), min_size=n, max_size=n)
    texts = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=n, max_size=n)
    flags = st.lists(st.sampled_from([True, False, None]), min_size=n, max_size=n)
    times = st.lists(st.sampled_from([*_DATES[:1], None, "1970-01-01", "2262-01-01"]), min_size=n, max_size=n)
    return st.one_of(
        numbers.map(lambda v: pd.Series(v, dtype=np.float64)),
        st.lists(st.floats(width=32), min_size=n, max_size=n).map(lambda v: pd.Series(v, dtype=np.float32)),
        whole.map(lambda v: pd.Series(v, dtype=np.int64)),
        whole.map(lambda v: pd.Series([None, *v[1:]], dtype="Int64")),
        flags.map(lambda v: pd.Series(v, dtype="boolean")),
        flags.map(lambda v: pd.Series([bool(x) for x in v], dtype=bool)),
        texts.map(lambda v: pd.Series(pd.Categorical(v, categories=["a", "b", "c", "unused"]))),
        texts.map(lambda v: pd.Series(v, dtype="string")),
        times.map(lambda v: pd.to_datetime(pd.Series(v))),
        times.map(lambda v: pd.to_datetime(pd.Series(v)).dt.tz_localize("Europe/Berlin")),
        times.map(lambda v: pd.to_datetime(pd.Series(v)) - pd.Timestamp("2000-01-01")),
        times.map(lambda v: pd.to_datetime(pd.Series(v)).dt.to_period("M")),
        st.just(pd.Series(range(n))),
        st.just(pd.Series([f"C{k}" for k in range(n)])),
        st.just(pd.Series([0.0] * n, dtype=pd.SparseDtype(float))),
    )


@st.composite
def tables(draw):
    n = draw(st.integers(1, 40))
    few = st.lists(st.sampled_from(_SCALARS), min_size=1, max_size=3)
    mixed = few.flatmap(lambda seen: st.lists(st.sampled_from(seen), min_size=n, max_size=n)).map(_series)
    columns = draw(st.lists(st.one_of(mixed, _typed(n)), min_size=1, max_size=4))
    return pd.DataFrame({f"c{k}": column for k, column in enumerate(columns)})
