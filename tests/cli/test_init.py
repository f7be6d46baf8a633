"""`lsi init` and the file of options that `lsi compute` reads."""

import json
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.docs.stand_ins import features

import lsi
from lsi.cli import app, main
from lsi.cli.inputs.options import EncoderOptions
from lsi.cli.inputs.options_file import ONLY_TYPED, arguments_of, text_of, toml, with_file
from lsi.cli.inputs.recall import asked, words_of

COMPUTE = app.app["compute"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder of one's own: the file is looked for in the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_explains_every_option_and_sets_none(here, capsys):
    assert main(["init"]) == 0
    text = (here / "lsi.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {}
    for name, argument in arguments_of(COMPUTE).items():
        assert (f"\n# {name} = " in text) == (name not in ONLY_TYPED)
        explained = " ".join(argument.parameter.help.split()) in " ".join(text.replace("\n# ", " ").split())
        assert explained == (name not in ONLY_TYPED)
    assert "Next: lsi compute --dataset DATASET -o scores" in capsys.readouterr().out


def test_every_default_in_the_file_is_one_that_the_command_takes(here):
    """Taking the # away from the lines that have a value changes nothing."""
    lines = text_of(COMPUTE, {"dataset": "wine"}).splitlines()
    shown = [line.removeprefix("# ") for line in lines if " = " in line and "…" not in line]
    (here / "lsi.toml").write_text("\n".join(shown), encoding="utf-8")
    plain = app.app.parse_args(["compute", "--dataset", "wine"], exit_on_error=False)[1].kwargs
    told = app.app.parse_args(["compute", *with_file([], COMPUTE)], exit_on_error=False)[1].kwargs
    for name, group in told.items():
        assert name == "file" or group == (plain[name] if name in plain else type(group)())


def test_nothing_is_overwritten(here, capsys):
    (here / "lsi.toml").write_text("mine")
    assert main(["init"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (here / "lsi.toml").read_text() == "mine"


def words(text, *typed):
    """Return the words that a file of options adds to those of the command line."""
    with open("lsi.toml", "w", encoding="utf-8") as file:
        file.write(text)
    return with_file(typed, COMPUTE)[len(typed) : -2]


def test_the_command_line_goes_before_the_file():
    text = (
        'standardise = true\ndataset = "wine"\nweight_decay = 1e-2\naudit = 7\nactive-classes = ["a", "-b"]'
    )
    said = ["--dataset", "wine", "--weight-decay", "0.01", "--audit", "7"]
    said += ["--active-classes=a", "--active-classes=-b"]
    assert words(text) == ["--standardise", *said]
    assert words(text, "-d", "digits") == ["--standardise", *said[2:]]
    typed = ("--wd", "1", "--no-audit", "--active-classes", "c", "--standardize", "--dataset=x")
    assert words(text, *typed) == []


def test_a_file_is_read_where_it_lies_or_where_it_is_named(here, capsys):
    X, y = features()
    np.savez(here / "own.npz", X=X, y=y)
    (here / "lsi.toml").write_text('dataset = "own.npz"\nfirst = 50\naudit = false\nlabel-noise = false')
    assert main(["compute", "--output", "a"]) == 0
    assert "options from 'lsi.toml'" in capsys.readouterr().err
    (here / "lsi.toml").rename(here / "other.toml")
    assert main(["compute", "-q", "--config", "other.toml", "--first", "40", "--output", "b"]) == 0
    assert [len(lsi.load(name)) for name in ("a", "b")] == [50, 40]
    assert main(["compute", "--config", "gone.toml"]) == 2
    assert "gone.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight-decai = 1", "Did you mean 'weight-decay'"),
        ("overwrite = true", "only the command line"),
        ('config = "other.toml"', "only the command line"),
        ("dataset = ", "no TOML file"),
        ("[dataset]\nname = 1", "must be a text, a number"),
        ("first = 2020-01-01", "must be a text, a number"),
        ("active-classes = [true]", "must be a text, a number"),
        ("first = false", "'first' cannot be false"),
        ('dataset = "wine"\nfirst = "many"', "--first"),
        ("x = " + "[" * 5000, "no TOML file"),
        ('dataset = "wine"\nencoder = "evil:build"', "Only the command line may: --encoder evil:build"),
        ('dataset = "wine"\ntext_encoder = "evil:build"', "Only the command line may"),
    ],
)
def test_what_a_file_cannot_say(text, message, here, capsys):
    (here / "lsi.toml").write_text(text)
    (here / "evil.py").write_text("raise SystemExit('it ran')")
    assert main(["compute", "--output", "s"]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "s").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--dataset own.npz --weight-decay 1e-2 --corrupt-label 0.1 --subset 20 --audit 5 --posterior full",
        "--dataset own.npz --standardise --no-audit --no-intercept --active-classes 1 2 --redundancy",
        "--dataset own.npz --epochs 5 --seed 3 --audit 3 --no-label-noise --first 20",
    ],
)
def test_a_run_can_be_told_again_from_its_manifest_to_the_same_bytes(words, here, monkeypatch):
    X, y = features()
    np.savez(here / "own.npz", X=X, y=y)
    assert main(["compute", *words.split(), "-q", "--output", "scores"]) == 0
    assert main(["init", "--from", "scores", "-o", "again.toml"]) == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["compute", "--config", "../again.toml", "-q", "--output", "again"]) == 0
    files = [folder / "scores.parquet" for folder in (here / "scores", here / "elsewhere" / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    commands = [lsi.load(file.parent).manifest["command"] for file in files]
    assert commands[0] == commands[1]


def test_weights_are_found_again_and_functions_are_typed_again(here):
    (here / "w.pt").write_bytes(b"")
    found = asked(EncoderOptions(encoder="resnet18:w.pt"))
    assert found == {"encoder": f"resnet18:{here / 'w.pt'}"}
    text = text_of(COMPUTE, {"encoder": "mine:build"})
    assert '# encoder = "mine:build"  # a function: only the command line may name it' in text
    assert tomllib.loads(text) == {}


def test_scores_made_in_python_have_no_command(here, capsys):
    X, y = features()
    lsi.score(X, y, audit=False).save("scores")
    assert main(["init", "--from", "scores"]) == 2
    assert "made in Python" in capsys.readouterr().err
    assert not (here / "lsi.toml").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"overwrite": True}, "only the command line"),
        ({"ouptut": "x"}, "Did you mean 'output'"),
        ({"dataset": {"a": 1}}, "must be a text"),
        ({"first": None}, "must be a text"),
        ("--dataset wine", "made in Python"),
    ],
)
def test_a_manifest_that_says_what_no_run_says_is_refused(command, message, here, capsys):
    X, y = features(12)
    scores = lsi.score(X, y, audit=False)
    scores.manifest["command"] = command
    scores.save("scores")
    assert main(["init", "--from", "scores"]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "lsi.toml").exists()


@given(
    st.one_of(st.text(max_size=20), st.lists(st.text(max_size=5)), st.integers(), st.floats(allow_nan=False))
)
def test_any_value_survives_the_file(value):
    def kept(each):
        return each.encode("utf-8", "replace").decode() if isinstance(each, str) else each

    value = [kept(each) for each in value] if isinstance(value, list) else kept(value)
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}


def test_words_say_what_they_were_made_from():
    options = {
        "dataset": "wine",
        "active-classes": ["-1", "2"],
        "first": 3,
        "audit": False,
        "standardise": True,
    }
    line = words_of(options)
    bound = app.app.parse_args(["compute", *line], exit_on_error=False)[1]
    data = bound.arguments["data"]
    assert (data.dataset, data.active_classes, data.first, data.standardise) == ("wine", ("-1", "2"), 3, True)
    assert bound.arguments["method"].audit is False
    assert json.loads(json.dumps(options)) == options
