"""Targets: folders of scores whose manifest or table was changed, and everything that is told from them."""

import hashlib
import io
import json

import numpy as np
import pandas as pd
from tests.fuzzing.engine import Target
from tests.fuzzing.mutate import mutate_json

import lsi
from lsi.analysis.compare import compare
from lsi.cli.display import machine_readable
from lsi.report.html import build_page
from lsi.report.summary import summarize

_N = 24
_COLUMNS = (
    lambda n: list(range(n)), lambda n: [-1] * n, lambda n: [0.5] * n, lambda n: [float("nan")] * n,
    lambda n: [float("inf")] * n, lambda n: ["x"] * n, lambda n: ["=1", "<b>", "\x1b[0m", None] * (n // 4),
    lambda n: [None] * n, lambda n: [True, False] * (n // 2), lambda n: [[1]] * n, lambda n: [{"a": 1}] * n,
    lambda n: [b"\xff"] * n, lambda n: pd.date_range("2020", periods=n), lambda n: [2**63 - 1] * n,
    lambda n: pd.Categorical(["a", "b"] * (n // 2)), lambda n: pd.array([1, None] * (n // 2), dtype="Int64"),
    lambda n: [0] * n, lambda n: [1e308] * n,
)  # fmt: skip


def _scores():
    generator = np.random.default_rng(0)
    y = np.repeat(["cat", "dog", "owl"], _N // 3)
    X = generator.normal(size=(_N, 3)) + (y[:, None] == np.array(["cat", "dog", "owl"]))
    return lsi.score(X, y, audit=3, label_noise=True, groups=np.array(list("abcd"))[np.arange(_N) % 4])


def result_targets(folder):
    """Return a target for the manifest and one for the table; files are written below `folder`."""
    good, place = _scores(), folder / "scores"
    manifest = dict(good.manifest)
    curve = {"mean": [0.5, 0.75], "low": [0.4, 0.7], "high": [0.6, 0.8]}
    manifest["curation"] = {
        "metric": "accuracy",
        "n_seeds": 2,
        "shares": [0.5, 1.0],
        "curves": {"LSI": curve},
    }
    manifest["source"] = {"kind": "file", "name": "x.npz", "path": "x.npz", "description": "", "options": {}}
    manifest["corruption"] = {"kind": "symmetric", "rate": 0.1, "seed": 0, "n_corrupted": 2}
    manifest["class_names"] = {"cat": "Katze"}
    table = good.to_frame().assign(corrupted=np.arange(_N) < 2, original_label="cat", redundancy_group=-1)
    whole = lsi.Scores(table, manifest, good.audit)
    whole.save(place)
    written = json.loads((place / "manifest.json").read_bytes())
    content = (place / "scores.parquet").read_bytes()

    def with_manifest(changed):
        (place / "scores.parquet").write_bytes(content)
        (place / "manifest.json").write_bytes(changed)
        tell(place, whole)

    def with_table(changed):
        described = {**written["table"], "sha256": hashlib.sha256(changed).hexdigest()}
        (place / "scores.parquet").write_bytes(changed)
        (place / "manifest.json").write_text(json.dumps({**written, "table": described}))
        tell(place, whole)

    yield Target("scores, manifest", [json.dumps(written).encode()], with_manifest, mutate_json)
    yield Target("scores, table", [content], with_table)

    def with_columns(changed):
        with_table(_changed_table(table, changed))

    yield Target("scores, columns", [b"\x40\x40", b"\x40\x40\x40\x40"], with_columns)

    def with_groups(changed):
        groups = _changed_table(
            pd.concat([whole.groups] * 3, ignore_index=True), changed
        )  # columns are of 12
        described = {**written["groups"], "rows": 12, "sha256": hashlib.sha256(groups).hexdigest()}
        (place / "groups.parquet").write_bytes(groups)
        (place / "scores.parquet").write_bytes(content)
        (place / "manifest.json").write_text(json.dumps({**written, "groups": described}))
        tell(place, whole)

    yield Target("scores, groups", [b"\x40\x40", b"\x40\x40\x40\x40"], with_groups)


def _changed_table(table, recipe):
    """Return a table as Parquet in which each pair of bytes replaces, drops or adds one column."""
    table = table.copy()
    for which, how in zip(recipe[0::2], recipe[1::2], strict=False):
        if how == 0x40:
            continue
        name = [*table.columns, "flip_gain", "lsi_std"][which % (len(table.columns) + 2)]
        if how % 20 == 19:
            table = table.drop(columns=name, errors="ignore")
        else:
            table[name] = _COLUMNS[how % len(_COLUMNS)](len(table))
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def tell(folder, other):
    """Ask scores for everything that they can tell."""
    scores = lsi.load(folder)
    repr(scores)
    asked = (
        lambda: scores.top(3),
        lambda: scores.class_summary(),
        lambda: scores.mislabeled(fdr=0.5),
        lambda: str(scores.label_noise),
        lambda: scores.select(0.5),
        lambda: scores.typicality(),
        lambda: scores.by_class(),
        lambda: scores.difficulty(n_bootstrap=20),
        lambda: json.dumps(compare(scores, other).to_dict(3)),
        lambda: json.dumps(machine_readable(summarize(scores), scores, {})),
        lambda: build_page(scores),
    )
    refused = None
    for ask in asked:
        try:
            ask()
        except lsi.errors.LsiError as error:
            refused = error
    if refused is not None:
        raise refused
