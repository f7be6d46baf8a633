"""Cures in the spelling of the command line."""

import pytest

from lsi.cli import main
from lsi.cli.app import app
from lsi.cli.spelling import as_options, options_of


def test_a_cure_is_spelt_as_the_command_takes_it(tmp_path, capsys):
    assert main(["compute", "-d", "wine", "-o", str(tmp_path / "s"), "-q", "--no-audit"]) == 0
    assert main(["select", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err
    assert "--keep 0.5" in error
    assert "keep=" not in error


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Use posterior='kron' or solver='dense'.", "Use --posterior kron or --solver dense."),
        ("Take weight_decay=1e-4.", "Take --weight-decay 1e-4."),
        ("'x/keep=0.5.csv' is gone", "'x/keep=0.5.csv' is gone"),
        ("Use probe=lsi.RidgeProbe().", "Use probe=lsi.RidgeProbe()."),
        ("Use posterior_layers='last'.", "Use --posterior-layers last."),
        ("Use layer='last'.", "Use layer='last'."),
    ],
)
def test_only_options_of_the_command_are_changed(message, shown):
    assert as_options(message, options_of(app, ["compute", "--dataset", "x"])) == shown


def test_words_that_call_no_command_have_no_options():
    assert options_of(app, []) == options_of(app, ["frobnicate"]) == set()
    assert "--json" in options_of(app, ["cache", "ls"])
