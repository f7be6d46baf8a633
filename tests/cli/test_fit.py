"""`lsi fit`: from a dataset to a folder that other commands ask."""

import json

import numpy as np
import pytest

import lsi
from lsi.cli.app import main


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 3))
    y = np.where(X[:, 0] + rng.standard_normal(30) > 0, "up", "down")
    np.savez(tmp_path / "data.npz", X=X, y=y, ids=np.arange(100, 130))
    return tmp_path / "data.npz"


def test_it_writes_what_the_library_would_save(dataset, tmp_path, capsys):
    words = ["--posterior", "kron", "--weight-decay", "0.01", "--json"]
    assert main(["fit", "-d", str(dataset), "-o", str(tmp_path / "model"), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_samples"], told["n_classes"], told["output"]) == (30, 2, str(tmp_path / "model"))
    loaded = lsi.load_fitted(tmp_path / "model")
    with np.load(dataset) as data:
        expected = lsi.score(
            data["X"], data["y"], probe=lsi.LinearProbe(1e-2), posterior="kron", sample_id=data["ids"]
        )
    found = loaded.scores()
    np.testing.assert_array_equal(found.lsi, expected.lsi)
    np.testing.assert_array_equal(found.sample_id, expected.sample_id)
    assert found.manifest["source"]["path"] == str(dataset)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subset", "5"], "for scoring, and `lsi fit` scores nothing"),
        (["--no-audit"], "for scoring, and `lsi fit` scores nothing"),
        (["--ray", "local"], "for scoring, and `lsi fit` scores nothing"),
        (["--standardise"], "new rows would need the same scale"),
        (["--probe", "mlp"], "MLPProbe keeps no factorised curvature"),
        (["-o", "DATA"], "same as --dataset"),
    ],
)
def test_what_cannot_be_kept_is_refused(dataset, tmp_path, capsys, words, said):
    words = [str(dataset) if word == "DATA" else word for word in words]
    given = ["fit", "-d", str(dataset), *([] if "-o" in words else ["-o", str(tmp_path / "model")]), *words]
    assert main(given) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
