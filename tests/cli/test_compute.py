"""`lsi compute` for real, on small data."""

import json

import numpy as np
import pandas as pd
import pytest

import lsi
from lsi.cli import job, main
from lsi.cli.inputs import settings
from lsi.cli.inputs.options import MethodOptions
from lsi.errors import InputError

WINE = ["compute", "--dataset", "wine"]
QUICK = [*WINE, "--audit", "4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with everything on: scores, page, planted errors."""
    folder = tmp_path_factory.mktemp("run")
    where = ["--output", str(folder / "scores"), "--report", str(folder / "report.html")]
    code = main([*QUICK, "--corrupt_label", "0.1", "--quiet", *where])
    return code, folder


def test_a_run_leaves_scores_and_a_page(finished):
    code, folder = finished
    assert code == 0
    assert sorted(entry.name for entry in folder.iterdir()) == ["report.html", "scores"]
    assert "Finding the planted errors" in (folder / "report.html").read_text(encoding="utf-8")


def test_saved_scores_know_their_source_and_the_truth(finished):
    scores = lsi.load(finished[1] / "scores")
    frame = scores.to_frame()
    assert len(frame) == 178
    assert frame["corrupted"].sum() == round(0.1 * 178)
    np.testing.assert_array_equal(frame["corrupted"], frame["label"] != frame["original_label"])
    assert scores.manifest["source"]["name"] == "wine"
    assert scores.manifest["corruption"] == {"kind": "symmetric", "rate": 0.1, "seed": 0, "n_corrupted": 18}
    assert scores.manifest["class_names"]["2"] == "class_2"
    assert len(scores.audit.positions) == 4


def test_saved_scores_equal_those_of_the_library(finished):
    from lsi.data import corrupt_labels, load_samples

    wine = load_samples("wine")
    labels = corrupt_labels(wine.labels, 0.1, 0).labels
    direct = lsi.score(wine.features, labels, audit=False)
    np.testing.assert_allclose(lsi.load(finished[1] / "scores").lsi, direct.lsi, rtol=1e-9)


def test_json_is_alone_on_stdout(capsys):
    assert main([*QUICK, "--corrupt-label", "0.1", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert out.count("\n") == 1
    assert 0.5 < result["detection"]["auroc"] <= 1
    assert result["detection"]["n_positive"] == 18
    assert result["data"]["n_samples"] == result["overview"]["n_scored"] == 178
    assert len(result["highest"]) == len(result["lowest"]) == 8
    assert result["audit"]["n"] == 4
    assert result["output"] is None
    assert "178 samples, 13 features, 3 classes" in err


def test_the_plan_comes_before_and_the_table_after(capsys):
    assert main([*QUICK, "--corrupt-label", "0.1"]) == 0
    out, err = capsys.readouterr()
    for part in (
        "wine: 178 samples",
        "18 labels changed on purpose",
        "newton",
        "dense solver, grade: certified",
        "expected cost:",
    ):
        assert part in err
    for part in (
        "Most informative",
        "Least informative",
        "class_1",
        "AUROC",
        "average precision",
        "Audit: 4",
    ):
        assert part in out


def test_quiet_says_nothing(capsys):
    assert main([*WINE, "--no-audit", "--subset", "5", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_run_without_audit_says_so(capsys):
    assert main([*WINE, "--no-audit", "--subset", "5"]) == 0
    assert "Audit: not run." in capsys.readouterr().out


def test_a_subset_is_scored_in_the_order_asked_for(tmp_path):
    where = tmp_path / "scores"
    assert main([*WINE, "--no-audit", "-q", "--subset", "150,3,77", "--output", str(where)]) == 0
    assert lsi.load(where).to_frame()["position"].tolist() == [150, 3, 77]


def test_detection_that_cannot_be_measured_is_said(capsys):
    assert main([*WINE, "--no-audit", "--subset", "3", "--corrupt-label", "0"]) == 0
    assert "not measured" in capsys.readouterr().out


def test_existing_scores_are_kept_unless_overwrite_is_given(finished, capsys, monkeypatch):
    where = ["--output", str(finished[1] / "scores")]
    before = (finished[1] / "scores" / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(job, "run", lambda *_, **__: pytest.fail("work was done before the check"))
        assert main([*QUICK, *where]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (finished[1] / "scores" / "manifest.json").read_bytes() == before


def test_overwrite_replaces(tmp_path):
    arguments = [*WINE, "--no-audit", "-q", "--output", str(tmp_path / "scores")]
    assert main([*arguments, "--subset", "0:3"]) == 0
    assert main([*arguments, "--subset", "0:4", "--overwrite"]) == 0
    assert len(lsi.load(tmp_path / "scores")) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "win"], "Did you mean 'wine'"),
        (["--dataset", "missing.npz"], "does not exist"),
        (["--dataset", "wine", "--corrupt-label", "1"], "less than 1"),
        (["--dataset", "wine", "--corrupt-label", "-0.5"], "at least 0"),
        (["--dataset", "wine", "--prior-precision", "-1"], "prior_precision"),
        (["--dataset", "wine", "--weight-decay", "0"], "--weight-decay 0"),
        (["--dataset", "wine", "--device", "abacus"], "--device abacus cannot be used"),
        (["--dataset", "wine", "--weight-decay", "-1"], "weight_decay"),
        (["--dataset", "wine", "--subset", "500"], "178 samples"),
        (["--dataset", "wine", "--subset", "1,1"], "more than once"),
        (["--dataset", "wine", "--audit", "-2"], "--no-audit"),
        (["--dataset", "wine", "--threads", "0"], "--threads"),
        (["--dataset", "wine", "--seed", "-1"], "--seed"),
        (["--dataset", "wine", "--corrupt-label", "0.1", "--corrupt-seed", "-1"], "--corrupt-seed"),
        (["--dataset", "wine", "--tol", "-1"], "tol"),
        (["--dataset", "wine", "--method", "newton", "--epochs", "3"], "--method retrain"),
        (["--dataset", "wine", "--method", "retrain", "--solver", "dense"], "--method newton"),
        (["--dataset", "wine", "--output", "s", "--report", "s/report.html"], "Put it next to"),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "run", lambda *_, **__: pytest.fail("work was done before the check"))
    assert main(["compute", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def write_npz(path, X, y, **more):
    np.savez(path, X=X, y=y, **more)
    return str(path)


def blobs(n=40):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % 2
    return rng.normal(size=(n, 3)) + 2 * codes[:, None], codes


def test_bad_values_in_a_file_are_refused(tmp_path, capsys):
    X, y = blobs()
    X[7, 1] = np.nan
    assert main(["compute", "--dataset", write_npz(tmp_path / "d.npz", X, y)]) == 2
    assert "7" in capsys.readouterr().err


def test_hostile_labels_and_ids_stay_text_on_the_terminal(tmp_path, capsys):
    X, codes = blobs()
    labels = np.array(["[red]evil[/red]", "\x1b[31m<script>"])[codes]
    ids = np.array([f"[link=x]{k}\x07" for k in range(len(X))])
    path = write_npz(tmp_path / "[b]d.npz", X, labels, ids=ids)
    page = tmp_path / "report.html"
    assert main(["compute", "--dataset", path, "--audit", "3", "--report", str(page)]) == 0
    out, err = capsys.readouterr()
    assert "[red]evil[/red]" in out
    assert "[link=x]" in out
    assert "[b]d: 40 samples" in err
    assert not set("\x1b\x07") & set(out + err)
    assert "<script>" not in page.read_text(encoding="utf-8")


def test_a_file_comes_back_with_its_ids(tmp_path):
    X, codes = blobs()
    path = write_npz(tmp_path / "d.npz", X, codes, ids=np.arange(100, 140))
    assert main(["compute", "--dataset", path, "--no-audit", "-q", "--output", str(tmp_path / "s")]) == 0
    assert lsi.load(tmp_path / "s").sample_id.tolist() == list(range(100, 140))


def test_the_table_on_disk_is_plain_parquet(finished):
    frame = pd.read_parquet(finished[1] / "scores" / "scores.parquet")
    assert {"sample_id", "label", "lsi", "corrupted", "original_label"} <= set(frame.columns)


def test_settings_of_retrain_choose_it(capsys):
    arguments = [*WINE, "--no-audit", "--subset", "4", "--epochs", "5", "--lr", "0.01", "--momentum", "0.5"]
    assert main([*arguments, "--seed", "3", "--json"]) == 0
    method = json.loads(capsys.readouterr().out)["config"]["method"]
    assert (method["kind"], method["epochs"], method["lr"], method["momentum"], method["seed"]) == (
        "retrain", 5, 0.01, 0.5, 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda: lsi.Newton()),
        ({"tol": 1e-3}, lambda: lsi.Newton(tol=1e-3)),
        ({"tol": "none"}, lambda: lsi.Newton(tol=None)),
        ({"method": "retrain"}, lambda: lsi.Retrain()),
        ({"epochs": 7}, lambda: lsi.Retrain(epochs=7)),
        ({"momentum": 0.0}, lambda: lsi.Retrain(momentum=0.0, nesterov=False)),
        ({"method": "retrain", "seed": 3}, lambda: lsi.Retrain(seed=3)),
    ],
)
def test_options_make_the_method(options, expected):
    assert settings.build_method(MethodOptions(**options)) == expected()


@pytest.mark.parametrize(("given", "taken"), [(None, True), (True, True), (False, False), (0, False), (9, 9)])
def test_audit_option(given, taken):
    assert settings.audit_size(given) is taken or settings.audit_size(given) == taken


def test_mixed_settings_name_the_way_out():
    with pytest.raises(InputError, match="--epochs, --lr: settings of the method retrain"):
        settings.build_method(MethodOptions(method="newton", epochs=1, lr=0.1))


@pytest.fixture
def broken(monkeypatch):
    """Certificates that promise too much."""
    from lsi.loo.newton.refine import Refiner

    refine = Refiner.refine

    def boastful(self, first):
        refined = refine(self, first)
        refined.terms.mean.mul_(1.1)
        refined.certificate.fill_(1e-4)
        return refined

    monkeypatch.setattr(Refiner, "refine", boastful)


def test_broken_certificates_are_said_in_red(broken, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    where = ["--output", str(tmp_path / "scores"), "--report", str(tmp_path / "page.html")]
    assert main([*QUICK, "--no-label-noise", *where]) == 0
    out = capsys.readouterr().out
    red = out[out.index("\x1b[1;31m") :]
    assert "Certificates are broken: 4 of 4 audited samples" in " ".join(red.split())
    assert "Certificates of this run are broken." in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(lsi.load(tmp_path / "scores").manifest["audit"]["broken"]) == 4
    assert main(["doctor", str(tmp_path / "scores")]) == 0
    assert "certificates are broken" in capsys.readouterr().out


def test_broken_certificates_are_said_beside_json(broken, capsys):
    assert main([*QUICK, "--no-label-noise", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["audit"]["broken"]) == 4
    assert "Certificates are broken: 4 of 4" in " ".join(err.split())
