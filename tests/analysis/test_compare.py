import json

import numpy as np
import pytest
from tests.analysis.tables import random_table, scored, table

import lsi
from lsi.errors import InputError


def scores(rows, manifest=None):
    return scored(rows, **(manifest or {}))


def test_a_run_equals_itself():
    given = scores(random_table(40))
    found = lsi.compare(given, given)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.top_overlap == 1.0
    assert (found.common["move"] == 0).all()
    assert found.holds(1.0 - 1e-9)
    assert not found.added and not found.removed and not len(found.relabelled)


def test_what_was_added_removed_and_relabelled():
    old = table([1, 2, 3, 4.0], list("aabb"))
    new = table([4, 3, 2, 9.0], list("abab")).assign(sample_id=["s0", "s1", "s3", "s9"])
    found = lsi.compare(scores(old), scores(new))
    assert (found.added, found.removed) == (["s9"], ["s2"])
    assert found.relabelled[["sample_id", "old_label", "new_label"]].values.tolist() == [
        ["s1", "a", "b"],
        ["s3", "b", "a"],
    ]
    # Ranks of s0, s1, s3: before 1, 2, 3 and after 3, 2, 1.
    assert found.rank_correlation == pytest.approx(-1.0)
    moves = found.common.set_index("sample_id")["move"]
    np.testing.assert_allclose(moves[["s0", "s1", "s3"]], [2 / 3, 0, -2 / 3])
    assert found.common["sample_id"].iloc[-1] == "s1"


def test_order_of_rows_does_not_matter():
    old = random_table(30)
    new = random_table(30, seed=1)
    mixed = scores(new.sample(frac=1, random_state=0))
    left, right = lsi.compare(scores(old), scores(new)), lsi.compare(scores(old), mixed)
    assert left.to_dict() == right.to_dict()


def test_settings_and_data_that_differ_are_named():
    one = {"config": {"probe": {"weight_decay": 1e-4}, "posterior": "diag"}, "data": {"fingerprint": "x"}}
    two = {"config": {"probe": {"weight_decay": 1e-2}, "posterior": "diag"}, "data": {"fingerprint": "y"}}
    rows = random_table(10)
    found = lsi.compare(scores(rows, one), scores(rows, two))
    assert found.settings == {"probe.weight_decay": [1e-4, 1e-2]}
    assert found.same_data is False
    assert json.loads(json.dumps(found.to_dict(2)))["n_common"] == 10


def test_row_numbers_of_different_length_get_a_warning():
    old, new = random_table(10), random_table(8)
    numbers = [scores(rows.assign(sample_id=np.arange(len(rows)))) for rows in (old, new)]
    assert "row numbers" in lsi.compare(*numbers).notes[0]
    assert lsi.compare(scores(old), scores(new)).notes == ()


def test_no_common_sample_holds_no_gate():
    old = random_table(5)
    new = random_table(5).assign(sample_id=list("vwxyz"))
    found = lsi.compare(scores(old), scores(new))
    assert found.rank_correlation is None
    assert not found.holds(-1.0)
    assert "no sample in common" in found.notes[0]


def test_ids_that_cannot_be_matched():
    rows = random_table(5)
    with pytest.raises(InputError, match="numbers in one run and text"):
        lsi.compare(scores(rows), scores(rows.assign(sample_id=range(5))))
    with pytest.raises(InputError, match="'x' twice"):
        lsi.compare(scores(rows.assign(sample_id=["x", "x", "a", "b", "c"])), scores(rows))
