"""Networks and training algorithms on the command line."""

import json

import pytest

import lsi
from lsi.cli import main
from lsi.cli.inputs.options import MethodOptions, ProbeOptions
from lsi.cli.inputs.settings import build_method, build_probe

QUICK = ["compute", "--dataset", "wine", "--standardise", "--subset", "4", "--epochs", "5", "--no-audit"]


def test_a_network_is_trained_and_saved(tmp_path, capsys):
    where = ["--output", str(tmp_path / "scores"), "--json"]
    assert main([*QUICK, "--hidden", "6", "5", "--activation", "tanh", "--optimizer", "adam", *where]) == 0
    assert json.loads(capsys.readouterr().out)
    config = lsi.load(tmp_path / "scores").manifest["config"]
    assert config["probe"]["hidden"] == [6, 5]
    assert config["probe"]["activation"] == "tanh"
    assert config["method"]["optimizer"] == "adam"


def test_settings_choose_what_they_belong_to():
    method = build_method(MethodOptions(noise_multiplier=0.5, train_batch_size=16, schedule="cosine"))
    assert method == lsi.Retrain(optimizer=lsi.DPSGD(noise_multiplier=0.5), batch_size=16, schedule="cosine")
    assert build_method(MethodOptions(rho=0.1)) == lsi.Retrain(optimizer=lsi.SAM(rho=0.1))
    assert build_method(MethodOptions(optimizer="adam")) == lsi.Retrain(optimizer="adam")
    assert build_probe(ProbeOptions(), "classification") == lsi.LinearProbe()
    network = build_probe(ProbeOptions(probe="mlp", weight_decay=0.1), "classification")
    assert network.describe() == lsi.MLPProbe(weight_decay=0.1).describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rho", "0.1", "--optimizer", "adam"], "--rho"),
        (["--probe", "linear", "--hidden", "4"], "--hidden"),
        (["--hidden", "4", "--task", "regression"], "--probe mlp"),
        (["--hidden", "0"], "hidden"),
        (["--method", "newton", "--train-batch-size", "8"], "--train-batch-size"),
        (["--record-every", "6"], "record_every"),
    ],
)
def test_wrong_settings_are_told(capsys, arguments, message):
    assert main([*QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err
