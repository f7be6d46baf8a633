"""Labels, ids and names from anyone: harmless on a page, on a terminal and in a spreadsheet."""

import contextlib
import csv
import html.parser
import io
import json

import numpy as np
import pytest
from tests.score_cases import make

import lsi
from lsi.cli import main
from lsi.decisions.guarded import guard_text, unguard_text
from lsi.errors import InputError
from lsi.report import write_report
from lsi.system.text import plain_text

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "{{7*7}}{% raw %}",
    "javascript:alert(1)",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "cat\rdog",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
    "a\x00b",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1",
    "-1",
    "\t=1",
    "../../../etc/passwd",
    "\ufeffx",
]
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def hostile_scores(**more):
    n = len(HOSTILE)
    table = {
        "labels": HOSTILE, "predicted": HOSTILE[::-1], "ids": [f"{text} {k}" for k,
        text in enumerate(HOSTILE)], "lsi": np.linspace(1, 2, n), "manifest": {"classes": HOSTILE,
        "class_names": dict.fromkeys(HOSTILE, "<b>x</b>"), "source": {"kind": "file", "name": HOSTILE[0],
        "path": HOSTILE[5]}}, "audit": None,
    }  # fmt: skip
    import pandas as pd

    columns = {
        "sample_id": table["ids"], "position": np.arange(n), "label": HOSTILE, "lsi": table["lsi"],
        "mean_term": table["lsi"], "covariance_term": np.zeros(n), "loo_probability": np.full(n, 0.3),
        "loo_prediction": HOSTILE[::-1], "leverage": np.zeros(n), "relative_error": np.zeros(n),
    }  # fmt: skip
    return lsi.Scores(pd.DataFrame({**columns, **more}), table["manifest"])


class Page(html.parser.HTMLParser):
    """Collects what a browser would run."""

    def __init__(self):
        super().__init__()
        self.tags, self.handlers, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.links += [value for name, value in attributes if name in ("href", "src")]


def test_a_page_of_hostile_text_runs_nothing(tmp_path):
    text = write_report(tmp_path / "r.html", hostile_scores()).read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    harmless = Page()
    harmless.feed(write_report(tmp_path / "s.html", make()).read_text(encoding="utf-8"))
    assert page.tags.count("script") == harmless.tags.count("script")
    assert page.tags.count("img") == 0
    assert page.handlers == []
    assert not [link for link in page.links if link and link.startswith(("javascript:", "http"))]
    assert "7*7" in text  # a label is no template
    assert not {"\x1b", "\x9b", "\u202e", "\u2066", "\x00"} & set(text)


def test_a_notebook_cell_of_hostile_text_runs_nothing():
    page = Page()
    page.feed(hostile_scores()._repr_html_())
    assert "script" not in page.tags
    assert page.handlers == []


@pytest.mark.parametrize("command", ["show", "mislabeled", "compare"])
def test_a_terminal_of_hostile_text_obeys_nothing(tmp_path, command):
    hostile_scores().save(tmp_path / "scores")
    folders = [str(tmp_path / "scores")] * (2 if command == "compare" else 1)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        assert main([command, *folders]) == 0
    assert not {"\x1b", "\x9b", "\u202e", "\u2066", "\x00", "\r", "\x07"} & set(shown.getvalue())


def test_an_error_message_with_a_hostile_name_obeys_nothing(tmp_path, capsys):
    assert main(["show", str(tmp_path / "\x1b[2J\u202e")]) == 2
    assert not {"\x1b", "\u202e"} & set(capsys.readouterr().err)


def cells_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    numeric = [all(_is_number(row[k]) for row in rows[1:]) for k in range(len(rows[0]))]
    return [cell for row in rows for k, cell in enumerate(row) if not numeric[k]]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return text == ""
    return text != "-1" and text != "+1"


@pytest.mark.parametrize("arguments", [["select", "--keep", "0.9"], ["mislabeled"]])
def test_no_cell_of_a_written_csv_is_a_formula(tmp_path, arguments):
    hostile_scores().save(tmp_path / "scores")
    command, *rest = arguments
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([command, str(tmp_path / "scores"), *rest, "-o", str(tmp_path / "out.csv")]) == 0
    cells = cells_of(tmp_path / "out.csv")
    assert any("cmd|" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(FORMULAS)]


def test_no_cell_of_a_sensitivity_csv_is_a_formula(tmp_path):
    generator = np.random.default_rng(0)
    y = np.array(["=1", "@x", "+2"] * 8)
    np.savez(
        tmp_path / "d.npz", X=generator.normal(size=(24, 2)), y=y, ids=np.array([f"={k}" for k in range(24)])
    )
    out = tmp_path / "out.csv"
    assert main(["sensitivity", "-d", str(tmp_path / "d.npz"), "--no-audit", "-q", "-o", str(out)]) == 0
    assert not [cell for cell in cells_of(out) if cell.startswith(FORMULAS)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_guarded_cell_comes_back(text):
    assert unguard_text(guard_text(text)) == text
    assert not guard_text(text).startswith(FORMULAS)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_on_one_line_without_control(text):
    shown = plain_text(text)
    assert shown.isprintable() or "\ufffd" in shown
    assert "\n" not in shown and "\r" not in shown


def test_a_selection_comes_back_by_id_however_hostile(tmp_path):
    from lsi.decisions.files import read_decisions

    scores = hostile_scores()
    scores.save(tmp_path / "scores")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["select", str(tmp_path / "scores"), "--keep", "6", "-o", str(tmp_path / "k.csv")]) == 0
    assert read_decisions(tmp_path / "k.csv")[0].keep <= set(scores.sample_id)


def test_json_output_holds_the_text_as_data(tmp_path, capsys):
    hostile_scores().save(tmp_path / "scores")
    assert main(["show", str(tmp_path / "scores"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overview"]["n_scored"] == len(HOSTILE)


@pytest.mark.parametrize("label", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", "nul\0x", ""])
def test_a_new_label_is_no_path(tmp_path, label):
    from tests.fuzzing.loaders import image_bytes

    from lsi.data import load_samples
    from lsi.data.options import SourceOptions
    from lsi.data.writers.dataset import Changes, write_cleaned

    for name in ("cats/a.png", "dogs/b.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(image_bytes("PNG"))
    samples = load_samples(str(tmp_path / "images"))
    changes = Changes(np.ones(2, dtype=bool), {0: label})
    with pytest.raises(InputError, match="name of a folder"):
        write_cleaned(samples, changes, tmp_path / "out", SourceOptions(), False)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


def test_a_carriage_return_in_a_cell_begins_no_row(tmp_path):
    rows = [
        ["label", "x", "note"],
        *([["ab"[k % 2], str(k), "a\r=cmd|x" if k == 2 else "n"] for k in range(6)]),
    ]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    (tmp_path / "d.csv").write_text("sample_id,decision,label,suggested_label\n0,remove,,\n")
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(
            [
                "apply",
                str(tmp_path / "t.csv"),
                "--decisions",
                str(tmp_path / "d.csv"),
                "-o",
                str(tmp_path / "o.csv"),
                "--yes",
            ]
        )
    assert code == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [rows[0], *rows[2:]]
