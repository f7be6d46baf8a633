"""The rows that the page's scripts work on, column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import is_missing
from lsi.data import Samples
from lsi.report.cards import CardMaker
from lsi.report.encode import pack, pack_ids, script_json
from lsi.report.faces import FACE_BYTES, choose_faces, face_budget, make_faces
from lsi.report.labels import class_namer, natural
from lsi.report.suspects import Suspects, find_suspects
from lsi.results.marks import DECISIONS, Mark
from lsi.results.table import ScoreTable

MOST_ROWS = 100_000
"""Most rows in the page; larger runs keep a fifth of it from each end and an even selection of the rest."""
_NUMBERS = (
    "lsi",
    "mean_term",
    "covariance_term",
    "loo_probability",
    "leverage",
    "relative_error",
    "loo_residual",
    "loo_z",
)


def page_data(
    scores: ScoreTable,
    samples: Samples | None = None,
    *,
    most_rows: int = MOST_ROWS,
    face_bytes: int = FACE_BYTES,
) -> dict[str, Any]:
    """Encode the rows of a run for the page's scripts, as JSON values.

    ``ids``, ``labels`` (values, and texts by code), ``columns``, ``faces`` (pictures, texts or features,
    where the samples are given), and what the run was, for the file of decisions. The page holds at most
    `most_rows` rows, and `face_bytes` characters of faces.
    """
    listed = scores.with_table(_listed(scores.to_frame(), most_rows))
    frame, name = listed.to_frame(), class_namer(scores, samples)
    columns, labels, suspects = _columns(listed, name)
    mark = Mark.of(scores.manifest, DECISIONS)
    data = {
        "version": 1,
        "task": scores.task,
        "fingerprint": (scores.manifest.get("data") or {}).get("fingerprint"),
        # What a file of decisions says about itself, as JSON fields and as the last cell of a CSV's header.
        "mark": {"fields": mark.fields(), "line": mark.line()},
        "n": len(frame),
        "nAll": len(scores),
        "ids": pack_ids(list(frame["sample_id"])),
        "labels": labels,
        "columns": {key: pack(values) for key, values in columns.items()},
    }
    codes = columns["label"] if scores.has_classes else None
    wanted = choose_faces(columns["lsi"], codes, suspects, columns.get("group"))
    make = CardMaker(listed, samples, name)
    rows, faces = make_faces(make, wanted, face_budget(len(script_json(data)), face_bytes))
    return data | {"faces": {"kind": make.kind, "rows": pack(np.array(rows, dtype=np.int64)), "items": faces}}


def _columns(
    scores: ScoreTable, name: Callable[[object], str]
) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    """Return all columns as numbers, the labels behind codes, and the suspected rows."""
    frame = scores.to_frame()
    columns = {key: frame[key].to_numpy(dtype=np.float64) for key in _NUMBERS if key in frame}
    found = find_suspects(frame) if scores.has_classes else None
    if found is not None:
        columns["wrong_probability"] = found.wrong_probability
    if "redundancy_group" in frame:
        columns["group"] = frame["redundancy_group"].fillna(-1).to_numpy(dtype=np.int64)
    if "corrupted" in frame:
        columns["planted"] = frame["corrupted"].to_numpy(dtype=bool)
    suspects = np.zeros(0, dtype=np.int64) if found is None else found.rows
    if scores.task == "regression" and pd.api.types.is_numeric_dtype(frame["label"]):
        targets = {"label": _real(frame["label"]), "prediction": _real(frame["loo_prediction"])}
        return columns | targets, {"values": [], "texts": [], "order": []}, suspects
    labels, coded = _labels(frame, name, found)
    return columns | coded, labels, suspects


def _labels(
    frame: pd.DataFrame, name: Callable[[object], str], found: Suspects | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return every label once, and the columns of codes into them (−1: none)."""
    sources = {"label": frame["label"], "prediction": frame["loo_prediction"]}
    if found is not None:
        sources["suggested"] = pd.Series(found.suggested, dtype=object)
    if "original_label" in frame:
        sources["original"] = frame["original_label"]
    codes: dict[Any, int] = {}
    coded = {key: _encode(column, codes) for key, column in sources.items()}
    texts = [name(label) for label in codes]
    given = [int(code) for code in np.unique(coded["label"]) if code >= 0]
    return {
        # Only decisions about classes go into a file, so only they need the labels themselves.
        "values": [_json_value(label) for label in codes] if found is not None else [],
        "texts": texts,
        "order": sorted(given, key=lambda code: natural(texts[code])),
    }, coded


def _encode(column: pd.Series, codes: dict[Any, int]) -> np.ndarray:
    """Return a column as codes, adding new labels to `codes`; 3 and 3.0 are the same label."""
    found = (
        -1 if is_missing(label) else codes.setdefault(label, len(codes)) for label in column.astype(object)
    )
    return np.fromiter(found, dtype=np.int64, count=len(column))


def _real(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)


def _json_value(label: Any) -> bool | int | str:
    """Return a label whose text in a file of decisions is the one Python gives it: 1.0 stays 1.0."""
    value = label.item() if isinstance(label, np.generic) else label
    return value if isinstance(value, bool | int | str) else str(value)


def _listed(frame: pd.DataFrame, most_rows: int) -> pd.DataFrame:
    """Return the rows that fit into a page, in the order of the table."""
    frame = frame[np.isfinite(frame["lsi"])].reset_index(drop=True)
    n, k = len(frame), most_rows // 5
    if n <= most_rows:
        return frame
    order = np.argsort(-frame["lsi"].to_numpy(), kind="stable")
    ends, rest = np.concatenate([order[:k], order[n - k :]]), order[k : n - k]
    even = np.linspace(0, len(rest) - 1, most_rows - len(ends)).astype(np.int64)
    return frame.iloc[np.unique(np.concatenate([ends, rest[even]]))].reset_index(drop=True)


def describes(data: Mapping[str, Any]) -> str:
    """Say what the page's rows leave out."""
    if data["n"] == data["nAll"]:
        return ""
    return (
        f"To keep the page small it lists {data['n']:,} of {data['nAll']:,} samples: both ends of the "
        "distribution and an even selection between them."
    )
