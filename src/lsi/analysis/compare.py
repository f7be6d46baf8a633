"""What changed between two runs, or between two versions of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.view import rank_correlation, ranks
from lsi.errors import InputError
from lsi.results.table import ScoreTable, json_label, json_rows, json_value

_SETTINGS = ("probe", "posterior", "method", "prior_precision")


@dataclass(frozen=True)
class Comparison:
    """The differences between two sets of scores, matched by `sample_id`.

    Attributes:
        n_old: Scored samples of the old run.
        n_new: Scored samples of the new run.
        added: Ids that only the new run has.
        removed: Ids that only the old run has.
        relabelled: One row per common sample whose label changed: `sample_id`, `old_label`, `new_label`,
            `old_lsi`, `new_lsi`.
        common: One row per common sample, biggest move first: `sample_id`, `label` (the new one), `old_lsi`,
            `new_lsi` (nats), `old_quantile`, `new_quantile` (among the common samples) and `move`, the
            difference of the quantiles.
        rank_correlation: Spearman's over the common samples; None for fewer than three, or constant scores.
        top_overlap: Share of the old run's highest tenth of the common samples that is also in the new run's.
        settings: Settings that differ between the runs, as `name: [old, new]`.
        same_data: Whether features and labels have the same fingerprint; None where a run states none.
        audits: Rank correlation and median relative error from the audit of each run.
        notes: What to keep in mind, one sentence each.
    """

    n_old: int
    n_new: int
    added: list[Any]
    removed: list[Any]
    relabelled: pd.DataFrame
    common: pd.DataFrame
    rank_correlation: float | None
    top_overlap: float | None
    settings: dict[str, list[Any]]
    same_data: bool | None
    audits: dict[str, dict[str, float | None] | None]
    notes: tuple[str, ...]

    def holds(self, min_rank_correlation: float) -> bool:
        """Return whether both runs rank the samples alike.

        Args:
            min_rank_correlation: Least rank correlation that will do.

        Returns:
            Whether there is a rank correlation and it is at least that high.
        """
        return self.rank_correlation is not None and self.rank_correlation >= min_rank_correlation

    def to_dict(self, rows: int = 20) -> dict[str, Any]:
        """Return JSON values, with at most `rows` samples in each list.

        Args:
            rows: Longest list of samples.

        Returns:
            All counts, and the first samples of each list.
        """
        return {
            "n_old": self.n_old,
            "n_new": self.n_new,
            "n_common": len(self.common),
            "n_added": len(self.added),
            "n_removed": len(self.removed),
            "n_relabelled": len(self.relabelled),
            "rank_correlation": self.rank_correlation,
            "top_overlap": self.top_overlap,
            "same_data": self.same_data,
            "settings": self.settings,
            "audits": self.audits,
            "added": [json_label(value) for value in self.added[:rows]],
            "removed": [json_label(value) for value in self.removed[:rows]],
            "relabelled": json_rows(self.relabelled.head(rows)),
            "moves": json_rows(self.common.head(rows)),
            "notes": list(self.notes),
        }


def compare(old: ScoreTable, new: ScoreTable) -> Comparison:
    """Return what changed from one run to another.

    Args:
        old: The earlier scores.
        new: The later scores.

    Returns:
        The comparison; scores are compared by rank, since values shrink as a dataset grows and move with
        the settings.

    Raises:
        InputError: An id occurs twice, or is text in one run and a number in the other.
    """
    left, right = _indexed(old, "old"), _indexed(new, "new")
    _check_kinds(left.index, right.index)
    shared = left.index[left.index.isin(right.index)]
    before, after = left.loc[shared], right.loc[shared]
    common = _moves(before, after)
    changed = before["label"].to_numpy(dtype=object) != after["label"].to_numpy(dtype=object)
    relabelled = pd.DataFrame(
        {
            "sample_id": shared[changed],
            "old_label": before["label"].to_numpy()[changed],
            "new_label": after["label"].to_numpy()[changed],
            "old_lsi": before["lsi"].to_numpy()[changed],
            "new_lsi": after["lsi"].to_numpy()[changed],
        }
    )
    prints = [(scores.manifest.get("data") or {}).get("fingerprint") for scores in (old, new)]
    return Comparison(
        n_old=len(old),
        n_new=len(new),
        added=right.index[~right.index.isin(left.index)].tolist(),
        removed=left.index[~left.index.isin(right.index)].tolist(),
        relabelled=relabelled,
        common=common,
        rank_correlation=rank_correlation(before["lsi"].to_numpy(), after["lsi"].to_numpy()),
        top_overlap=_top_overlap(before["lsi"].to_numpy(), after["lsi"].to_numpy()),
        settings=_differences(old.manifest, new.manifest),
        same_data=None if None in prints else prints[0] == prints[1],
        audits={"old": _audit(old), "new": _audit(new)},
        notes=_notes(left, right, shared),
    )


def _indexed(scores: ScoreTable, which: str) -> pd.DataFrame:
    table = scores.to_frame().set_index("sample_id")
    if not table.index.is_unique:
        first = table.index[table.index.duplicated()][0]
        raise InputError(f"the {which} scores hold the sample {first!r} twice. Give every sample an id.")
    return table


def _check_kinds(left: pd.Index, right: pd.Index) -> None:
    one, other = sorted((_kind(left), _kind(right)))
    if one != other:
        raise InputError(
            f"sample ids are {one} in one run and {other} in the other, so nothing can be matched. Name "
            "the same column of ids in both runs (--id-column)."
        )


def _kind(index: pd.Index) -> str:
    """Return in a word what ids are; times match times, whatever their zones, if both or neither have one."""
    if pd.api.types.is_numeric_dtype(index.dtype):
        return "numbers"
    if isinstance(index, pd.DatetimeIndex):
        return "times" if index.tz is None else "times with a zone"
    return "text"


def _moves(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    old, new = before["lsi"].to_numpy(dtype=np.float64), after["lsi"].to_numpy(dtype=np.float64)
    frame = pd.DataFrame(
        {
            "sample_id": before.index.to_numpy(),
            "label": after["label"].to_numpy(),
            "old_lsi": old,
            "new_lsi": new,
            "old_quantile": ranks(old),
            "new_quantile": ranks(new),
        }
    )
    frame["move"] = frame["new_quantile"] - frame["old_quantile"]
    order = frame["move"].abs().sort_values(ascending=False, kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def _top_overlap(old: np.ndarray, new: np.ndarray) -> float | None:
    if not len(old):
        return None
    count = max(1, len(old) // 10)
    highest = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (old, new)]
    return len(highest[0] & highest[1]) / count


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    found = {}
    configs = [manifest.get("config") or {} for manifest in (old, new)]
    for name in _SETTINGS:
        left, right = _flat(name, configs[0].get(name)), _flat(name, configs[1].get(name))
        for key in [*left, *(key for key in right if key not in left)]:
            if left.get(key) != right.get(key):
                found[key] = [left.get(key), right.get(key)]
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {f"{name}.{key}": entry for key, entry in value.items()}
    return {name: value}


def _audit(scores: ScoreTable) -> dict[str, float | None] | None:
    audit = scores.audit
    if audit is None:
        return None
    return {name: json_value(getattr(audit, name)) for name in ("spearman", "median_relative_error")}


def _notes(left: pd.DataFrame, right: pd.DataFrame, shared: pd.Index) -> tuple[str, ...]:
    if not len(shared):
        return ("The two runs have no sample in common: check that both use the same ids.",)
    if len(left) != len(right) and all(_row_numbers(table.index) for table in (left, right)):
        return (
            "Ids are row numbers in both runs, which differ in length: they match only where no row moved.",
        )
    return ()


def _row_numbers(index: pd.Index) -> bool:
    return pd.api.types.is_integer_dtype(index.dtype) and bool(
        (np.sort(index) == np.arange(len(index))).all()
    )
