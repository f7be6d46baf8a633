"""Outputs stay away from inputs, however their paths are spelt."""

import os
from pathlib import Path

import pytest

from lsi.errors import OutputError
from lsi.system.places import check_apart


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A file and a folder as inputs, links to both, and the current folder among them."""
    (tmp_path / "in" / "images").mkdir(parents=True)
    (tmp_path / "in" / "data.npz").write_bytes(b"data")
    (tmp_path / "in" / "images" / "1.png").write_bytes(b"picture")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "in")
    (tmp_path / "linked.npz").symlink_to(tmp_path / "in" / "data.npz")
    (tmp_path / "linked-images").symlink_to(tmp_path / "in" / "images")
    os.link(tmp_path / "in" / "data.npz", tmp_path / "hard.npz")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path / "in"))
    return tmp_path


SAME = [
    "data.npz", "./data.npz", "../in/data.npz", "images/../data.npz", "../elsewhere/data.npz",
    "../linked.npz", "../hard.npz", "~/data.npz", "../elsewhere/../in/data.npz", "images/../../linked.npz",
]  # fmt: skip
INSIDE = [
    "images/scores", "images/1.png", "images", "../linked-images/new/scores", "../elsewhere/images/x",
    "new/../images/x", "~/images/x",
]  # fmt: skip


@pytest.mark.parametrize("output", SAME)
@pytest.mark.parametrize("given", ["data.npz", "../linked.npz", "../hard.npz"])
def test_a_file_is_the_same_by_every_name(places, output, given):
    with pytest.raises(OutputError, match="--report .* is the same as --dataset"):
        check_apart({"--report": Path(output)}, {"--dataset": Path(given)})


@pytest.mark.parametrize("output", INSIDE)
@pytest.mark.parametrize("given", ["images", "../linked-images", "../elsewhere/images/"])
def test_nothing_is_written_into_a_folder_that_is_read(places, output, given):
    with pytest.raises(OutputError, match="--output .* (lies inside|is the same as) --dataset"):
        check_apart({"--output": Path(output)}, {"--dataset": Path(given)})


@pytest.mark.parametrize("output", [".", "..", "../elsewhere", "images/.."])
@pytest.mark.parametrize("given", ["data.npz", "images", "../linked.npz"])
def test_no_folder_that_holds_an_input_is_an_output(places, output, given):
    with pytest.raises(OutputError, match="--output .* holds --dataset"):
        check_apart({"--output": Path(output)}, {"--dataset": Path(given)})


def test_outputs_need_places_of_their_own(places):
    for one, other in (("s", "s/report.html"), ("s", "s"), ("s/blocks", "s"), ("new/../s", "s")):
        with pytest.raises(OutputError, match="separate places"):
            check_apart({"--output": Path(one), "--report": Path(other)}, {})


def test_other_places_are_fine(places):
    outputs = {"--output": Path("scores"), "--report": Path("report.html"), "--checkpoint": None}
    inputs = {"--dataset": Path("data.npz"), "--labels": None, "--encoder": Path("not/there")}
    check_apart(outputs, inputs)
    check_apart({"--output": Path("images-2")}, {"--dataset": Path("images")})
    check_apart({"--output": Path("not/there")}, {"--dataset": Path("not/there")})  # nothing to protect


def test_capitals_make_no_difference_where_the_disk_makes_none(places, monkeypatch):
    """As on macOS and Windows, where samefile knows that both names lead to one file."""
    real = os.path.samefile

    def samefile(one, other):
        paths = [Path(os.path.realpath(path)) for path in (one, other)]
        lower = [path if path.exists() else Path(str(path).lower()) for path in paths]
        return real(*lower)

    (places / "lower").mkdir()
    (places / "lower" / "data.npz").write_bytes(b"data")
    monkeypatch.setattr(os.path, "samefile", samefile)
    with pytest.raises(OutputError, match="the same as"):
        check_apart({"--report": places / "lower" / "DATA.NPZ"}, {"--dataset": places / "lower" / "data.npz"})
