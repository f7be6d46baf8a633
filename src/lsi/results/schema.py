"""What a table of scores and its manifest must look like.

A folder of scores may come from anyone. Everything that the library reads from one is checked here, once, so
that no page, command or analysis has to. Entries that are absent or null are fine, and so are unknown ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

Check = Callable[[Any], bool]
TASKS = ("classification", "regression", "multilabel", "contrastive")
NUMBERS = ("lsi", "mean_term", "covariance_term", "loo_probability")
"""Required columns that hold float64."""
GROUP_COLUMNS = (
    "group", "n", "lsi", "lsi_per_row", "mean_term", "covariance_term", "interaction", "relative_error",
)  # fmt: skip
"""Columns of the table of groups."""
REQUIRED_COLUMNS = ("sample_id", "position", "label", "loo_prediction", *NUMBERS)
_OPTIONAL_NUMBERS = (
    "leverage", "relative_error", "wrong_probability", "wrong_at_least", "wrong_at_most", "flip_gain",
    "redundancy_group", "lsi_std",
)  # fmt: skip
_LABELS = ("sample_id", "label", "loo_prediction", "suggested_label", "original_label")
_LARGEST = 2**53  # integers up to here are exact in JSON


def _number(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= 1e300 and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _scalar(value: Any) -> bool:
    return _text(value) or isinstance(value, bool | int) or _number(value)


def _plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value is made of scalars, lists and mappings, nested at most eight deep."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, list):
        return depth < 8 and all(_plain(entry, depth + 1) for entry in value)
    if isinstance(value, Mapping):
        return depth < 8 and all(_plain(entry, depth + 1) for entry in value.values())
    return _number(value)


def _of(check: Check) -> Check:
    """Return a check for a list whose entries all pass `check`."""
    return lambda value: isinstance(value, list) and all(check(entry) for entry in value)


def _by_name(check: Check) -> Check:
    """Return a check for a mapping whose values pass `check` or are null."""
    return lambda value: isinstance(value, Mapping) and all(v is None or check(v) for v in value.values())


def _with(**entries: Check) -> Check:
    """Return a check for a mapping in which each named entry is absent, null or passes its check."""

    def check(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            value.get(name) is None or passes(value[name]) for name, passes in entries.items()
        )

    return check


def _settings(value: Any) -> bool:
    return _text(value) or (isinstance(value, Mapping) and _plain(value))


def _both(first: Check, second: Check) -> Check:
    return lambda value: first(value) and second(value)


_ENTRIES: dict[str, Check] = {
    "task": lambda value: _text(value) and value in TASKS,
    "created": _text,
    "cost": _text,
    "versions": _by_name(_text),
    "timings": lambda value: isinstance(value, Mapping) and all(map(_number, value.values())),
    "classes": _of(_scalar),
    "class_names": _by_name(_text),
    "outputs": _of(_scalar),
    "selected_of": _count,
    "config": _both(
        _plain,
        _with(probe=_settings, method=_settings, posterior=_text, prior_precision=_number, seed=_count),
    ),
    "data": _with(
        n_samples=_count, n_features=_count, n_classes=_count, n_outputs=_count, n_scored=_count,
        fingerprint=_text,
    ),
    "fit": _with(train_accuracy=_number, gradient_norm=_number),
    "source": _both(
        _plain,
        _with(
            kind=_text, name=_text, path=_text, description=_text, fingerprint=_text,
            options=lambda value: _options(value),
        ),
    ),
    "run": _text,
    "shard": _with(index=_count, of=_count, n_scored=_count, run=_text, rows=_of(_of(_count))),
    "merged": _with(shards=_count, longest=_by_name(_number)),
    "corruption": _both(_plain, _with(kind=_text, rate=_number, seed=_count, n_corrupted=_count)),
    "label_noise": _with(
        n_wrong=_number,
        interval=lambda value: _of(_number)(value) and len(value) == 2,
        noise_matrix=_of(_of(_number)),
        top=_of(lambda value: _pair(value)),
    ),
    "curation": _with(
        metric=_text,
        n_seeds=_count,
        shares=_of(_number),
        curves=_by_name(_by_name(_of(_number))),
    ),
    "groups": _with(file=_text, rows=_count, sha256=_text, repr_columns=_of(_text)),
    "audit": lambda value: isinstance(value, Mapping),
}  # fmt: skip


_ALWAYS = ("config", "data", "timings", "versions")  # never null where they are named


def _pair(value: Any) -> bool:
    ends = isinstance(value, Mapping) and [value[end] for end in ("low", "high") if end in value]
    return bool(
        isinstance(value, Mapping)
        and _count(value.get("n"))
        and _number(value.get("wrong"))
        and all(_number(end) for end in ends or [])
    )


def groups_fault(rows: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with the rows of a table of groups from a file, or None."""
    for row in rows:
        if not set(GROUP_COLUMNS) <= row.keys():
            return "it lacks columns of a table of groups"
        figures = all(row[name] is None or _number(row[name]) for name in GROUP_COLUMNS if name != "group")
        if not (
            _scalar(row["group"])
            and figures
            and _count(row["n"])
            and row["n"]
            and None not in (row["lsi"], row["lsi_per_row"])
        ):
            return "it does not hold what lsi writes there"
    return None


