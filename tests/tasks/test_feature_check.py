"""Do the features know the target? The figures, the verdict, and what every reader is told."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import lsi
from lsi.cli import main
from lsi.report.findings import feature_check
from lsi.report.wording import features
from lsi.tasks.feature_check import neighbour_accuracy, of_hits, of_residuals

RNG = np.random.default_rng(0)
Y = np.arange(200) % 4
NOISE = RNG.normal(size=(200, 12))
CLEAR = NOISE + 4 * np.eye(4)[Y] @ RNG.normal(size=(4, 12))


def verdict(X, y=Y, **more):
    scores = lsi.score(X, y, audit=False, label_noise=False, **more)
    return scores.manifest["feature_check"], features(feature_check(scores.manifest))


def test_features_that_know_the_classes_and_features_that_do_not():
    found, (text, level) = verdict(CLEAR, probe=lsi.LinearProbe(1e-2))
    assert (found["verdict"], level) == ("good", "good")
    assert found["majority"] == 0.25
    assert found["loo_accuracy"] == found["hits"] / 200 > 0.95
    assert text.startswith("These features know your classes: without the sample")
    found, (text, level) = verdict(NOISE, probe=lsi.LinearProbe(1e-2))
    assert (found["verdict"], level) == ("none", "poor")
    assert found["interval"][0] <= 0.25
    assert "do not know your classes" in text
    assert "encoder" in text


def test_an_untrained_encoder_gives_no_false_comfort():
    """A quarter of ten classes is more than the tenth that guessing names, and still very little."""
    found = of_hits(2000, 500, 0.1, {"neighbours_accuracy": 0.26})
    assert found["interval"][0] > 0.1
    assert found["verdict"] == "part"
    text, level = features(feature_check({"feature_check": found}))
    assert level == "fair"
    assert "only in part" in text
    assert "encoder" in text


def test_a_weak_probe_on_good_features_is_told_apart():
    found = of_hits(2000, 900, 0.1, {"neighbours_accuracy": 0.9})
    text, _ = features(feature_check({"feature_check": found}))
    assert "the probe is what is weak" in text
    assert "--weight-decay auto" in text
    chosen = {"feature_check": found, "weight_decay": {"chosen": 1.0}}
    assert "--weight-decay auto" not in features(feature_check(chosen))[0]


def test_a_probe_that_separates_its_samples_is_told_of_auto():
    manifest = {
        "feature_check": of_hits(200, 190, 0.5, {}),
        "fit": {"train_accuracy": 1.0},
        "config": {"probe": {"kind": "linear"}},
    }
    assert "--weight-decay auto" in features(feature_check(manifest))[0]
    manifest["fit"]["train_accuracy"] = 0.96
    assert "--weight-decay" not in features(feature_check(manifest))[0]


def test_the_most_frequent_class_alone_knows_nothing():
    assert of_hits(1000, 900, 0.9, {})["verdict"] == "none"
    assert of_hits(1000, 930, 0.9, {})["verdict"] == "part"
    assert of_hits(1000, 970, 0.9, {})["verdict"] == "good"
    assert of_hits(2, 2, 0.5, {})["verdict"] == "none"


def test_neighbours_are_those_of_brute_force():
    X, y = load_digits(return_X_y=True)
    X, y = X[:150], y[:150]
    scaled, found = StandardScaler().fit_transform(X), neighbour_accuracy(X, y)
    for k, name in ((1, "nearest_accuracy"), (10, "neighbours_accuracy")):
        hits = []
        for i in range(150):
            keep = np.arange(150) != i
            model = KNeighborsClassifier(k).fit(scaled[keep], y[keep])
            hits.append(model.predict(scaled[[i]])[0] == y[i])
        assert found[name] == pytest.approx(np.mean(hits), abs=0.02 if k > 1 else 1e-12)  # ties


def test_neighbours_of_few_rows_and_constant_columns():
    found = neighbour_accuracy(np.array([[0.0, 5.0], [0.1, 5.0], [9.0, 5.0]]), np.array([0, 0, 1]))
    assert found["nearest_accuracy"] == pytest.approx(2 / 3)
    assert found["n_neighbour_checks"] == 3


def test_large_data_are_checked_on_some_rows():
    X = RNG.normal(size=(12_000, 3)).astype(np.float32)
    found = neighbour_accuracy(X, (X[:, 0] > 0).astype(int))
    assert found["n_neighbour_checks"] == 1000
    assert found["neighbours_accuracy"] > 0.95


def test_regression_explains_variance_or_does_not():
    target = CLEAR[:, 0] + 0.1 * RNG.normal(size=200)
    found, (text, level) = verdict(CLEAR, target, probe=lsi.RidgeProbe(1e-3))
    assert (found["verdict"], level) == ("good", "good")
    assert "% of the variance" in text.replace("\u202f", " ")
    found, (text, level) = verdict(NOISE, RNG.normal(size=200), probe=lsi.RidgeProbe(1e-3))
    assert (found["verdict"], level) == ("none", "poor")
    assert "do not know your target" in text


def test_r_squared_is_against_the_mean_of_the_others():
    y = RNG.normal(size=(30, 1))
    blind = np.array([np.delete(y, i).mean() for i in range(30)])[:, None]
    assert of_residuals(y, np.arange(30), blind)["loo_r_squared"] == pytest.approx(0.0, abs=1e-12)
    assert of_residuals(y, np.arange(30), y)["loo_r_squared"] == pytest.approx(1.0)
    assert of_residuals(np.ones((30, 1)), np.arange(30), np.ones((30, 1)))["verdict"] == "none"


def test_tasks_without_one_target_are_not_judged():
    several = lsi.score(CLEAR, np.column_stack([Y > 1, Y % 2]), probe=lsi.SigmoidProbe(0.1), audit=False)
    assert "feature_check" not in several.manifest
    assert features(feature_check(several.manifest)) == ("", "none")


@pytest.mark.parametrize(
    "damaged",
    [
        {"verdict": "splendid", "loo_accuracy": 1, "majority": 0.5, "interval": [0, 1]},
        {"verdict": "good", "loo_accuracy": 1, "interval": [0, 1]},
        {"verdict": "good", "loo_accuracy": 1, "majority": 0.5, "interval": "wide"},
        ["good"],
    ],
)
def test_manifests_from_elsewhere_are_read_with_care(damaged):
    assert feature_check({"feature_check": damaged}) is None


def test_the_terminal_the_page_and_json_say_it(tmp_path, capsys):
    np.savez(tmp_path / "noise.npz", X=NOISE, y=Y)
    words = ["compute", "-d", str(tmp_path / "noise.npz"), "--wd", "0.01", "--audit", "2"]
    assert main([*words, "--report", str(tmp_path / "page.html")]) == 0
    assert "do not know your classes" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "page.html").read_text()
    assert "do not know your classes" in page
    assert "verdict poor" in page
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["feature_check"]["verdict"] == "none"
