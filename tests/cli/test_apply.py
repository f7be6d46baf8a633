"""`lsi apply`: plan, question, receipt, undo; and the whole round from scores to scores."""

import io
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lsi.cli import main
from lsi.data import load_samples
from lsi.scores import load

N = 50


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three classes with two wrong labels, as a .npz, in the current folder."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(1)
    y = np.arange(N) % 3
    X = 4 * np.eye(3, 5)[y] + generator.normal(size=(N, 5))
    y[[4, 11]] = (y[[4, 11]] + 1) % 3
    np.savez("data.npz", X=X, y=y)
    return tmp_path


def run(capsys, line):
    code = main(shlex.split(line))
    out, err = capsys.readouterr()
    return code, out, err


def decisions(records, name="d.json", **more):
    found = load_samples(Path("data.npz")).fingerprint()
    content = {"format": "lsi-decisions", "version": 1, "dataset_fingerprint": found, "decisions": records}
    Path(name).write_text(json.dumps(content | more))


def removals(count):
    return [{"sample_id": k, "decision": "remove"} for k in range(count)]


def next_of(out):
    """Return the command lines that a command named."""
    marks = ("Next: lsi ", "Then: lsi ")
    return [line[len(marks[0]) :] for line in out.splitlines() if line.startswith(marks)]


def test_the_whole_round_by_the_commands_that_are_named(folder, capsys):
    code, out, _ = run(capsys, "compute --dataset data.npz --no-audit --output scores")
    assert code == 0
    assert next_of(out) == ["mislabeled scores -o suspects.csv"]
    code, out, _ = run(capsys, f"{next_of(out)[0]} --top 4")
    assert code == 0
    frame = pd.read_csv("suspects.csv")
    assert set(frame["sample_id"][:2]) == {4, 11}
    command = next_of(out)[0]
    assert command == "apply suspects.csv data.npz -o data-cleaned.npz"
    code, _, err = run(capsys, command)
    assert code == 2
    assert "which labels to look at, not what to keep" in err
    frame["decision"] = frame["decision"].astype(object)
    frame.loc[:2, "decision"] = ["accept", "remove", "reject"]  # reviewed, and the last left undecided
    frame.to_csv("suspects.csv", index=False)
    before = Path("data.npz").read_bytes()
    code, out, err = run(capsys, command)
    assert (code, err) == (0, "")
    assert "50 samples: 1 removed, 1 relabelled, 49 left." in out
    assert Path("data.npz").read_bytes() == before
    again, compare = next_of(out)
    assert (again, compare) == (
        "compute --dataset data-cleaned.npz --no-audit --output scores-cleaned",
        "compare scores scores-cleaned",
    )  # fmt: skip
    assert main([*shlex.split(again), "-q"]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, compare)
    assert code == 0
    assert "0 added, 1 removed, 1 relabelled" in out
    assert run(capsys, "apply --undo data-cleaned.npz.receipt -o back.npz")[0] == 0
    with np.load("data.npz") as one, np.load("back.npz") as other:
        assert one.files == other.files
        assert all(one[name].tobytes() == other[name].tobytes() for name in one.files)


def test_columns_are_read_as_when_the_data_were_scored(folder, capsys):
    with np.load("data.npz") as found:
        frame = (
            pd.DataFrame(found["X"])
            .rename(columns=str)
            .assign(name=list(map(str, range(N))), kind=found["y"])
        )
    frame.to_csv("t.csv", index=False)
    words = "--dataset t.csv --label-column kind --id-column name --no-audit"
    assert run(capsys, f"compute {words} --output scores")[0] == 0
    code, out, _ = run(capsys, "select scores --keep 0.96 -o kept.csv")
    code, out, err = run(capsys, next_of(out)[0])
    assert (code, err) == (0, "")
    assert next_of(out)[0].startswith("compute --dataset t-cleaned.csv --label-column kind --id-column name")
    code, _, err = run(capsys, "apply kept.csv t.csv -o x.csv --id-column kind")
    assert code == 2


