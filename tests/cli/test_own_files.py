"""Every kind of file that lsi writes, given to every command: no wrong kind is ever taken for another."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lsi.cli import main
from lsi.results.marks import read_mark
from lsi.scores import load

SCORES, SELECTION, SUSPECTS = "laplace-sample-information scores", "lsi-selection", "lsi-suspects"
DECISIONS, SENSITIVITY, REPORT = "lsi-decisions", "lsi-sensitivity", "lsi-report"
RECEIPT, TABLE, CHECKPOINT = "lsi-receipt", "lsi-scores", "lsi-checkpoint"
FILES = {
    "scores": SCORES,
    "scores/manifest.json": SCORES,
    "scores/scores.parquet": TABLE,
    **{f"kept.{suffix}": SELECTION for suffix in ("parquet", "csv", "json", "npy", "txt")},
    **{f"suspects.{suffix}": SUSPECTS for suffix in ("parquet", "csv", "json")},
    "decisions.json": DECISIONS,
    "decisions.csv": DECISIONS,
    "sensitivity.csv": SENSITIVITY,
    "report.html": REPORT,
    "clean.npz.receipt": RECEIPT,
    "clean.npz.receipt/receipt.json": RECEIPT,
    "blocks": CHECKPOINT,
}
COMMANDS = {
    "apply": (["apply", "FILE", "data.npz", "-o", "out.npz", "--yes"], {SELECTION, DECISIONS}),
    "apply --as keep": (["apply", "FILE", "data.npz", "-o", "out.npz", "--yes", "--as", "keep"], {SELECTION}),
    "apply --as remove": (
        ["apply", "FILE", "data.npz", "-o", "out.npz", "--yes", "--as", "remove"], {SUSPECTS},
    ),
    "apply --as relabel": (
        ["apply", "FILE", "data.npz", "-o", "out.npz", "--yes", "--as", "relabel"], {SUSPECTS},
    ),
    "apply --as decisions": (
        ["apply", "FILE", "data.npz", "-o", "out.npz", "--yes", "--as", "decisions"], {DECISIONS},
    ),
    "apply --ids-only": (
        ["apply", "FILE", "data.npz", "-o", "out.npz", "--yes", "--ids-only"], {SELECTION, DECISIONS},
    ),
    "apply --decisions": (["apply", "data.npz", "--decisions", "FILE", "-o", "out.npz"], {DECISIONS}),
    "apply --keep": (["apply", "FILE", "data.npz", "-o", "out.npz", "-k", "0.95"], {SCORES}),
    "apply to": (["apply", "kept.json", "FILE", "-o", "out.npz", "--yes"], set()),
    "apply --undo": (["apply", "--undo", "FILE", "-o", "out.npz"], {RECEIPT}),
    "select": (["select", "FILE", "-k", "0.5", "-o", "out.csv"], {SCORES}),
    "mislabeled": (["mislabeled", "FILE", "-o", "out.csv"], {SCORES}),
    "compare": (["compare", "scores", "FILE"], {SCORES}),
    "merge": (["merge", "FILE", "--output", "out"], set()),  # these scores are no part of a run
    "show": (["show", "FILE"], {SCORES}),
    "report": (["report", "FILE", "-o", "out.html"], {SCORES}),
    "report --dataset": (["report", "scores", "--dataset", "FILE", "-o", "out.html"], set()),
    "difficulty": (["difficulty", "FILE"], {SCORES}),
    "compute": (["compute", "--dataset", "FILE", "--no-audit", "--output", "out"], set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One of every kind, about one dataset, and another dataset with the same ids."""
    folder = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = generator.normal(size=(60, 4)) + np.eye(3, 4)[y]
    y[7] = 0
    np.savez(folder / "data.npz", X=X, y=y)
    np.savez(folder / "other.npz", X=X[::-1], y=y[::-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        commands = [
            "compute -d data.npz --audit 2 -q --output scores --report report.html --checkpoint blocks",
            *(f"select scores --keep 0.95 -o {name}" for name in FILES if name.startswith("kept")),
            *(f"mislabeled scores --top 3 -o {name}" for name in FILES if name.startswith("suspects")),
            "sensitivity --dataset data.npz --no-audit -q -o sensitivity.csv --prior-precisions 2",
            "apply kept.csv data.npz -o clean.npz",
        ]
        for command in commands:
            if command.startswith("compute"):
                patch.setattr("lsi.cli.resume.Kept.finish", lambda self: None)
            assert main(command.split()) == 0, command
        mark = json.loads(Path("kept.json").read_text())
        mark = {key: mark[key] for key in mark if key == "version" or isinstance(mark[key], str)}
        record = {"sample_id": 3, "decision": "accept", "label": 0, "suggested_label": 1}
        Path("decisions.json").write_text(json.dumps({**mark, "format": DECISIONS, "decisions": [record]}))
        line = read_mark(Path("decisions.json")).line()
        names, cells = ",".join(record), ",".join(map(str, record.values()))
        Path("decisions.csv").write_text(f"{names},{line}\n{cells},\n")
    return folder


def folder_bytes(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(made, monkeypatch):
    monkeypatch.chdir(made)
    before = set(made.iterdir())
    yield made
    for path in set(made.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_every_file_says_what_it_is_and_of_which_data(folder):
    known = load(folder / "scores").manifest
    for name, kind in FILES.items():
        mark = read_mark(folder / name)
        assert mark is not None and mark.kind == kind, name
        if kind != CHECKPOINT:
            assert mark.version == 1 and mark.lsi_version, name
            assert mark.dataset_fingerprint == known["source"]["fingerprint"], name
            assert (mark.fingerprint == known["data"]["fingerprint"]) == (kind != RECEIPT), name
            assert mark.run or kind == SENSITIVITY, name  # many runs
    assert len({read_mark(folder / name).run for name, kind in FILES.items() if kind != CHECKPOINT}) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_no_wrong_kind_is_ever_accepted(folder, command, capsys):
    words, taken = COMMANDS[command]
    before = folder_bytes(folder)
    for name, kind in FILES.items():
        is_right = kind in taken and name not in ("scores/manifest.json",)
        if command.startswith("apply --as") and name.endswith(".npy"):
            is_right = command.endswith("keep")
        code = main([name if word == "FILE" else word for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if is_right:
            assert code == 0, (name, err)
            for path in folder.glob("out*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            assert code == 2, (name, out, err)
            assert name.split("/")[0] in err or "scores.parquet" in err, err
        assert folder_bytes(folder) == before, name


LISTS = [name for name, kind in FILES.items() if kind in (SELECTION, DECISIONS, SUSPECTS)]


@pytest.mark.parametrize("name", LISTS)
def test_no_list_is_applied_to_other_data(folder, name, capsys):
    for words in ([], ["--as", "remove"], ["--as", "keep"], ["--new-classes"]):
        assert main(["apply", name, "other.npz", "-o", "out.npz", "--yes", *words]) == 2
        assert not list(folder.glob("out*"))
    capsys.readouterr()
    assert main(["apply", "scores", "other.npz", "-k", "0.95", "-o", "out.npz"]) == 2
    err = capsys.readouterr().err
    assert "'scores' speaks of other data than 'other.npz'" in err


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_a_list_that_lost_its_mark_is_taken_for_nothing(folder, suffix, capsys):
    import pandas as pd

    if suffix == "json":
        rows = json.loads(Path("suspects.json").read_text())["rows"]
        Path("out-list.json").write_text(json.dumps(rows))
    elif suffix == "csv":
        pd.read_csv("suspects.csv").iloc[:, :-1].to_csv("out-list.csv", index=False)
    else:
        frame = pd.read_parquet("suspects.parquet")
        frame.attrs = {}
        frame.to_parquet("out-list.parquet")
    words = ["apply", f"out-list.{suffix}", "data.npz", "-o", "out.npz", "--yes"]
    assert main(words) == 2
    assert "does not say what it is" in capsys.readouterr().err
    assert main([*words, "--as", "remove"]) == 0
    out, err = capsys.readouterr()
    assert "3 removed, 0 relabelled, 57 left" in out
    assert "matched to the dataset by ids and labels alone" in err


def test_one_file_of_two_kinds_is_not_merged_into_one_meaning(folder, capsys):
    for first, second in itertools.product(("suspects.csv", "report.html", "scores"), repeat=2):
        words = ["apply", first, "data.npz", "--decisions", second, "-o", "out.npz", "--yes"]
        assert main(words) == 2
        assert not list(folder.glob("out*"))
