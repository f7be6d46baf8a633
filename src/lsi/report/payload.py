"""The rows that the page's scripts work on: every scored sample, column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsi.data import Samples
from lsi.report.cards import CardMaker
from lsi.report.encode import pack, pack_ids, script_json
from lsi.report.faces import choose_faces, face_budget, make_faces
from lsi.report.labels import class_namer, has_classes, is_missing, natural, task_of
from lsi.report.suspects import Suspects, find_suspects

if TYPE_CHECKING:
    from lsi.scores import Scores

MOST_ROWS = 100_000
"""Most rows in the page; larger runs keep both ends and an even selection of the rest."""
_KEPT_ENDS = 20_000
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


def page_data(scores: Scores, samples: Samples | None = None) -> dict[str, Any]:
    """Encode the rows of a run for the page's scripts.

    Args:
        scores: The result of a run.
        samples: The data that were scored, for pictures, texts or features. Optional.

    Returns:
        JSON values: ``ids``, ``labels`` (values and texts by code), ``columns``, ``faces``, and what the run
        was, for the file of decisions.
    """
    manifest, frame = scores.manifest, _listed(scores.to_frame())
    name = class_namer(manifest, samples)
    columns, labels, suspects = _columns(frame, manifest, name)
    data = {
        "version": 1,
        "task": task_of(manifest),
        "fingerprint": manifest.get("data", {}).get("fingerprint"),
        "n": len(frame),
        "nAll": len(scores),
        "ids": pack_ids(list(frame["sample_id"])),
        "labels": labels,
        "columns": {key: pack(values) for key, values in columns.items()},
    }
    codes = columns["label"] if has_classes(manifest) else None
    wanted = choose_faces(columns["lsi"], codes, suspects, columns.get("group"))
    make = CardMaker(frame, samples, name)
    rows, faces = make_faces(make, wanted, face_budget(len(script_json(data))))
    return data | {"faces": {"kind": make.kind, "rows": pack(np.array(rows, dtype=np.int64)), "items": faces}}


def _columns(
    frame: pd.DataFrame, manifest: Mapping[str, Any], name: Callable[[object], str]
) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    """Return all columns as numbers, the labels behind codes, and the suspected rows."""
    columns = {key: frame[key].to_numpy(dtype=np.float64) for key in _NUMBERS if key in frame}
    found = find_suspects(frame) if has_classes(manifest) else None
    if found is not None:
        columns["wrong_probability"] = found.wrong_probability
    if "redundancy_group" in frame:
        columns["group"] = frame["redundancy_group"].fillna(-1).to_numpy(dtype=np.int64)
    if "corrupted" in frame:
        columns["planted"] = frame["corrupted"].to_numpy(dtype=bool)
    suspects = np.zeros(0, dtype=np.int64) if found is None else found.rows
    if task_of(manifest) == "regression" and pd.api.types.is_numeric_dtype(frame["label"]):
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
    """Return a column as codes; labels that are new to `codes` get the next one. 3 and 3.0 are one label."""
    found = (
        -1 if is_missing(label) else codes.setdefault(label, len(codes)) for label in column.astype(object)
    )
    return np.fromiter(found, dtype=np.int64, count=len(column))


def _real(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)


def _json_value(label: Any) -> bool | int | str:
    """Return a label such that its text in a file of decisions is that of Python: 1.0 stays 1.0."""
    value = label.item() if isinstance(label, np.generic) else label
    return value if isinstance(value, bool | int | str) else str(value)


def _listed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that fit into a page, in the order of the table."""
    frame = frame[np.isfinite(frame["lsi"])].reset_index(drop=True)
    n = len(frame)
    if n <= MOST_ROWS:
        return frame
    order = np.argsort(-frame["lsi"].to_numpy(), kind="stable")
    ends = np.concatenate([order[:_KEPT_ENDS], order[n - _KEPT_ENDS :]])
    rest = order[_KEPT_ENDS : n - _KEPT_ENDS]
    even = np.linspace(0, len(rest) - 1, MOST_ROWS - len(ends)).astype(np.int64)
    return frame.iloc[np.unique(np.concatenate([ends, rest[even]]))].reset_index(drop=True)


def describes(data: Mapping[str, Any]) -> str:
    """Say what the page's rows leave out."""
    if data["n"] == data["nAll"]:
        return ""
    return (
        f"To keep the page small it lists {data['n']:,} of {data['nAll']:,} samples: both ends of the "
        "distribution and an even selection between them."
    )