def test_the_plan_counts_every_class(folder, capsys):
    labels = np.load("data.npz")["y"]
    rows = np.flatnonzero(labels == 0)[:3].tolist()
    relabelled = {
        "sample_id": int(np.flatnonzero(labels == 1)[0]),
        "decision": "accept",
        "suggested_label": 2,
    }
    decisions([relabelled, *({"sample_id": row, "decision": "remove"} for row in rows)])
    code, out, _ = run(capsys, "apply d.json data.npz --dry-run")
    assert code == 0
    figures = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line[:1].isdigit()}
    counts = np.bincount(labels)
    expected = {
        0: (counts[0], 3, 0, 0, counts[0] - 3),
        1: (counts[1], 0, 1, 0, counts[1] - 1),
        2: (counts[2], 0, 0, 1, counts[2] + 1),
    }
    for label, row in expected.items():
        assert figures[str(label)] == list(map(str, row))
    assert "Plan, nothing is written: 50 samples: 3 removed, 1 relabelled, 47 left." in out
    assert sorted(path.name for path in folder.iterdir()) == ["d.json", "data.npz"]
    assert run(capsys, "apply d.json data.npz --dry-run -o c.npz")[0] == 0
    assert not Path("c.npz").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("count", [5, 6])
def test_more_than_a_tenth_is_asked_about(folder, capsys, count):
    decisions(removals(count))
    code, out, err = run(capsys, "apply d.json data.npz -o c.npz")
    assert (code == 0) == (count == 5) == Path("c.npz").exists()
    if count == 6:
        assert "6 of 50 rows (12.0 %) would be removed, more than a tenth" in err
        assert "Plan" in out
        assert not Path("c.npz.receipt").exists()
        assert run(capsys, "apply d.json data.npz -o c.npz --yes")[0] == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_on_a_terminal_the_answer_decides(folder, monkeypatch, answer, code):
    decisions(removals(20))
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stdout", Terminal())
    assert main(shlex.split("apply d.json data.npz -o c.npz")) == code
    assert Path("c.npz").exists() == (code == 0)


@pytest.mark.parametrize(
    ("records", "more", "message"),
    [
        ([{"sample_id": 1, "decision": "remove"}], {"dataset_fingerprint": "0" * 64}, "speaks of other data"),
        (
            [{"sample_id": 1, "decision": "remove"}],
            {"dataset_fingerprint": None, "fingerprint": "0" * 64},
            "speaks of other data",
        ),
        ([{"sample_id": 1, "decision": "remove"}], {"dataset_fingerprint": None}, "does not say which data"),
        ([{"sample_id": 1, "decision": "accept", "suggested_label": 99999}], {}, "is not a class"),
        (
            [
                {"sample_id": 1, "decision": "accept", "suggested_label": 2},
                {"sample_id": 1, "decision": "reject", "suggested_label": 2},
            ],
            {},
            "rows 1 and 2 contradict each other about the sample '1': accept '2', and reject",
        ),
    ],
)
def test_decisions_that_are_refused(folder, capsys, records, more, message):
    decisions(records, **more)
    code, _, err = run(capsys, "apply d.json data.npz -o c.npz --yes")
    assert code == 2
    assert message in err
    assert not Path("c.npz").exists()


def test_the_fingerprint_of_scores_made_in_python_is_looked_for_in_the_data(folder, capsys):
    import lsi

    with np.load("data.npz") as found:
        lsi.score(found["X"], found["y"], audit=False).save("scores")
    assert load("scores").manifest.get("source") is None
    assert run(capsys, "select scores --keep 0.95 -o kept.csv")[0] == 0
    assert run(capsys, "apply kept.csv data.npz -o c.npz")[0] == 0
    with np.load("data.npz") as found:
        np.savez("moved.npz", X=found["X"] + 1e-9, y=found["y"])
    code, _, err = run(capsys, "apply kept.csv moved.npz -o m.npz")
    assert code == 2
    assert "'kept.csv' speaks of other data than 'moved.npz'" in err
    assert run(capsys, "apply kept.csv moved.npz -o m.npz --ids-only")[0] == 0


def test_positions_in_a_part_of_the_data_are_no_rows_of_it(folder, capsys):
    words = "compute --dataset data.npz --active-classes 1 2 --no-audit -q --output scores"
    assert run(capsys, words)[0] == 0
    for suffix, code in (("npy", 2), ("csv", 0)):
        assert run(capsys, f"select scores --keep 0.9 -o kept.{suffix}")[0] == 0
        assert run(capsys, f"apply kept.{suffix} data.npz -o {suffix}.npz --yes")[0] == code


