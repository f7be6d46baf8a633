"""What a run leaves: a table with one row per scored sample, a manifest that says how, and the audit."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.results.audit import Audit
from lsi.results.schema import NUMBERS, REQUIRED_COLUMNS
from lsi.results.store import read_scores, write_scores
from lsi.system.files import PathLike
from lsi.validation.labels import check_labels


class ScoreTable:
    """Laplace Sample Information of a dataset: a table in the order asked for, a manifest and an audit.

    Args:
        table: One row per scored sample, with the columns of docs/reference/formulas.md; copied.
        manifest: How the scores were made; copied as JSON values (numbers that JSON lacks become None, labels
            that are neither numbers, booleans nor strings their `repr`).
        audit: What the built-in audit measured; None where it was off.

    Raises:
        InputError: A column is missing.
    """

    def __init__(self, table: pd.DataFrame, manifest: Mapping[str, Any], audit: Audit | None = None) -> None:
        missing = [name for name in REQUIRED_COLUMNS if name not in table]
        if missing:
            raise InputError(f"The table of scores lacks the columns {missing}. Build it with lsi.score.")
        self._table = _tidy(table)
        self._audit = audit
        self._manifest: dict[str, Any] = json_value(manifest)
        classes = manifest.get("classes")
        self._manifest["classes"] = [] if classes is None else [json_label(label) for label in classes]
        self._manifest["audit"] = None if audit is None else audit.to_dict()

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read scores that `save` or the command line wrote.

        Args:
            path: Folder with the scores.

        Returns:
            The scores, equal to those that were saved. Labels and ids that are neither numbers, booleans,
            dates nor strings come back as their `repr`.

        Raises:
            InputError: There are no scores, they are damaged, or another program or version wrote them.
        """
        table, manifest = read_scores(path)
        described = manifest.get("audit")
        return cls(table, manifest, None if described is None else Audit.from_dict(described))

    def save(self, path: PathLike, overwrite: bool = False) -> Path:
        """Write the scores into a folder: `scores.parquet` and `manifest.json`, as a whole or not at all.

        Args:
            path: Folder to write; its parents are created.
            overwrite: Whether scores that it already holds are replaced. A folder that holds anything else
                is never touched.

        Returns:
            The folder, for `lsi.load`.

        Raises:
            OutputError: The folder is taken, or the disk is read-only or full. Scores that were there before
                stay.
        """
        return write_scores(path, self._table, json_value(self._manifest), overwrite)

    def with_table(self, table: pd.DataFrame) -> Self:
        """Return scores with another table (rows chosen, columns added) and the same manifest and audit.

        Args:
            table: One row per sample, with all columns that are required.

        Returns:
            New scores; these stay as they are.

        Raises:
            InputError: A column is missing.
        """
        return type(self)(table, self._manifest, self._audit)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def lsi(self) -> np.ndarray:
        """LSI in nats, `(n_scored,)` float64, in the order asked for (a copy)."""
        return self._column("lsi")

    @property
    def mean_term(self) -> np.ndarray:
        """Part of LSI that moves the weights, in nats, `(n_scored,)` float64 (a copy)."""
        return self._column("mean_term")

    @property
    def covariance_term(self) -> np.ndarray:
        """Part of LSI that changes the posterior's shape, in nats, `(n_scored,)` float64 (a copy)."""
        return self._column("covariance_term")

    @property
    def sample_id(self) -> np.ndarray:
        """Stable identities of the scored samples, `(n_scored,)` (a copy)."""
        return self._column("sample_id")

    @property
    def audit(self) -> Audit | None:
        """What the built-in audit measured; None where it was off."""
        return self._audit

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, configuration, data fingerprint, classes, timings and audit; notes may be added to it."""
        return self._manifest

    @property
    def task(self) -> str:
        """`"classification"`, `"regression"`, `"multilabel"` or `"contrastive"`."""
        return str(self._manifest.get("task") or "classification")

    @property
    def has_classes(self) -> bool:
        """Whether each sample belongs to one class."""
        return self.task == "classification"

    @property
    def classes(self) -> list[Any]:
        """Classes of the dataset, or of the table where the manifest names none; empty for other tasks."""
        if not self.has_classes:
            return []
        return self._manifest["classes"] or check_labels(self._table["label"])[1].tolist()

    @property
    def disagrees(self) -> np.ndarray:
        """Whether the model that never saw the sample prefers another label, `(n_scored,)` bool."""
        if not self.has_classes:
            return np.zeros(len(self), dtype=bool)
        differs = self._table["loo_prediction"].astype(object) != self._table["label"].astype(object)
        return differs.to_numpy()

    def to_frame(self) -> pd.DataFrame:
        """Return the whole table, one row per scored sample, as a copy."""
        return self._table.copy()

    def top(self, k: int = 10) -> pd.DataFrame:
        """Return the `k` samples of highest LSI, highest first: atypical, hard or mislabeled.

        Args:
            k: How many; all where there are fewer.

        Returns:
            Rows of the table; equal LSI in the order of the table, NaN last.

        Raises:
            InputError: `k` is not a positive integer.
        """
        return self._sorted(k, ascending=False)

    def bottom(self, k: int = 10) -> pd.DataFrame:
        """Return the `k` samples of lowest LSI, lowest first: typical or redundant.

        Args:
            k: How many; all where there are fewer.

        Returns:
            Rows of the table; equal LSI in the order of the table, NaN last.

        Raises:
            InputError: `k` is not a positive integer.
        """
        return self._sorted(k, ascending=True)

    def class_summary(self) -> pd.DataFrame:
        """Return one row for each class with scored samples, or for each label where samples have several.

        Returns:
            Columns `label`, `n` (scored samples), `mean_lsi` and `median_lsi` in nats,
            `mean_loo_probability` of the given label, and `loo_accuracy`, the share of samples whose
            `loo_prediction` is their label. Where samples have several labels, the figures are those of the
            label's own head, and `n` counts the samples that have it.

        Raises:
            InputError: The scores are of a regression or of pairs.
        """
        if self.task == "multilabel":
            return pd.DataFrame([_label_row(self._table, name) for name in self._manifest["outputs"]])
        if not self.has_classes:
            raise InputError(
                f"class_summary is for classification, and these are scores of {self.task}. Group "
                "scores.to_frame() by a column of your own, for example pandas.qcut(frame['label'], 4)."
            )
        codes, classes = check_labels(self._table["label"])
        groups = self._table.assign(agrees=~self.disagrees).groupby(codes)
        return pd.DataFrame(
            {
                "label": pd.Series(classes).infer_objects(),
                "n": groups.size(),
                "mean_lsi": groups["lsi"].mean(),
                "median_lsi": groups["lsi"].median(),
                "mean_loo_probability": groups["loo_probability"].mean(),
                "loo_accuracy": groups["agrees"].mean(),
            }
        )

    def __repr__(self) -> str:
        lines = [f"Scores of {len(self):,} samples{self._kind()}"]
        if len(self):
            low, middle, high = (f"{value:.3g}" for value in np.quantile(self.lsi, [0.0, 0.5, 1.0]))
            lines.append(f"LSI in nats: lowest {low}, median {middle}, highest {high}")
        lines.append(self._audit.summary() if self._audit else "No audit was run.")
        return "\n  ".join(lines)

    def _kind(self) -> str:
        """Return what the scored samples are, as the end of a phrase."""
        n_outputs = len(self._manifest.get("outputs") or [])
        if self.task == "regression":
            return f", regression of {n_outputs} target{'s' if n_outputs != 1 else ''}"
        if self.task == "multilabel":
            return f" with {n_outputs} labels"
        return f" in {len(self.classes)} classes" if self.has_classes else f", {self.task}"

    def _column(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy().copy()

    def _sorted(self, k: Any, ascending: bool) -> pd.DataFrame:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k must be a positive integer, got {k!r}. Pass how many samples to return.")
        ordered = self._table.sort_values("lsi", ascending=ascending, kind="stable", ignore_index=True)
        return ordered.head(int(k))


def json_label(label: Any) -> bool | int | str:
    """Return a label as manifests hold it: integers, booleans and strings unchanged, else their `repr`."""
    value: Any = label.item() if isinstance(label, np.generic) else label
    return value if isinstance(value, bool | int | str) else repr(value)


def json_value(value: Any) -> Any:
    """Return a value as JSON holds it: arrays as lists, NaN and infinity as None, other objects as `repr`."""
    if isinstance(value, Mapping):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [json_value(entry) for entry in value]
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike | datetime.datetime):
        return str(value)
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values."""
    return [json_value(row) for row in frame.to_dict("records")]


def _label_row(table: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return the summary of one of several labels, from the columns of its own head."""
    probability = table[f"loo_probability_{name}"]
    return {
        "label": name,
        "n": int(table[f"label_{name}"].sum()),
        "mean_lsi": table[f"lsi_{name}"].mean(),
        "median_lsi": table[f"lsi_{name}"].median(),
        "mean_loo_probability": probability.mean(),
        "loo_accuracy": (probability >= 0.5).mean(),
    }


def _tidy(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with a plain index, and object columns of one type in that type."""
    tidy = table.reset_index(drop=True).infer_objects()
    for name in NUMBERS:
        tidy[name] = tidy[name].astype(np.float64)
    return tidy
