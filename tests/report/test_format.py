"""Settings and counts as people read them."""

import numpy as np
import pytest

import lsi
from lsi.cli import main
from lsi.errors import InputError
from lsi.report.format import settings


def test_what_was_not_added_is_not_told():
    newton = {"kind": "newton", "tol": 0.01, "added_weight_decay": 0.0}
    assert settings(newton) == "newton (tol 0.01)"
    assert settings({**newton, "added_weight_decay": 1e-3}) == "newton (tol 0.01, added weight decay 0.001)"
    assert settings(lsi.Newton().describe()).count("weight decay") == 0


def test_one_feature_is_no_features(tmp_path, capsys):
    X = np.random.default_rng(0).normal(size=(12, 1))
    np.savez(tmp_path / "one.npz", X=X, y=np.arange(12) % 2)
    words = [
        "compute",
        "-d",
        str(tmp_path / "one.npz"),
        "--no-audit",
        "--report",
        str(tmp_path / "page.html"),
    ]
    assert main(words) == 0
    shown = capsys.readouterr().err + (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 feature," in shown
    assert "1 features" not in shown


def test_fractions_are_told_what_a_label_is():
    with pytest.raises(
        InputError, match=r"a class label is a whole number or a text, and y holds 0\.5 in row 1"
    ):
        lsi.score(np.eye(4), [0, 0.5, 1, 1])
