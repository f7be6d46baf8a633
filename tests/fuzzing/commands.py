"""Targets: the command line, in this process, with arguments that people type and ones that they do not."""

import contextlib
import io
import json
import os
import shutil

import numpy as np
from tests.fuzzing.engine import Lost, Target
from tests.fuzzing.loaders import CSV, JSONL, TARGETS_CSV, TEXTS, image_bytes, npy_bytes, npz_bytes, zip_bytes

import lsi
from lsi.cli import app as cli
from lsi.errors import LsiError

_NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "0.5",
    "1e-300",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 30,
    "0x10",
    "",
    "x",
)
_TEXTS = (
    "", " ", "x", "0", "-", "--", "=", "a=b", "../..", "/", "/dev/null", "\x1b[31m", "\u202e", "\x00",
    "\udcff", "ü", "a" * 300, "*", "%s", "{}", "digits", "hf:x", "nan", "None", "[]", "'", '"',
)  # fmt: skip
_WORDS = {
    "--posterior": ("diag", "kron", "full", "kfac", "none"),
    "--method": ("newton", "retrain", "x"),
    "--task": ("classification", "binary", "multilabel", "regression", "x"),
    "--probe": ("linear", "mlp", "x"),
    "--optimizer": ("sgd", "adam", "sam", "dp-sgd"),
    "--schedule": ("constant", "cosine", "step", "exponential"),
    "--order": ("useful", "largest", "random", "largest=0.5,smallest=0.5", "largest=x", "="),
    "--keep": ("0.5", "50%", "3", "0", "-1", "1e9", "%", "nan%", "inf"),
    "--drop-mislabeled": ("all", "none", "2", "0.1", "x"),
    "--subset": ("3", "0,1", "0:3", "3:0", "-1", "0,0", "99", ":", "1:2:3", "x", "9" * 30),
    "--corrupt-kind": ("symmetric", "pairwise", "x"),
    "--human-label-noise": ("aggregate", "worst", "True", "x"),
    "--split": ("train", "test", "x"),
    "--label-column": ("label", "y", "x", "none"),
    "--id-column": ("id", "ids", "x"),
    "--group-column": ("id", "label", "y", "x"),
    "--validation": ("good.npz", "scores", "pipe", "x"),
    "--text-column": ("text", "x"),
    "--image-column": ("image", "x"),
    "--augment": ("crop", "flip", "grey"),
    "--device": ("cpu", "cuda", "meta", "mps", "x", ""),
    "--encoder": (
        "raw", "raw", "/nowhere", ".", "net", "pipe", "good.npz", "gone.onnx", "resnet18:pipe.pt", "a:b", ":",
    ),
    "--labels": ("pipe", "good_labels.npy", "x.txt"),
    "--report": ("report.html", "out.html", "good.npz", "scores", "linked.npz", "pipe"),
    "--activation": ("relu", "tanh", "x"),
    "--posterior-layers": ("all", "last"),
    "--pooling": ("mean", "x"),
    "--precision": ("float32", "x"),
    "--as": ("keep", "remove", "relabel", "decisions", "x"),
    "--undo": ("clean.npz.receipt", "clean.npz.receipt/receipt.json", "kept.json", "scores"),
    "--memory": ("1GiB", "4GiB", "0", "-1", "x", "1e99GiB"),
}  # fmt: skip
_COMPUTE = (
    "--label-column", "--id-column", "--group-column", "--text-column", "--image-column", "--standardise",
    "--skip-broken", "--active-classes", "--first", "--subset", "--range1", "--range2", "--encoder",
    "--pooling",
    "--precision", "--batch-size", "--corrupt-label", "--corrupt-kind", "--transition", "--corrupt-data",
    "--corrupt-data-label", "--human-label-noise", "--human-labels", "--corrupt-seed", "--task",
    "--noise-precision", "--probe", "--activation", "--posterior-layers", "--weight-decay",
    "--no-intercept", "--posterior", "--prior-precision", "--mismatch", "--dim", "--temperature", "--pull",
    "--pair-batch", "--augment", "--method", "--tol", "--lr", "--momentum", "--optimizer", "--rho",
    "--noise-multiplier", "--max-grad-norm", "--schedule", "--train-batch-size", "--record-every",
    "--num-batches", "--audit", "--no-audit", "--label-noise", "--no-label-noise", "--seed", "--json",
    "--quiet", "--redundancy", "--device", "--labels", "--label-columns", "--feature-columns", "--split",
    "--data-dir", "--clean-label-column", "--output", "--overwrite", "--report", "--skip-broken", "--encoder",
)  # fmt: skip
_OPTIONS = {
    "compute": _COMPUTE, "sensitivity": (*_COMPUTE[:40], "--prior-precisions", "--weight-decays",
    "--threshold", "--rows", "--json"), "plan": ("--n-samples", "--n-features", "--n-classes", "--n-scored",
    "--posterior", "--memory", "--json"), "show": ("--rows", "-n", "--json"), "report": ("--output",
    "--dataset", "--validation", "--overwrite"), "mislabeled": ("--fdr", "--top", "--output", "--json"),
    "select": ("--keep", "--order", "--balanced", "--no-balanced", "--proportional", "--drop-mislabeled",
    "--drop-redundant", "--seed", "--output", "--json"), "apply": ("--output", "--decisions", "--keep",
    "--drop-mislabeled", "--id-column", "--label-column", "--link", "--as", "--dry-run", "--yes", "--undo",
    "--ids-only", "--new-classes", "--no-receipt"), "compare": ("--min-rank-correlation", "--rows",
    "--by-row", "--json"), "difficulty": ("--json",), "doctor": ("--json",), "cache": ("ls", "rm", "--all",
    "--incomplete", "--json"),
}  # fmt: skip
_FLAGS = {
    "--standardise", "--skip-broken", "--no-intercept", "--no-audit", "--label-noise", "--no-label-noise",
    "--json", "--quiet", "--redundancy", "--overwrite", "--balanced", "--no-balanced", "--proportional",
    "--drop-redundant", "--link", "--all", "--incomplete", "ls", "rm", "--dry-run", "--yes", "--ids-only",
    "--new-classes", "--no-receipt", "--by-row",
}  # fmt: skip
_WHOLE = {
    "--first", "--range1", "--range2", "--batch-size", "--corrupt-seed", "--dim", "--pair-batch",
    "--train-batch-size", "--record-every", "--num-batches", "--audit", "--seed", "--rows", "-n", "--top",
    "--n-samples", "--n-features", "--n-classes", "--n-scored",
}  # fmt: skip
_TRAINED = {
    "retrain", "mlp", "--activation", "--posterior-layers", "--lr", "--momentum", "--optimizer", "--rho",
    "--noise-multiplier", "--max-grad-norm", "--schedule", "--train-batch-size", "--record-every",
}  # fmt: skip
_ARITY = {
    "show": 1,
    "report": 1,
    "mislabeled": 1,
    "select": 1,
    "apply": 2,
    "compare": 2,
    "difficulty": 2,
    "doctor": 1,
}


