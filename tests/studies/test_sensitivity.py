"""Prior sensitivity against runs made one by one."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

import lsi
from lsi.cli import main

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.where(X[:, 0] + 0.7 * RNG.normal(size=60) > 0, "a", "b")
OTHER = X @ np.linalg.qr(RNG.normal(size=(3, 3)))[0] + 0.3 * RNG.normal(size=(60, 3))
PROBE = lsi.LinearProbe(weight_decay=1e-2)


@pytest.fixture(scope="module")
def found():
    return lsi.sensitivity(
        X, Y, probe=PROBE, prior_precisions=[5.0], weight_decays=[1.0], features={"other": OTHER}, audit=False
    )


def by_hand():
    return [
        lsi.score(X, Y, probe=PROBE, audit=False).lsi,
        lsi.score(X, Y, probe=PROBE, prior_precision=5.0, audit=False).lsi,
        lsi.score(X, Y, probe=lsi.LinearProbe(weight_decay=1.0), audit=False).lsi,
        lsi.score(OTHER, Y, probe=PROBE, audit=False).lsi,
    ]


def test_every_run_is_what_it_says(found):
    base, *others = by_hand()
    assert found.runs["setting"].tolist() == ["prior_precision", "weight_decay", "features"]
    assert found.runs["value"].tolist() == [5.0, 1.0, "other"]
    np.testing.assert_allclose(found.runs["spearman"], [spearmanr(base, o).statistic for o in others])
    np.testing.assert_allclose(found.runs["median_ratio"], [np.median(o / base) for o in others])
    highest = set(np.argsort(-base)[:6])
    kept = [len(highest & set(np.argsort(-o)[:6])) / 6 for o in others]
    np.testing.assert_allclose(found.runs["top_overlap"], kept)


def test_every_sample_has_the_spread_of_its_ranks(found):
    quantiles = np.array([(rankdata(values) - 0.5) / 60 for values in by_hand()])
    table = found.samples.set_index("sample_id").sort_index()
    np.testing.assert_allclose(table["lowest"], quantiles.min(0))
    np.testing.assert_allclose(table["highest"], quantiles.max(0))
    np.testing.assert_allclose(table["quantile"], quantiles[0])
    assert (table["unstable"] == (np.ptp(quantiles, axis=0) > 0.2)).all()
    assert found.n_unstable == table["unstable"].sum() > 0
    assert found.samples["spread"].is_monotonic_decreasing
    names = np.array(["prior_precision 5.0", "weight_decay 1.0", "features other"])
    cause = names[np.abs(quantiles[1:] - quantiles[0]).argmax(0)]
    assert (table["cause"] == cause).all()


def test_the_same_settings_move_nothing():
    same = lsi.sensitivity(
        X, Y, probe=PROBE, prior_precisions=[1.0], weight_decays=[1e-2], features={"same": X}, audit=False
    )
    assert same.n_unstable == 0
    assert same.samples["spread"].max() == 0
    np.testing.assert_allclose(same.runs[["spearman", "top_overlap", "median_ratio"]], 1.0)


def test_a_regression_has_settings_too():
    found = lsi.sensitivity(X, X[:, 0] + OTHER[:, 1], probe=lsi.RidgeProbe(), audit=False)
    assert found.runs["value"].tolist() == [0.1, 10.0, 1e-05, 1e-3]
    assert json.loads(json.dumps(found.to_dict(3)))["n_samples"] == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, "threshold"),
        ({"prior_precisions": [-1]}, "prior_precision"),
        ({"weight_decays": [0.0]}, "weight_decay"),
        ({"prior_precisions": [], "weight_decays": []}, "nothing to vary"),
        ({"features": {"short": X[:5]}}, "'short' have 5 rows"),
    ],
)
def test_what_cannot_be_varied_is_refused(settings, message):
    with pytest.raises(lsi.InputError, match=message):
        lsi.sensitivity(X, Y, **settings)


def test_the_command_matches_other_features_by_id(tmp_path, capsys):
    order = RNG.permutation(60)
    np.savez(tmp_path / "one.npz", X=X, y=Y, ids=np.arange(100, 160))
    np.savez(tmp_path / "two.npz", X=OTHER[order], y=Y[order], ids=np.arange(100, 160)[order])
    arguments = ["sensitivity", "--dataset", str(tmp_path / "one.npz"), "--weight-decay", "1e-2"]
    arguments += ["--features", str(tmp_path / "two.npz"), "--no-audit"]
    assert main([*arguments, "--json", "-o", str(tmp_path / "s.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["setting"] for run in told["runs"]] == ["features"]
    direct = lsi.sensitivity(
        X, Y, probe=PROBE, prior_precisions=[], weight_decays=[], features={"two": OTHER}, audit=False
    )
    assert told["runs"][0]["spearman"] == pytest.approx(direct.runs["spearman"][0])
    assert len(pd.read_csv(tmp_path / "s.csv")) == 60
    assert main([*arguments, "-o", str(tmp_path / "s.csv")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_command_shows_runs_and_samples(capsys):
    assert main(["sensitivity", "--dataset", "wine", "--no-audit", "--subset", "30", "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert "rank correlation" in out and "Least stable samples" in out and "of 30 samples" in out
