"""`lsi.merge`: the parts of a run that were scored apart, put together again."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.execution.work import MOST_SHARDS
from lsi.results.audit import Audit, spearman
from lsi.scores import Scores, load
from lsi.system.files import PathLike
from lsi.tasks.feature_check import of_hits

SHOWN = 5  # most missing parts that a message names


def merge(parts: Iterable[Scores | PathLike]) -> Scores:
    """Put the parts of one run together.

    The table is that of the run in one piece, to the last bit where the parts were scored on the same kind
    of processor with the same number of threads. The audit covers every sample that a part audited.
    `timings` are sums over the parts, and ``manifest["merged"]`` holds the number of parts and the longest
    time of each stage. The rest of the manifest is that of the first part.

    Args:
        parts: Scores that were made with `shard`, or their folders, in any order.

    Returns:
        The scores of the whole run.

    Raises:
        InputError: A part is missing, occurs twice or belongs to another run, or scores are not a part.

    Examples:
        >>> import lsi
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> parts = [lsi.score(X, y, audit=2, shard=(k, 2)) for k in (1, 2)]
        >>> len(parts[0]), len(merge(parts))
        (86, 150)
    """
    found = [_Part.read(each, k) for k, each in enumerate(_listed(parts), 1)]
    _check_together(found)
    found.sort(key=lambda part: part.index)
    order = np.argsort(np.concatenate([part.rows for part in found]), kind="stable")
    table = pd.concat([part.scores.to_frame() for part in found], ignore_index=True).iloc[order]
    return Scores(table.reset_index(drop=True), _manifest(found, table), _audit(found))


@dataclass(frozen=True)
class _Part:
    """One part, and what its manifest says about it, checked."""

    name: str
    scores: Scores
    index: int
    of: int
    run: str
    n_scored: int
    rows: np.ndarray

    @classmethod
    def read(cls, given: Scores | PathLike, k: int) -> _Part:
        if isinstance(given, Scores):
            name, scores = f"part {k} of the list", given
        else:
            name, scores = repr(str(given)), load(given)
        shard = scores.manifest.get("shard")
        if not isinstance(shard, Mapping):
            raise InputError(f"{name} is not part of a run: it was scored without a shard. Leave it out.")
        index, of, n_scored = (_whole_number(shard.get(key)) for key in ("index", "of", "n_scored"))
        run, rows = shard.get("run"), _rows(shard.get("rows"), len(scores))
        if not isinstance(run, str) or rows is None or not 1 <= index <= of <= MOST_SHARDS:
            raise InputError(f"{name} does not say which part of which run it is. Score it again.")
        return cls(name, scores, index, of, run, n_scored, rows)


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _listed(parts: Iterable[Scores | PathLike]) -> list[Scores | PathLike]:
    if isinstance(parts, Scores | str):
        raise InputError("merge takes a list of parts: lsi.merge([first, second, …]).")
    listed = list(parts)
    if not listed:
        raise InputError("there are no parts to merge. Name all of them.")
    return listed


def _rows(ranges: Any, count: int) -> np.ndarray | None:
    """Return the rows of the whole table in `[[low, high], …]`; None where these are not `count` rows."""
    if not isinstance(ranges, Sequence) or isinstance(ranges, str):
        return None
    for each in ranges:
        if not isinstance(each, Sequence) or len(each) != 2 or not all(type(edge) is int for edge in each):
            return None
    if any(not 0 <= low < high for low, high in ranges) or sum(high - low for low, high in ranges) != count:
        return None
    return np.concatenate([np.arange(low, high) for low, high in ranges]) if ranges else np.arange(0)


def _check_together(parts: list[_Part]) -> None:
    """Refuse parts that are not all parts of one run, each exactly once."""
    _check_same_run(parts)
    first, seen = parts[0], dict[int, _Part]()
    for part in parts:
        if part.index in seen:
            raise InputError(
                f"{part.name} and {seen[part.index].name} are both part {part.index}/{first.of}. Leave one "
                "out."
            )
        seen[part.index] = part
    missing = [str(index) for index in range(1, first.of + 1) if index not in seen]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise InputError(
            f"of {first.of} parts {', '.join(missing[:SHOWN])}{more} {'is' if len(missing) == 1 else 'are'} "
            f"missing. Score with shard {missing[0]}/{first.of}, and merge all of them."
        )
    rows = np.sort(np.concatenate([part.rows for part in parts]))
    if len(rows) != first.n_scored or not np.array_equal(rows, np.arange(first.n_scored)):
        raise InputError("the parts do not make up all rows of the run, each exactly once. Score them again.")


def _check_same_run(parts: list[_Part]) -> None:
    first = parts[0]
    foreign = [part for part in parts if (part.run, part.of, part.n_scored) != _whole(first)]
    if foreign:
        other = foreign[0]
        why = _difference(first.scores.manifest, other.scores.manifest)
        if first.of != other.of:
            why = f"one of {first.of} parts against one of {other.of}"
        raise InputError(
            f"{other.name} belongs to another run than {first.name} ({why}). Merge parts of the same data, "
            "settings, versions and threads."
        )
    for part in parts[1:]:
        if list(part.scores.to_frame().columns) != list(first.scores.to_frame().columns):
            raise InputError(f"{part.name} and {first.name} differ in their columns. Score both alike.")
        if _solver(part) != _solver(first):
            raise InputError(
                f"{part.name} was scored with another solver than {first.name}, since its machine has "
                "another amount of memory. Score all parts with one solver (command line: --solver)."
            )
    _check_kinds(parts)


def _solver(part: _Part) -> Any:
    return (part.scores.manifest.get("fit") or {}).get("solver")


def _whole(part: _Part) -> tuple[str, int, int]:
    return part.run, part.of, part.n_scored


def _check_kinds(parts: list[_Part]) -> None:
    """Refuse a column that is text in one saved part and numbers in another, as labels of mixed types are."""
    frames = [part.scores.to_frame() for part in parts]
    for name in frames[0]:
        kinds = {pd.api.types.is_string_dtype(frame[name]) for frame in frames if len(frame)}
        text = {isinstance(frame[name].dtype, pd.StringDtype) for frame in frames if len(frame)}
        if len(kinds) > 1 and len(text) > 1:
            raise InputError(
                f"column {name!r} is text in some parts and numbers in others, since the labels are of both "
                "types. Make all labels text, and score again."
            )


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return where the manifests of two runs differ, as text."""
    names = [
        f"{section}.{name}"
        for section in ("data", "config", "versions")
        for name in (first.get(section) or {})
        if name != "n_scored" and (first.get(section) or {})[name] != (other.get(section) or {}).get(name)
    ]
    return (
        f"different: {', '.join(names)}" if names else "different ids, subset, audit, memory, threads or code"
    )


