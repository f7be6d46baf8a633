"""Every experiment of the paper runs as its command does, on stand-in data and at tiny sizes."""

import importlib
import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks.paper.__main__ import EXPERIMENTS, experiment, main
from benchmarks.paper.data import Sources
from benchmarks.paper.measures import accuracy, precision_at
from benchmarks.paper.outcome import cell

KEYS = {"experiment", "claim", "settings", "figures", "rows", "notes", "cpu_seconds", "versions"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run an experiment once: where its files are, and what it printed."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            with redirect_stdout(StringIO()) as printed:
                main([name, "--small", "--output", str(folder)])
            done[name] = folder, printed.getvalue()
        return done[name]

    return run


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_writes_json_table_and_plot(name, made):
    folder, printed = made(name)
    facts = json.loads((folder / f"{name}.json").read_text())
    assert set(facts) == KEYS
    assert facts["experiment"] == name
    assert facts["claim"] and facts["settings"] and facts["figures"] and facts["rows"]
    assert all(isinstance(row, dict) and len(row) > 1 for row in facts["rows"])
    table = (folder / f"{name}.md").read_text()
    assert table.startswith(f"# {name}\n")
    assert table in printed
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_every_experiment_has_both_sizes():
    for name in EXPERIMENTS:
        function, sizes = experiment(name)
        assert function.__module__ == f"benchmarks.paper.{EXPERIMENTS[name]}"
        assert set(sizes) == {"full", "small"}
        assert set(sizes["full"]) == set(sizes["small"])
    used = {
        name
        for module in EXPERIMENTS.values()
        for name in importlib.import_module(f"benchmarks.paper.{module}").SIZES
    }
    assert used == set(EXPERIMENTS)


def test_a_missing_folder_is_refused_before_any_work(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["typical", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "is no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_random_flips_are_found_on_the_stand_in(made):
    facts = json.loads((made("mislabeled")[0] / "mislabeled.json").read_text())
    assert facts["rows"][0]["wrong"] == pytest.approx(0.2)
    assert facts["rows"][0]["AUROC LSI"]["mean"] > 0.8


@pytest.mark.parametrize("name", ["contrastive", "transfer"])
def test_features_of_a_second_network_are_a_partner_too(name, tmp_path):
    random = np.random.default_rng(0)
    X = Sources(None).images.X[:260, :20]
    np.save(tmp_path / "second.npy", X @ random.normal(size=(20, 20)))
    main([name, "--small", "--second", str(tmp_path / "second.npy"), "--output", str(tmp_path)])
    assert "second network" in (tmp_path / f"{name}.md").read_text()


def test_views_are_rows_of_the_same_pictures():
    views = Sources(None).views(40, 20, 8)
    assert {name: tuple(side.shape for side in pair) for name, pair in views.items()} == {
        "network": ((40, 8), (20, 8)),
        "gradients": ((40, 8), (20, 8)),
        "pixels": ((40, 8), (20, 8)),
    }


def test_accuracy_is_that_of_the_librarys_objective():
    import torch

    random = np.random.default_rng(0)
    X = random.normal(size=(60, 3))
    y = (X[:, 0] + 0.5 * random.normal(size=60) > 0).astype(int)
    target = torch.from_numpy(y)
    weights, bias = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for tensor in (weights, bias):
        tensor.requires_grad_()
    solver = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective():
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(X) @ weights + bias, target)
        loss = loss + 0.5 * 1e-2 * weights.square().sum()  # scikit-learn leaves the intercept free
        loss.backward()
        return loss

    solver.step(objective)
    expected = (torch.from_numpy(X) @ weights + bias).argmax(1).numpy()
    share, predicted = accuracy(X, y, X, y, weight_decay=1e-2)
    assert np.mean(predicted == expected) >= 59 / 60
    assert share == np.mean(predicted == y)


def test_precision_looks_at_as_many_as_are_wrong():
    assert precision_at([True, False, True, False], [4.0, 3.0, 2.0, 1.0]) == 0.5


def test_cells_keep_the_table_whole():
    assert cell("a|b\n<c>") == "a\\|b &lt;c>"
    assert cell({"low": 0.5, "high": 0.25}) == "low 0.500, high 0.250"
    assert cell({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 (0.250–0.750)"
    assert cell(0.00012) == "0.00012"
    assert cell(None) == ""
