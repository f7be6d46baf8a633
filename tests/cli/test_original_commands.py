"""The five commands of the original project, with its flags as it spells them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests import makers

import lsi
from lsi.cli import main
from lsi.cli.inputs.options import MethodOptions
from lsi.cli.inputs.settings import build_method
from lsi.errors import InputError

pytest.importorskip("transformers", reason="needs the extra `encoders`")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Archives in CIFAR's format, people's labels, and a small encoder in place of the default one."""
    folder = tmp_path_factory.mktemp("original")
    data = folder / "data"
    data.mkdir()
    for which in ("cifar10", "cifar100"):
        _, codes = makers.cifar_archive(data, which=which)
    aggre = codes.copy()
    aggre[::6] = (aggre[::6] + 1) % 10
    makers.human_file(data / "CIFAR-10_human.pt", codes, aggre_label=aggre)
    makers.tiny_resnet(folder / "encoder")
    return folder


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_CACHE", str(place / "cache"))
    monkeypatch.setitem(
        __import__("lsi.features.encoders.opening", fromlist=["DEFAULTS"]).DEFAULTS,
        "image", str(place / "encoder"),
    )  # fmt: skip

    def run(*arguments, code=0):
        where = [
            "--data_path",
            str(place / "data"),
            "--save_dir",
            str(tmp_path / "results"),
            "--audit",
            "2",
            "-q",
        ]
        assert main(["compute", *arguments, *where]) == code
        return lsi.load(tmp_path / "results") if code == 0 else None

    return run


def test_1_cifar10(run):
    scores = run("--dataset", "cifar10")
    assert len(scores) == 60
    assert scores.manifest["config"]["method"]["kind"] == "newton"
    assert scores.manifest["source"]["name"] == "cifar10"
    assert scores.manifest["class_names"]["3"] == "cat"
    assert scores.manifest["encoder"]["settings"]["pooling"] == "mean"
    assert np.isfinite(scores.lsi).all()


def test_2_cifar100(run):
    scores = run("--dataset", "cifar100")
    assert len(scores) == 60
    assert scores.manifest["class_names"]["7"] == "fine 7"


def test_3_corrupt_label(run):
    frame = run("--dataset", "cifar10", "--corrupt_label", "0.2").to_frame()
    assert frame["corrupted"].sum() == 12
    np.testing.assert_array_equal(frame["corrupted"], frame["label"] != frame["original_label"])


def test_4_corrupt_data(run):
    clean = run("--dataset", "cifar10")
    arguments = ["--corrupt_data", "0.1", "--corrupt_data_label", "0", "1", "2", "--overwrite"]
    scores = run("--dataset", "cifar10", *arguments)
    frame = scores.to_frame()
    np.testing.assert_array_equal(frame["corrupted"], frame["label"].isin([0, 1, 2]))
    assert scores.manifest["corruption"]["classes"] == ["0", "1", "2"]
    assert scores.manifest["corruption"]["strength"] == 0.1
    assert not np.array_equal(scores.lsi, clean.lsi)


def test_5_human_label_noise(run):
    frame = run("--dataset", "cifar10", "--human_label_noise", "True").to_frame()
    assert frame["corrupted"].sum() == 10
    assert frame.loc[frame["corrupted"], "position"].tolist() == list(range(0, 60, 6))


def test_other_flags_of_the_original(run):
    arguments = "--active_classes 0 1 2 --range1 2 --range2 5 --laptype kfac --epochs 3 --lr 0.01 --mom 0.5"
    scores = run(
        "--dataset", "cifar10", *arguments.split(), "--wd", "0.001", "--n_seeds", "2", "--num_batches", "1"
    )
    assert scores.to_frame()["position"].tolist() == [2, 3, 4]
    assert scores.manifest["data"]["n_classes"] == 3
    config = scores.manifest["config"]
    assert config["posterior"] == "kron"
    assert config["probe"]["weight_decay"] == 0.001
    method = config["method"]
    assert (method["kind"], method["epochs"], method["lr"], method["momentum"], method["n_seeds"]) == (
        "retrain", 3, 0.01, 0.5, 2,
    )  # fmt: skip


def test_hyphens_work_as_well(run):
    frame = run(
        "--dataset", "cifar10", "--corrupt-data", "0.1", "--corrupt-data-label", "0", "--first", "30"
    ).to_frame()
    assert (len(frame), frame["corrupted"].sum()) == (30, 3)


def test_human_label_noise_may_be_off(run):
    assert "corrupted" not in run("--dataset", "cifar10", "--human_label_noise", "False").to_frame()


def test_features_are_made_once_for_all_commands(run, place, capsys):
    run("--dataset", "cifar10", "--corrupt_label", "0.3")
    assert main(["cache", "ls", "--cache-dir", str(place / "cache"), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len([entry for entry in entries if entry["data"] == "cifar10" and entry["rows"] == 60]) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corrupt_data", "0.1", "--corrupt_data_label", "11"], "no sample has the label '11'"),
        (["--corrupt_data", "-1"], "positive"),
        (["--active_classes", "cat"], "--active-classes"),
        (["--human_label_noise", "perhaps"], "no human labels 'perhaps'"),
        (["--num_batches", "4"], "--num-batches 4"),
        (["--range1", "2", "--subset", "3"], "Use one of them"),
        (["--first", "0"], "--first"),
        (["--encoder", "./nowhere"], "there is no folder"),
        (["--transition", "gone.csv"], "cannot be read"),
    ],
)
def test_wrong_values_are_told(run, capsys, arguments, message):
    run("--dataset", "cifar10", *arguments, code=2)
    assert message in capsys.readouterr().err


def test_without_archive_and_network_the_error_says_what_to_do(monkeypatch, tmp_path, capsys):
    from lsi.data.archives import cifar

    which = cifar.CIFAR["cifar10"]
    gone = cifar.Archive(which.archive.name, (tmp_path / "gone").as_uri(), which.archive.md5)
    monkeypatch.setitem(cifar.CIFAR, "cifar10", replace(which, archive=gone))
    assert main(["compute", "--dataset", "cifar10", "--cache-dir", str(tmp_path / "cache")]) == 2
    assert "--data-dir" in capsys.readouterr().err


def test_one_seed_and_one_batch_choose_nothing():
    assert build_method(MethodOptions(n_seeds=1, num_batches=1)) == lsi.Newton()
    with pytest.raises(InputError, match="--n-seeds"):
        build_method(MethodOptions(method="newton", n_seeds=3))
