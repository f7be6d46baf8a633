"""`lsi doctor` says what is wrong, and ends with 0 only where nothing is."""

import json

import numpy as np
import pytest
from tests.score_cases import AUDIT, make

import lsi
from lsi.cli import doctor, main
from lsi.system.versions import install_hint


@pytest.fixture
def folder(tmp_path):
    return make().save(tmp_path / "scores")


def test_a_sound_installation(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out
    assert "GFLOP/s" in out
    assert "No problems found." in out


def test_sound_scores_as_json(folder, capsys):
    assert main(["doctor", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["scores"]["rows"] == 5
    assert found["scores"]["audited"]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["float32_rate"] > 1e6
    assert found["versions"]["numpy"] == np.__version__


def changed(**columns):
    table = make().to_frame().assign(**columns)
    return lsi.Scores(table, {"classes": ["cat", "dog", "owl"]}, AUDIT)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lsi": [np.nan, 1, 1, 1, 1]}, "1 values of lsi are not finite"),
        ({"mean_term": [-1.0, 3.0, 0.1, 3.0, 0.2]}, "negative"),
        ({"lsi": [9.0, 3.0, 0.1, 3.0, 0.2]}, "not the sum of their two terms"),
        ({"sample_id": ["a", "a", "b", "c", "d"]}, "sample_id occurs twice"),
        ({"position": [0, 0, 1, 2, 3]}, "position occurs twice"),
    ],
)
def test_what_is_wrong_with_values_is_said(tmp_path, capsys, columns, message):
    changed(**columns).save(tmp_path / "scores")
    assert main(["doctor", str(tmp_path / "scores")]) == 1
    told = capsys.readouterr()
    assert message in told.out
    assert "found" in told.err


def test_damage_is_a_problem(folder, capsys):
    content = bytearray((folder / "scores.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "scores.parquet").write_bytes(content)
    assert main(["doctor", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "checksum" in found["problems"][0]
    assert found["scores"]["readable"] is False


def test_a_missing_folder_is_a_problem(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().out


def test_scores_without_an_audit_are_fine_and_remarked_upon(tmp_path, capsys):
    make(audit=None).save(tmp_path / "scores")
    assert main(["doctor", str(tmp_path / "scores")]) == 0
    assert "not audited" in capsys.readouterr().out


def test_a_number_of_rows_that_the_manifest_does_not_know(tmp_path):
    make(manifest={"classes": ["cat", "dog", "owl"], "data": {"n_scored": 7}}).save(tmp_path / "scores")
    assert any("speaks of 7" in problem for problem in doctor.examine(tmp_path / "scores").problems)


def test_missing_extras_and_old_packages_come_with_a_cure(monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "plot", {"matplotlib": "no_such_module"})
    monkeypatch.setattr(doctor, "_lower_bounds", lambda: {"numpy": "999.1"})
    health = doctor.examine()
    assert health.extras["plot"]["install"] == install_hint("plot")
    assert any("older than 999.1" in problem for problem in health.problems)


def test_versions_compare_by_number():
    assert doctor._numbers("2.10.1+cpu") > doctor._numbers("2.4")
    assert doctor._numbers("2.4.0rc1") == (2, 4)
    assert not doctor.examine().problems


def test_the_bounds_are_those_of_the_package():
    assert doctor._lower_bounds()["torch"] == "2.4"