@pytest.mark.parametrize("place", ["report.html", "data.npz", "images/1.png"])
def test_no_page_takes_the_place_of_data(folder, capsys, place):
    Path("images").mkdir()
    Path("images/1.png").write_bytes(b"picture")
    Path("report.html").symlink_to("data.npz")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = f"--no-audit -q --report {place} --overwrite"
    assert run(capsys, f"compute --dataset data.npz {words}")[0] == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert Path("report.html").is_symlink()
    assert run(capsys, "compute --dataset data.npz --no-audit -q --output scores")[0] == 0
    assert run(capsys, f"report scores -o {place} --overwrite")[0] == 2
    assert {path: path.read_bytes() for path in before} == before


def test_no_command_writes_into_what_it_reads(folder, capsys):
    os.link("data.npz", "hard.npz")
    decisions(removals(1))
    run(capsys, "compute --dataset data.npz --no-audit -q --output scores --shard 1/1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for line in (
        "apply d.json data.npz -o hard.npz",
        "apply d.json data.npz -o ./d.json",
        "apply scores data.npz -k 40 -o scores",
        "select scores -k 5 -o scores/kept.csv",
        "mislabeled scores -o scores/s.csv",
        "report scores -o scores/r.html",
        "report scores -o hard.npz --overwrite",
        "merge scores --output scores --overwrite",
        "merge scores --report scores/r.html",
        "sensitivity --dataset data.npz -o hard.npz --overwrite",
        "compute --dataset data.npz --report hard.npz --overwrite",
        "compute --dataset data.npz --output new --report new/r.html",
        "compute --dataset data.npz --labels d.json --report d.json --overwrite",
    ):
        assert run(capsys, line)[0] == 2, line
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, line


def test_a_link_out_of_the_folder_is_never_copied(folder, capsys):
    from lsi.data import SourceOptions
    from lsi.data.writers.dataset import Changes, write_cleaned
    from lsi.errors import InputError

    for k in range(6):
        place = Path("images") / "ab"[k % 2] / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), k, np.uint8)).save(place)
    Path("secret.png").write_bytes(b"secret")
    samples = load_samples(Path("images"))
    Path("images/a/0.png").unlink()
    Path("images/a/0.png").symlink_to(folder / "secret.png")
    Path("images/a/2.png").unlink()
    Path("images/a/2.png").symlink_to("4.png")  # stays inside
    for link in (False, True):
        with pytest.raises(InputError, match="outside of the dataset"):
            write_cleaned(samples, Changes(np.ones(6, bool), {}), Path("out"), SourceOptions(), link)
        assert not Path("out").exists()
    write_cleaned(samples, Changes(np.arange(6) > 0, {}), Path("out"), SourceOptions())
    assert not Path("out/a/2.png").is_symlink()
    assert Path("out/a/2.png").read_bytes() == Path("images/a/4.png").read_bytes()
    assert b"secret" not in b"".join(path.read_bytes() for path in Path("out").rglob("*.png"))


def test_two_datasets_of_row_numbers_are_not_compared_by_guess(folder, capsys):
    with np.load("data.npz") as found:
        np.savez("other.npz", X=found["X"][::-1] + 1, y=found["y"][::-1])
    for name in ("data", "other"):
        assert run(capsys, f"compute --dataset {name}.npz --no-audit -q --output {name}-scores")[0] == 0
    code, _, err = run(capsys, "compare data-scores other-scores")
    assert code == 2
    assert "'data-scores' and 'other-scores' are of two different datasets" in err
    assert run(capsys, "compare data-scores other-scores --by-row")[0] == 0
    assert run(capsys, "compare data-scores data-scores")[0] == 0


def test_a_report_of_another_dataset_is_refused(folder, capsys):
    with np.load("data.npz") as found:
        np.savez("other.npz", X=found["X"] + 1, y=found["y"])
    assert run(capsys, "compute --dataset data.npz --no-audit -q --output scores")[0] == 0
    code, _, err = run(capsys, "report scores --dataset other.npz")
    assert code == 2
    assert "is not the dataset that was scored" in err
    assert run(capsys, "report scores --dataset data.npz")[0] == 0
