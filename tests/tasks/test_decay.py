"""`weight_decay="auto"` in whole runs: the number that it finds, in every shard, and said in the manifest."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_wine

import lsi
from lsi.cli import main
from lsi.tasks import decay as search
from lsi.validation.settings import AUTO

RNG = np.random.default_rng(1)
X = RNG.normal(size=(90, 4))
NUMBER = X @ [1.0, -2.0, 0.5, 0.0] + RNG.normal(size=90)
CLASSES = np.digitize(NUMBER, [-1, 1])
RUNS = {
    "classes": (lsi.LinearProbe, CLASSES),
    "two classes": (lsi.SigmoidProbe, NUMBER > 0),
    "several labels": (lsi.SigmoidProbe, np.column_stack([NUMBER > 0, X[:, 1] > 1])),
    "numbers": (lsi.RidgeProbe, np.column_stack([NUMBER, X[:, 0]])),
}


@pytest.mark.parametrize("name", RUNS)
def test_auto_is_the_number_that_it_finds(name):
    kind, y = RUNS[name]
    auto = lsi.score(X, y, probe=kind(weight_decay=AUTO), audit=2)
    found = auto.manifest["weight_decay"]
    given = lsi.score(X, y, probe=kind(weight_decay=found["chosen"]), audit=2)
    assert_array_equal(auto.lsi, given.lsi)
    assert auto.manifest["config"] == given.manifest["config"]
    assert dict(map(tuple, found["curve"]))[found["chosen"]] == max(value for _, value in found["curve"])
    assert found["whole"]
    assert found["n_samples"] == 90
    json.dumps(found)


def test_the_added_weight_decay_of_early_stopping_counts():
    def curve(added):
        method = lsi.Newton(added_weight_decay=added)
        scores = lsi.score(X, CLASSES, probe=lsi.LinearProbe(AUTO), method=method, audit=False)
        return dict(map(tuple, scores.manifest["weight_decay"]["curve"]))

    assert curve(0.09)[0.01] == pytest.approx(curve(0.0)[0.1], abs=1e-3)


def test_large_problems_are_searched_on_some_rows(monkeypatch):
    monkeypatch.setattr(search, "SEARCH_WORK", 3e3)
    found = lsi.score(X, CLASSES, probe=lsi.LinearProbe(AUTO), audit=False).manifest["weight_decay"]
    assert found["n_samples"] < 90
    assert not found["whole"]


def test_little_memory_searches_on_fewer_rows():
    def rows(memory):
        X, y = load_wine(return_X_y=True)
        found = lsi.score(
            X / X.std(0), y, probe=lsi.LinearProbe(AUTO), audit=False, memory=memory, subset=[0]
        )
        return found.manifest["weight_decay"]["n_samples"]

    assert rows(None) == 178
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MATRICES", 1e6)
        assert rows("1GiB") < 178


def test_every_shard_finds_the_same_and_parts_go_together(tmp_path):
    probe = lsi.LinearProbe(AUTO)
    whole = lsi.score(X, CLASSES, probe=probe, audit=4)
    parts = [lsi.score(X, CLASSES, probe=probe, audit=4, shard=(k, 2)) for k in (1, 2)]
    assert parts[0].manifest["weight_decay"] == parts[1].manifest["weight_decay"]
    merged = lsi.merge(parts)
    assert_array_equal(merged.lsi, whole.lsi)
    assert merged.manifest["weight_decay"] == whole.manifest["weight_decay"]
    assert merged.manifest["feature_check"] == whole.manifest["feature_check"]


def test_an_interrupted_run_keeps_its_choice(tmp_path, monkeypatch):
    settings = {"probe": lsi.LinearProbe(AUTO), "audit": False, "checkpoint": tmp_path / "blocks"}
    first = lsi.score(X, CLASSES, **settings)
    monkeypatch.setattr(search, "search", lambda *_: pytest.fail("searched again"))
    again = lsi.score(X, CLASSES, **settings)
    assert_array_equal(first.lsi, again.lsi)
    assert again.manifest["weight_decay"] == first.manifest["weight_decay"]


def test_what_has_no_optimum_takes_a_number():
    with pytest.raises(lsi.InputError, match="stopped training"):
        lsi.score(X, CLASSES, probe=lsi.LinearProbe(AUTO), method="retrain")
    with pytest.raises(lsi.InputError, match="weight_decay"):
        lsi.score(X, CLASSES, probe=lsi.MLPProbe(weight_decay=AUTO))
    for kind in (lsi.LinearProbe, lsi.SigmoidProbe, lsi.RidgeProbe):
        for bad in ("automatic", -1.0, np.inf, None, True):
            with pytest.raises(lsi.InputError, match="or 'auto'"):
                kind(weight_decay=bad)


def test_sensitivity_varies_what_was_found():
    found = lsi.sensitivity(X, CLASSES, probe=lsi.LinearProbe(AUTO), audit=False)
    chosen = found.base.manifest["weight_decay"]["chosen"]
    tried = found.runs.loc[found.runs["setting"] == "weight_decay", "value"]
    np.testing.assert_allclose(tried, [chosen / 10, chosen * 10])


def test_the_command_says_what_was_chosen(tmp_path, capsys):
    place = tmp_path / "scores"
    words = ["compute", "-d", "wine", "--standardise", "--wd", "auto", "--audit", "2", "--output", str(place)]
    assert main([*words, "--report", str(tmp_path / "report.html")]) == 0
    chosen = lsi.load(place).manifest["weight_decay"]["chosen"]
    said = f"Weight decay {chosen:g}: of"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "report.html").read_text()
    assert main(["compute", "-d", "wine", "--wd", "auto", "--probe", "mlp"]) == 2
    assert "--probe mlp a number" in capsys.readouterr().err
