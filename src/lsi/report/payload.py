"""The rows that the page's scripts work on: every scored sample, column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsi.data import Samples
from lsi.report.cards import CardMaker
from lsi.report.encode import pack, pack_ids
from lsi.report.faces import choose_faces, make_faces
from lsi.report.labels import class_namer, has_classes, is_missing, natural, task_of
from lsi.report.suspects import find_suspects

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
    manifest, frame = scores.manifest, scores.to_frame()
    frame = frame[np.isfinite(frame["lsi"])].reset_index(drop=True)
    frame = frame.iloc[_kept_rows(frame)].reset_index(drop=True)
    name = class_namer(manifest, samples)
    classes = has_classes(manifest)
    columns = {key: frame[key].to_numpy(dtype=np.float64) for key in _NUMBERS if key in frame}
    labels, coded, suspects = _labels(frame, name, classes)
    if not classes:
        labels["values"] = []  # only decisions on classes go into a file
    if task_of(manifest) == "regression" and pd.api.types.is_numeric_dtype(frame["label"]):
        columns |= {"label": _real(frame["label"]), "prediction": _real(frame["loo_prediction"])}
        coded, labels = {}, {"values": [], "texts": [], "order": []}
    if "redundancy_group" in frame:
        coded["group"] = frame["redundancy_group"].fillna(-1).to_numpy(dtype=np.int64)
    if "corrupted" in frame:
        coded["planted"] = frame["corrupted"].to_numpy(dtype=bool)
    if classes:
        columns["wrong_probability"] = find_suspects(frame).wrong_probability
    make = CardMaker(frame, samples, name)
    wanted = choose_faces(columns["lsi"], coded["label"] if classes else None, suspects, coded.get("group"))
    rows, faces = make_faces(make, wanted)
    return {
        "version": 1,
        "task": task_of(manifest),
        "fingerprint": manifest.get("data", {}).get("fingerprint"),
        "n": len(frame),
        "nAll": len(scores),
        "ids": pack_ids(list(frame["sample_id"])),
        "labels": labels,
        "columns": {key: pack(values) for key, values in {**columns, **coded}.items()},
        "faces": {"kind": make.kind, "rows": pack(np.array(rows, dtype=np.int64)), "items": faces},
    }


def _labels(
    frame: pd.DataFrame, name: Callable[[object], str], classes: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Return every label once, the columns of codes into them (−1: none), and the suspected rows."""
    sources = {"label": frame["label"], "prediction": frame["loo_prediction"]}
    suspects = np.zeros(0, dtype=np.int64)
    if classes:
        found = find_suspects(frame)
        sources["suggested"], suspects = pd.Series(found.suggested, dtype=object), found.rows
    if "original_label" in frame:
        sources["original"] = frame["original_label"]
    codes: dict[Any, int] = {}
    coded = {key: _encode(column, codes) for key, column in sources.items()}
    texts = [name(label) for label in codes]
    order = sorted(
        (int(code) for code in np.unique(coded["label"]) if code >= 0), key=lambda c: natural(texts[c])
    )
    values = [_json_value(label) for label in codes]
    return {"values": values, "texts": texts, "order": order}, coded, suspects


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


def _kept_rows(frame: pd.DataFrame) -> np.ndarray:
    """Return the rows that fit into a page, in the order of the table."""
    n = len(frame)
    if n <= MOST_ROWS:
        return np.arange(n)
    order = np.argsort(-frame["lsi"].to_numpy(), kind="stable")
    ends = np.concatenate([order[:_KEPT_ENDS], order[n - _KEPT_ENDS :]])
    rest = order[_KEPT_ENDS : n - _KEPT_ENDS]
    even = np.linspace(0, len(rest) - 1, MOST_ROWS - len(ends)).astype(np.int64)
    return np.unique(np.concatenate([ends, rest[even]]))


def describes(data: Mapping[str, Any]) -> str:
    """Say what the page's rows leave out.

    Args:
        data: What `page_data` returns.

    Returns:
        One sentence; empty where every sample is there.
    """
    if data["n"] == data["nAll"]:
        return ""
    return (
        f"To keep the page small it lists {data['n']:,} of {data['nAll']:,} samples: both ends of the "
        "distribution and an even selection between them."
    )