def _options(value: Any) -> bool:
    """Return whether a value is what `lsi.data.SourceOptions.describe` writes."""
    return isinstance(value, Mapping) and all(
        entry is True or _text(entry) or _of(_text)(entry) for entry in value.values()
    )


def manifest_fault(manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a manifest from a file, or None."""
    for name, passes in _ENTRIES.items():
        value = manifest.get(name)
        if (value is not None or (name in manifest and name in _ALWAYS)) and not passes(value):
            return f"its entry {name!r} does not hold what lsi writes there"
    data = manifest.get("data")
    if data is not None and (not data.get("n_samples", 1) or data.get("n_features") == 0):
        return "its entry 'data' gives no samples or no features"
    # Only samples of one class each have a matrix of noise. Old manifests name no task.
    has_classes = manifest.get("task", "classification") == "classification"
    noise, n = manifest.get("label_noise"), len(manifest.get("classes") or []) * has_classes
    if noise:
        rows = noise.get("noise_matrix") or []
        if noise.get("n_wrong") is None or [len(row) for row in rows] != [n] * n or has_classes > n:
            return "its entry 'label_noise' is incomplete, or belongs to other classes"
    return None


def table_fault(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a table from a file, or None."""
    if not table.columns.is_unique:
        return "two of its columns have the same name"
    for name in (*NUMBERS, *_OPTIONAL_NUMBERS):
        if name in table and not _is_real(table[name]):
            return f"its column {name!r} holds no numbers"
    for name, kind in (("position", "iu"), ("corrupted", "b")):
        if name in table and (table[name].dtype.kind not in kind or bool(table[name].isna().any())):
            return f"its column {name!r} does not hold what lsi writes there"
    if "position" in table and len(table):
        total = (manifest.get("data") or {}).get("n_samples") or _LARGEST
        if not 0 <= int(table["position"].min()) <= int(table["position"].max()) < total:
            return "its positions lie outside the data"
    estimate = bool(manifest.get("label_noise"))
    for name in ("wrong_probability", "suggested_label"):
        if estimate and name not in table:
            return f"it has no column {name!r}, but an estimate of label noise"
    if "corrupted" in table and bool(table["corrupted"].any()) and "original_label" not in table:
        return "it has no column 'original_label', but labels that were changed"
    for name in _LABELS:
        if name in table and not all(map(_is_hashable, table[name])):
            return f"its column {name!r} holds lists or records"
    return None


def _is_real(column: pd.Series) -> bool:
    """Return whether a column holds numbers of a type that numpy has: pandas' own know missing integers."""
    return isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiu"


def _is_hashable(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | int | float) or not hasattr(value, "__len__")
