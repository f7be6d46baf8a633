"""A short run of every fuzz target; `python -m benchmarks.fuzz` is the long one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzzing.commands import command_targets
from tests.fuzzing.engine import fuzz
from tests.fuzzing.hostile import hostile_targets
from tests.fuzzing.loaders import loader_targets
from tests.fuzzing.results import result_targets

from lsi.cli.select import parse_drop, parse_order, share_or_number
from lsi.data import load_samples, parse_subset
from lsi.errors import LsiError

CASES = {"loaders": 16, "hostile": 20, "results": 2, "commands": 12}


@pytest.mark.parametrize(
    ("group", "make"),
    [
        ("loaders", loader_targets),
        ("hostile", hostile_targets),
        ("results", result_targets),
        ("commands", command_targets),
    ],
)
def test_broken_input_ends_in_a_clear_error(tmp_path, monkeypatch, group, make):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LSI_MEMORY", "256MiB")
    failures = {}
    for target in make(tmp_path):
        cases = 5 if target.name.startswith("encoder") else CASES[group]
        outcome = fuzz(target, cases, seed=5, guided=False)
        failures |= {f"{target.name}: {where}": found for where, found in outcome.failures.items()}
    assert failures == {}


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=60)
@given(header=st.lists(cells, min_size=1, max_size=3), rows=st.lists(st.lists(cells, max_size=4), max_size=5))
def test_any_csv(tmp_path_factory, header, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text("\n".join(",".join(row) for row in (["label", *header], *rows)), encoding="utf-8")
    try:
        samples = load_samples(str(path))
    except LsiError:
        return
    assert len(samples) > 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(records=st.lists(st.fixed_dictionaries({"label": json_values, "x": json_values}), max_size=4))
def test_any_json_lines(tmp_path_factory, records):
    import json

    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    try:
        samples = load_samples(str(path))
    except LsiError:
        return
    assert len(samples) == len(records)


@given(text=st.text(max_size=12) | st.from_regex(r"[-0-9:,. %e+naif]{0,12}", fullmatch=True))
def test_any_option_text(text):
    for parse in (
        lambda: parse_subset(text, [0, 1, 0, 1], 0),
        lambda: share_or_number(text, "--keep"),
        lambda: parse_order(text),
        lambda: parse_drop(text),
    ):
        try:
            parse()
        except LsiError:
            continue