def _manifest(parts: list[_Part], table: pd.DataFrame) -> dict[str, Any]:
    first = parts[0].scores.manifest
    timings = [part.scores.manifest.get("timings") or {} for part in parts]
    stages = list(dict.fromkeys(stage for each in timings for stage in each))
    merged = {key: value for key, value in first.items() if key not in ("shard", "run", "audit")}
    merged |= {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": {**first["data"], "n_scored": parts[0].n_scored},
        "timings": {stage: sum(each.get(stage) or 0.0 for each in timings) for stage in stages},
        "merged": {
            "shards": len(parts),
            "longest": {stage: max(each.get(stage) or 0.0 for each in timings) for stage in stages},
        },
    }
    if "feature_check" in merged:
        merged["feature_check"] = _feature_check(parts)
    if "training" in merged:
        merged["training"] = _training(parts, table)
    if "whole_network" in merged:
        merged["whole_network"] = _whole_network(parts)
    return merged


def _feature_check(parts: list[_Part]) -> dict[str, Any]:
    """Return the verdict on the features from the hits of all parts."""
    found = [part.scores.manifest["feature_check"] for part in parts]
    near = {name: found[0][name] for name in found[0] if "neighbour" in name or "nearest" in name}
    n, hits = sum(each["n"] for each in found), sum(each["hits"] for each in found)
    return of_hits(n, hits, found[0]["majority"], near)


def _training(parts: list[_Part], table: pd.DataFrame) -> dict[str, Any]:
    """Return the entry about stopped training; the agreement between seeds is averaged over the parts."""
    out = dict(parts[0].scores.manifest["training"])
    between = [part.scores.manifest["training"].get("rank_correlation_between_seeds") for part in parts]
    if all(value is not None for value in between) and between:
        out["rank_correlation_between_seeds"] = float(
            np.average(between, weights=[len(part.rows) for part in parts])
        )
    if "recorded_epochs" in out:
        out["rank_correlation_with_end"] = [
            spearman(table["lsi"].to_numpy(), table[f"lsi_epoch_{epoch}"].to_numpy())
            for epoch in out["recorded_epochs"]
        ]
    return out


def _whole_network(parts: list[_Part]) -> dict[str, Any]:
    entries = [part.scores.manifest["whole_network"] for part in parts]
    out = dict(entries[0])
    for name in ("positions", "last_layer_lsi", "whole_network_lsi"):
        out[name] = [value for entry in entries for value in entry[name]]
    out["spearman"] = spearman(np.array(out["whole_network_lsi"]), np.array(out["last_layer_lsi"]))
    return out


def _audit(parts: list[_Part]) -> Audit | None:
    """Return the audit of all samples that the parts audited."""
    audits = [part.scores.audit for part in parts]
    known = [audit for audit in audits if audit is not None]
    if not known:
        return None
    positions = np.concatenate([audit.positions for audit in known])
    order = np.argsort(positions, kind="stable")

    def all_of(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(getattr(audit, name), dtype=np.float64) for audit in known])[order]

    certificate = all_of("certificate")
    return Audit.from_values(
        positions[order],
        all_of("exact"),
        all_of("approximate"),
        None if np.isnan(certificate).all() else certificate,
        sum(audit.seconds for audit in known),
        trusts=known[0].trusts,
        resolution=max(audit.resolution for audit in known),
    )