_RARER = {"sensitivity": 0.3, "report": 0.4}  # several runs, or a whole page


class Unclear(Exception):
    """The command line ended in an error that it has no name for."""


def command_targets(folder):
    """Return the target whose input is a seed of arguments; files lie in `folder`, which becomes current."""
    files = _files(folder)
    seeds = [f"{command} {k}".encode() for command in _OPTIONS for k in range(3)]

    def use(content):
        words = arguments(content, files, folder)
        before = _state(folder, words)
        try:
            run(words, folder)
        finally:
            _check_kept(folder, before, words)

    yield Target("command line", [b"--version", *seeds], use, _other_seed, (SystemExit,))


def _state(folder, words):
    """Return what identifies the content of the files that a command may only read."""
    kept = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith("out")]
    if "--overwrite" in words:  # what is named to be replaced may go, unless it is read as well
        named = {word.partition("=")[2] or word for word in words}
        outputs = {words[k + 1] for k, word in enumerate(words[:-1]) if word in ("--output", "--report")}
        inputs = [os.path.realpath(folder / word) for word in named - outputs if "\0" not in word]
        gone = {os.path.realpath(folder / word) for word in outputs if "\0" not in word} - set(inputs)
        kept = [path for path in kept if os.path.realpath(path) not in gone]
    else:
        kept += [path for name in ("scores", "other") for path in (folder / name).iterdir()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in kept}


