"""A saved fitted object comes back as it was, and whatever does not belong is named."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

import lsi
from lsi.errors import InputError, OutputError
from lsi.probes.softmax import fit as fitting

RNG = np.random.default_rng(3)
X = RNG.standard_normal((36, 4))
CLASS = (X @ RNG.standard_normal((4, 3)) + RNG.standard_normal((36, 3))).argmax(1)
NAMES = np.array(["cat", "dog", "eel"], dtype=object)[CLASS]
SEVERAL = np.stack([CLASS == 1, X[:, 0] > 0], axis=1).astype(int)
WEIGHTS = {"cat": 1.0, "dog": 2.0, "eel": 0.5}
LINEAR, SIGMOID = lsi.LinearProbe(1e-2), lsi.SigmoidProbe(1e-2)
CASES = {
    "classes": (X, NAMES, LINEAR),
    "wide": (RNG.standard_normal((20, 30)), NAMES[:20], LINEAR),
    "class weights": (X.astype(np.float32), NAMES, lsi.LinearProbe(1e-2, False, WEIGHTS)),
    "two classes": (X, CLASS == 1, SIGMOID),
    "several labels": (X, pd.DataFrame(SEVERAL, columns=["a", "b"]), SIGMOID),
    "numbers": (X, X @ [1.0, 2, 0, 0], lsi.RidgeProbe(1e-2)),
}


def loaded_and_saved(folder, X, y, probe, **settings):
    fitted = lsi.fit(X, y, probe=probe, **settings)
    return lsi.load_fitted(fitted.save(folder / "deep" / "model")), fitted


@pytest.mark.parametrize("posterior", ["diag", "kron", "full"])
@pytest.mark.parametrize("case", CASES)
def test_a_loaded_object_gives_the_same_bytes(tmp_path, case, posterior):
    loaded, fitted = loaded_and_saved(tmp_path, *CASES[case], posterior=posterior)
    one, other = (each.scores(range(0, 20, 3), audit=False) for each in (loaded, fitted))
    assert_frame_equal(one.to_frame(), other.to_frame(), check_exact=True)
    told = [
        {k: v for k, v in each.manifest.items() if k not in ("created", "timings")} for each in (one, other)
    ]
    assert told[0] == told[1]


def test_a_large_problem_in_single_precision(tmp_path, monkeypatch):
    # As where a factor has the type of the design: rows of the inverse then lie the other way in memory.
    monkeypatch.setattr("lsi.tasks.classification.working_dtype", lambda *_: lsi_float32())
    monkeypatch.setattr(fitting, "SINGLE_START", 4)
    loaded, fitted = loaded_and_saved(tmp_path, X, NAMES, LINEAR)
    assert_frame_equal(
        loaded.scores(audit=False).to_frame(), fitted.scores(audit=False).to_frame(), check_exact=True
    )


def lsi_float32():
    import torch

    return torch.float32


def test_class_blocks_are_factorised_again(tmp_path):
    loaded, fitted = loaded_and_saved(tmp_path, X, NAMES, LINEAR, method=lsi.Newton(solver="blocks"))
    assert_array_equal(loaded.scores(audit=False).lsi, fitted.scores(audit=False).lsi)


def test_memory_mapped_features_stay_on_disk(tmp_path):
    np.save(tmp_path / "X.npy", X)
    loaded, _ = loaded_and_saved(tmp_path, np.load(tmp_path / "X.npy", mmap_mode="r"), NAMES, LINEAR)
    assert isinstance(loaded.run.problem.features, np.memmap)
    assert loaded.run.problem.features.filename.parent == tmp_path / "deep" / "model"


@pytest.mark.parametrize(
    "ids",
    [
        [f"row {k}" for k in range(36)],
        list(range(5, 41)),
        [*range(35), "x"],
        pd.date_range("2024", periods=36),
    ],
)
def test_ids_come_back_with_their_type(tmp_path, ids):
    loaded, fitted = loaded_and_saved(tmp_path, X, NAMES, LINEAR, sample_id=ids)
    assert_array_equal(loaded.sample_id, fitted.sample_id)
    assert loaded.sample_id.dtype == fitted.sample_id.dtype


def test_what_would_not_come_back_is_refused_before_anything_is_written(tmp_path):
    ids = [(k, k) for k in range(36)]
    with pytest.raises(InputError, match="ids of the type tuple cannot be saved. Fit again with text"):
        lsi.fit(X, NAMES, probe=LINEAR, sample_id=ids).save(tmp_path / "model")

    class Own(lsi.LinearProbe):
        pass

    with pytest.raises(InputError, match="of the class Own cannot be saved"):
        lsi.fit(X, NAMES, probe=Own(1e-2)).save(tmp_path / "model")
    assert not os.listdir(tmp_path)


def test_saving_again_takes_overwrite_and_never_anything_else(tmp_path):
    fitted = lsi.fit(X, NAMES, probe=LINEAR)
    folder = fitted.save(tmp_path / "model")
    with pytest.raises(OutputError, match="already holds fitted objects"):
        fitted.save(folder)
    assert fitted.save(folder, overwrite=True) == folder
    (folder / "mine.txt").touch()
    with pytest.raises(OutputError, match="holds files that are no fitted objects"):
        fitted.save(folder, overwrite=True)


@pytest.fixture
def folder(tmp_path):
    return lsi.fit(X, NAMES, probe=LINEAR, posterior="kron").save(tmp_path / "model")


def change(folder, **entries):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def retold(folder, name, array):
    """Exchange an array and say so in the manifest, as somebody would who means it."""
    from lsi.system.digests import digest_values

    np.save(folder / f"{name}.npy", array)
    told = json.loads((folder / "manifest.json").read_text())["arrays"]
    change(folder, arrays={**told, name: digest_values(array)})


DAMAGE = {
    "an exchanged array": (lambda f: np.save(f / "theta.npy", np.zeros((2, 5))), "theta.npy is not what"),
    "other features": (lambda f: np.save(f / "features.npy", X + 1), "are not those that the probe"),
    "other labels": (lambda f: retold(f, "target", CLASS[::-1].copy()), "not those that the probe was"),
    "codes beyond the classes": (lambda f: retold(f, "target", CLASS + 7), "holds no class codes"),
    "another optimum": (lambda f: retold(f, "theta", np.ones((2, 5))), "not the optimum"),
    "another shape": (lambda f: retold(f, "inverse", np.eye(3)), "inverse is not what the data"),
    "another type": (lambda f: retold(f, "theta", np.zeros((2, 5), np.float32)), "theta is not what"),
    "not finite": (lambda f: retold(f, "probes", np.full((64, 2, 5), np.nan)), "probes is not what the data"),
    "no weights": (lambda f: change(f, arrays={}), "target"),
    "an array of no kind": (lambda f: change(f, arrays={"../x": ""}), "names an array that is not known"),
    "no settings": (lambda f: change(f, config={}), "misstates 'probe'"),
    "a setting out of range": (lambda f: change(f, config=settings(f, prior_precision=-1)), "must be"),
    "a missing array": (lambda f: (f / "basis.npy").unlink(), "basis.npy"),
    "a link": (lambda f: link(f, "theta.npy"), "leads out of its folder"),
}  # fmt: skip


def settings(folder, **changes):
    return {**json.loads((folder / "manifest.json").read_text())["config"], **changes}


def link(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(folder, what):
    damage, said = DAMAGE[what]
    damage(folder)
    with pytest.raises(InputError, match=f"damaged: .*{said}"):
        lsi.load_fitted(folder)


def test_other_versions_and_other_folders_are_refused(tmp_path, folder):
    change(folder, version=2, lsi_version="9.9")
    with pytest.raises(InputError, match="has version 2; this installation reads version 1.*9.9"):
        lsi.load_fitted(folder)
    with pytest.raises(InputError, match="does not exist: pass a folder with a fitted object"):
        lsi.load_fitted(tmp_path / "none")
    with pytest.raises(InputError, match="is not a folder with a fitted object"):
        lsi.load_fitted(tmp_path)
    scores = lsi.score(X, NAMES, probe=LINEAR, audit=False).save(tmp_path / "scores")
    with pytest.raises(InputError, match="is a folder of scores.*not a folder with a fitted object"):
        lsi.load_fitted(scores)
    with pytest.raises(InputError, match="is a trained probe"):
        lsi.load(folder)


def test_a_device_that_is_not_there_is_no_damage(folder):
    with pytest.raises(InputError, match="^device='none' cannot be used"):
        lsi.load_fitted(folder, device="none")
