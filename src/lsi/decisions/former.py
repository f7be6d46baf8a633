"""The samples of a cleaned dataset under the ids that they had before, as its receipt tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.reload import reload_samples
from lsi.data.writers.arrays import labels_beside
from lsi.decisions.receipt import Receipt, digest, read_receipt, receipt_of
from lsi.errors import LsiError
from lsi.results.marks import SCORES, Mark, read_mark
from lsi.results.table import ScoreTable


def former_ids(old: ScoreTable, new: ScoreTable) -> np.ndarray | None:
    """Return the ids that the samples of `new` have in `old`; None where no receipt says so.

    Row numbers move up where rows are removed, and a picture with a new label lies in another folder. The
    receipt next to the dataset of `new` tells which rows of the dataset of `old` were kept, if both are
    unchanged since: of both, fingerprints are compared. Shapes: `(n_new,)`.
    """
    receipt = _receipt_between(old, new)
    if receipt is None:
        return None
    ids, positions = new.sample_id, new.to_frame()["position"].to_numpy()
    rows = np.flatnonzero(receipt.keep)
    if "moved" in receipt.content:
        return _moved_back(old, ids, receipt)
    if old.sample_id.dtype.kind in "iu" and ids.dtype.kind in "iu":
        numbered = np.array_equal(old.sample_id, old.to_frame()["position"]) and np.array_equal(
            ids, positions
        )
        return rows[positions] if numbered and positions.max(initial=0) < len(rows) else None
    return None


def _numbered(scores: ScoreTable) -> bool:
    return np.array_equal(scores.sample_id, scores.to_frame()["position"])


def _receipt_between(old: ScoreTable, new: ScoreTable) -> Receipt | None:
    """Return the receipt of the dataset of `new`, if it was made from that of `old`."""
    source: dict[str, Any] = new.manifest.get("source") or {}
    if source.get("kind") != "file" or any("selected_of" in each.manifest for each in (old, new)):
        return None
    try:
        cleaned = Path(str(source.get("path")))
        mark = read_mark(receipt_of(cleaned))
        said = Mark.of(old.manifest, SCORES).dataset_fingerprint
        if mark is None or said is None or mark.dataset_fingerprint != said:
            return None
        receipt = read_receipt(receipt_of(cleaned))
        labels = receipt.content.get("labels")
        parts = [cleaned, *([labels_beside(cleaned, labels)] if labels else [])]
        same = digest(parts) == receipt.content["digest"]
        scored = same and reload_samples(source).fingerprint() == source.get("fingerprint")
    except (LsiError, OSError):
        return None
    return receipt if scored else None


def _moved_back(old: ScoreTable, ids: np.ndarray, receipt: Receipt) -> np.ndarray:
    """Return ids where pictures lie in the folder in which they were."""
    frame = old.to_frame()
    before = dict(zip(frame["position"].tolist(), frame["sample_id"].tolist(), strict=True))
    pairs = zip(receipt.content["moved"], receipt.content["relabelled"], strict=False)
    places = {place: before[row] for place, row in pairs if row in before}
    return np.array([places.get(each, each) for each in ids.tolist()], dtype=object)