def _check_kept(folder, before, words):
    """Raise where a file is gone or has changed, after putting everything back."""
    after = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in before if path.is_file()}
    lost = [path.name for path in before if after.get(path) != before[path]]
    if lost or not all((folder / name / "manifest.json").is_file() for name in ("scores", "other")):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        _files(folder)
        raise Lost(f"{lost} after {words}")


def _other_seed(random, content, others):
    weights = [_RARER.get(command, 1.0) for command in _OPTIONS]
    return f"{random.choices(list(_OPTIONS), weights)[0]} {random.getrandbits(60)}".encode()


def _files(folder):
    """Write a few small datasets and scores, and return their names."""
    rng = np.random.default_rng(0)
    y = np.arange(18) % 3
    X = rng.normal(size=(18, 3)) + np.eye(3)[y]
    contents = {
        "good.npz": npz_bytes(X=X, y=y), "named.npz": npz_bytes(X=X, y=np.array(list("abc"))[y],
        ids=np.arange(18)), "values.npz": npz_bytes(X=X, y=X[:, 0] * 1.5), "multi.npz": npz_bytes(X=X,
        y=np.eye(3, dtype=int)[y]), "pairs.npz": npz_bytes(left=X, right=X), "empty.npz": npz_bytes(X=X[:0],
        y=y[:0]), "broken.npz": b"PK\x03\x04", "nan.npz": npz_bytes(X=X * np.nan, y=y),
        "one.npz": npz_bytes(X=X, y=y * 0), "good.npy": npy_bytes(X), "good_labels.npy": npy_bytes(y),
        "t.csv": CSV, "targets.csv": TARGETS_CSV, "rows.jsonl": JSONL, "texts.jsonl": TEXTS,
        "matrix.csv": b"0.8,0.1,0.1\n0.1,0.8,0.1\n0.1,0.1,0.8\n", "x.txt": b"0\n1\n", "x.json": b"{}",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    hostile = _hostile(folder)
    lsi.score(X, y, audit=2).save(folder / "scores")
    lsi.score(X, y, audit=False, posterior="kron").save(folder / "other")
    (folder / "bare").mkdir()
    kept = {"format": "lsi-selection", "version": 1, "kept": [0, 1, 2, 3, 4], "positions": [0, 1, 2, 3, 4]}
    (folder / "kept.json").write_text(json.dumps(kept))
    places = ("scores", "other", "bare", "kept.json", "missing.npz", "wine", "scores/scores.parquet")
    return [*contents, *hostile, *places, *_own_files(folder)]


def _hostile(folder):
    """Add what is no file, leaves its folder, fills the memory, or has a name that is no text."""
    if not hasattr(os, "mkfifo"):
        return []
    for name in ("pipe.npz", "pipe.csv", "pipe"):
        os.mkfifo(folder / name)
    (folder / "zero.csv").symlink_to("/dev/zero")
    (folder / "linked.npz").symlink_to("good.npz")
    zeros = npz_bytes(X=np.zeros((1, 1)), y=np.zeros(1))
    rows = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000,), }"
    ).ljust(127)
    members = {"X.npy": npy_bytes(np.zeros((6, 3))), "y.npy": rows + b"\n"}
    (folder / "bomb.npz").write_bytes(zip_bytes(members))
    (folder / "alone.npz").write_bytes(zeros)
    for place in ("photos", "caf\udce9", "away"):
        for k, label in enumerate(("a", "b\udcff" if place != "photos" else "b")):
            (folder / place / label).mkdir(parents=True)
            for n in range(4):
                (folder / place / label / f"{n}.png").write_bytes(image_bytes("PNG", side=3 + (k + n) % 1))
    (folder / "away" / "a" / "out.png").symlink_to("/etc/hostname")
    (folder / "net").mkdir()
    (folder / "net" / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModel": "evil.M"}}')
    (folder / "net" / "model.safetensors").write_bytes(b"")
    names = "pipe.npz pipe.csv pipe zero.csv linked.npz bomb.npz alone.npz photos photos caf\udce9 away net"
    return names.split()


def _own_files(folder):
    """Write what lsi itself writes about the first scores, and return the names."""
    scores, data = str(folder / "scores"), str(folder / "good.npz")
    words = [
        ["select", scores, "--keep", "15", "--output", str(folder / "kept.csv")],
        ["select", scores, "--keep", "15", "--output", str(folder / "kept.npy")],
        ["mislabeled", scores, "--output", str(folder / "suspects.parquet")],
        ["apply", str(folder / "kept.csv"), data, "--output", str(folder / "clean.npz"), "--yes"],
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        assert [cli.main(line) for line in words] == [0] * len(words)
    return ["kept.csv", "kept.npy", "suspects.parquet", "clean.npz", "clean.npz.receipt"]


def arguments(content, files, folder):
    """Return the arguments that a seed stands for."""
    import random

    command, _, seed = content.decode(errors="replace").partition(" ")
    if not seed:
        return [command]
    draw = random.Random(seed)
    words = [command] if draw.random() < 0.98 else [draw.choice(_TEXTS)]
    options = _OPTIONS.get(command, _COMPUTE)
    if command in ("compute", "sensitivity"):
        words += ["--dataset", draw.choice(files)] if draw.random() < 0.97 else []
        words += ["--quiet"] if draw.random() < 0.7 else []
    elif command == "plan":
        words += [draw.choice(files)] if draw.random() < 0.4 else []
    elif command == "cache":
        words += [draw.choice(("ls", "rm", "x")), "--cache-dir", str(folder / "cache")]
    else:
        likely = ["scores"] * 8 + ["other"] * 4 + ["kept.json"] * (4 if command == "apply" else 0) + files
        arity = _ARITY[command] if draw.random() < 0.95 else draw.randrange(4)
        words += [draw.choice(likely) for _ in range(arity)]
        if command == "apply" and draw.random() < 0.9:
            words[-1] = draw.choice(("good.npz", "good.npy", "t.csv", "rows.jsonl", *files))
            words += ["--output", draw.choice(("out.npz", "out.npy", "out.csv", "out.jsonl"))]
    several = min(len(options), draw.choice((0, 1, 1, 2, 3, 5)))
    chosen = draw.sample(options, several) if draw.random() < 0.95 else draw.choices(options, k=several)
    for name in chosen:
        words += _option(draw, name, files)
    if _TRAINED & {
        word.partition("=")[0] for word in words
    }:  # in full, training takes longer than a case may
        words += ["--epochs", "2"]
    if draw.random() < 0.03:
        words.insert(draw.randrange(len(words) + 1), draw.choice(_TEXTS))
    return words


def _option(draw, name, files):
    if name in _FLAGS:
        return [name]
    pool = _WORDS.get(name)
    if name == "--output":
        return [
            name,
            draw.choice(("out.csv", "out.json", "out.npz", "out.txt", "out", "report.html", *files, *_TEXTS)),
        ]
    if pool and draw.random() < 0.85:
        value = draw.choice(pool)
    elif name in _WHOLE and draw.random() < 0.7:
        value = draw.choice(("0", "1", "2", "3", "5", "18", "19", "-1"))
    elif draw.random() < 0.5:
        value = draw.choice(_NUMBERS)
    else:
        value = draw.choice((*_TEXTS, *files))
    return [name, value] if draw.random() < 0.9 else [f"{name}={value}"]


def run(words, folder):
    """Run the command line as its entry point does; an error that it has no name for is raised."""
    told = []
    before, place, ending = cli._tell, os.getcwd(), io.StringIO()
    os.environ["HF_HUB_OFFLINE"] = "1"

    def tell(error, debug, tokens):
        told.append(error)
        return before(error, debug, tokens)

    cli._tell = tell
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(ending):
            code = cli.main(words)
    finally:
        cli._tell = before
        os.chdir(place)
        _tidy(folder)
    if told and not isinstance(told[0], (LsiError, cli.CycloptsError)):
        raise told[0]
    if told:
        raise LsiError(str(told[0]))
    if code != 0:
        raise Unclear(f"exit code {code} without an error: {words}")


def _tidy(folder):
    """Remove what a command wrote at names that are not among the inputs."""
    for name in (*(f"out{suffix}" for suffix in _WRITTEN), "out_labels.npy", "report.html"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        (folder / name).unlink(missing_ok=True)
    for receipt in folder.glob("out*.receipt"):
        shutil.rmtree(receipt)


_WRITTEN = ("", ".csv", ".json", ".npz", ".npy", ".jsonl", ".txt", ".html", ".undo.json", ".unfinished")
