"""``lsi plan``: the chosen way, its cost, the alternatives."""

import json

import numpy as np
import pytest

import lsi
from lsi.cli.app import DONE, MISUSED, main
from lsi.system.text import parse_size

SIZE = ["--n-samples", "50000", "--n-features", "512", "--n-classes"]


def planned(capsys, *arguments):
    assert main(["plan", *arguments, "--json"]) == DONE
    return json.loads(capsys.readouterr().out)


def test_the_chosen_way_and_what_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: 8 << 30)
    few = planned(capsys, *SIZE, "10")
    assert (few["chosen"]["solver"], few["chosen"]["fits"]) == ("dense", True)
    many = planned(capsys, *SIZE, "100")
    assert many["chosen"]["solver"] == "blocks"
    dense = [way for way in many["alternatives"] if way["solver"] == "dense" and way["posterior"] == "diag"]
    assert dense and not dense[0]["fits"] and dense[0]["bytes"] > many["chosen"]["bytes"]


def test_a_budget_decides_the_solver(capsys, monkeypatch):
    monkeypatch.setattr("lsi.planning.plan.available_memory", lambda: 64 << 30)
    assert planned(capsys, *SIZE, "20")["chosen"]["solver"] == "dense"
    assert planned(capsys, *SIZE, "20", "--memory", "1GiB")["chosen"]["solver"] == "blocks"


def test_a_dataset_with_features_is_enough(capsys, tmp_path):
    np.savez(tmp_path / "data.npz", X=np.zeros((40, 7), np.float32), y=np.arange(40) % 4)
    assert planned(capsys, str(tmp_path / "data.npz"))["chosen"]["method"] == "newton"
    assert main(["plan", "digits"]) == DONE
    assert "dense solver" in capsys.readouterr().out


def test_groups_are_counted_and_need_the_dense_solver(capsys):
    plain, some, more = (planned(capsys, *SIZE, "10", "--n-groups", n) for n in ("0", "10", "1000"))
    assert plain["chosen"]["seconds"] < some["chosen"]["seconds"] < more["chosen"]["seconds"]
    assert {way["solver"] for way in some["alternatives"]} == {"dense"}


def test_retrain_can_be_the_chosen_way(capsys):
    assert planned(capsys, *SIZE, "10", "--epochs", "100")["chosen"]["method"] == "retrain"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n-samples", "100"], "all of --n-samples"),
        (["digits", "--n-classes", "3"], "either a dataset"),
        ([*SIZE, "10", "--memory", "much"], "such as '4GiB'"),
        ([*SIZE, "1"], "at least 2 samples"),
        ([*SIZE, "10", "--n-groups", "-1"], "a plan takes 0 to 50,000 groups"),
        ([*SIZE, "10", "--n-groups", "9", "--epochs", "5"], "groups need --method newton"),
        ([*SIZE, "100", "--n-groups", "9", "--memory", "4GiB"], "groups need --method newton"),
        ([*SIZE, "10", "--posterior", "dial"], "diag"),
    ],
)
def test_what_cannot_be_planned_is_said(capsys, arguments, words):
    assert main(["plan", *arguments]) == MISUSED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "count"), [("4GiB", 4 << 30), ("512 MB", 512 << 20), ("1.5k", 1536), (1000, 1000), ("7B", 7)]
)
def test_sizes(text, count):
    assert parse_size(text) == count


def test_workers_share_what_grows_with_the_scored_samples():
    one, four = (lsi.make_plan(50_000, 512, 10, workers=workers).chosen for workers in (1, 4))
    assert one.seconds / 4 < four.seconds < one.seconds
    with pytest.raises(lsi.InputError, match="1 worker"):
        lsi.make_plan(100, 5, 3, workers=0)


def test_the_same_scores_within_a_budget():
    X = np.random.default_rng(0).normal(size=(300, 6))
    y = np.arange(300) % 3
    free = lsi.score(X, y, audit=False, label_noise=False)
    tight = lsi.score(X, y, audit=False, label_noise=False, memory="400MiB")
    np.testing.assert_allclose(tight.lsi, free.lsi, rtol=1e-9)
