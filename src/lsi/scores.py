"""The result of a run: one row a scored sample, a manifest that says how it was made, and the audit."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsi.errors import InputError
from lsi.results.audit import Audit
from lsi.results.store import check_output, read_scores, write_scores
from lsi.scores_analyses import ScoresAnalyses
from lsi.system.files import PathLike
from lsi.validation.labels import check_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lsi.analysis.mislabeled import LabelNoiseSummary

__all__ = ["Scores", "check_output", "json_label", "load"]

REQUIRED_COLUMNS = (
    "sample_id",
    "position",
    "label",
    "lsi",
    "mean_term",
    "covariance_term",
    "loo_probability",
    "loo_prediction",
)
_NATS = ("lsi", "mean_term", "covariance_term", "loo_probability")


class Scores(ScoresAnalyses):
    """Laplace Sample Information of a dataset: a table in the order asked for, a manifest and an audit.

    Args:
        table: One row a scored sample, with the columns that `docs/architecture.md` lists; copied.
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
        self._manifest: dict[str, Any] = _to_json(manifest)
        classes = manifest.get("classes")
        self._manifest["classes"] = [] if classes is None else [json_label(label) for label in classes]
        self._manifest["audit"] = None if audit is None else audit.to_dict()

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
    def task(self) -> str:
        """`"classification"`, `"regression"`, `"multilabel"` or `"contrastive"`."""
        return str(self._manifest.get("task") or "classification")

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, configuration, data fingerprint, classes, timings and audit; notes may be added to it."""
        return self._manifest

    def to_frame(self) -> pd.DataFrame:
        """Return the whole table, one row a scored sample, as a copy."""
        return self._table.copy()

    def top(self, k: int = 10) -> pd.DataFrame:
        """Return the `k` samples of highest LSI, highest first: atypical, hard or mislabeled.

        Args:
            k: How many; all where there are fewer.

        Returns:
            Rows of the table; equal LSI in the order of the table, NaN last.

        Raises:
            InputError: `k` is no positive integer.
        """
        return self._sorted(k, ascending=False)

    def bottom(self, k: int = 10) -> pd.DataFrame:
        """Return the `k` samples of lowest LSI, lowest first: typical or redundant.

        Args:
            k: How many; all where there are fewer.

        Returns:
            Rows of the table; equal LSI in the order of the table, NaN last.

        Raises:
            InputError: `k` is no positive integer.
        """
        return self._sorted(k, ascending=True)

    def class_summary(self) -> pd.DataFrame:
        """Return one row a class that has scored samples; for several labels a sample, one row a label.

        Returns:
            Columns `label`, `n` (scored samples), `mean_lsi` and `median_lsi` in nats,
            `mean_loo_probability` of the given label, and `loo_accuracy`, the share of samples whose
            `loo_prediction` is their label. Of several labels, figures are those of the label's own head,
            and `n` counts the samples that have it.

        Raises:
            InputError: The target is no class.
        """
        if self.task == "multilabel":
            from lsi.analysis.classwise import label_summary

            return label_summary(self._table, self._manifest["outputs"])
        if self.task != "classification":
            raise InputError(
                f"class_summary is for classification, and these are scores of {self.task}. Group "
                "scores.to_frame() by a column of your own, for example pandas.qcut(frame['label'], 4)."
            )
        codes, classes = check_labels(self._table["label"])
        agrees = ~self._differs()
        groups = self._table.assign(agrees=agrees).groupby(codes)
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

    def mislabeled(self, *, fdr: float | None = None, top: int | None = None) -> pd.DataFrame:
        """Return one row a sample, the label that is most likely wrong first.

        Runs that estimated label noise (`label_noise` of `lsi.score`) have calibrated probabilities. For
        others `wrong_probability` is one minus the probability of the given label under the model that
        never saw the sample, and `suggested_label` that model's most likely label.
        For a regression see `lsi.analysis.targets.wrong_targets`.

        Args:
            fdr: The longest list of which at most this expected share is right after all; None: all.
            top: The first so many only.

        Returns:
            Columns `sample_id`, `label`, `suggested_label` (None where it is the given one),
            `wrong_probability`, `lsi`, then `loo_prediction` and, where estimated, `flip_gain`: nats that
            the best other label is better predicted, without the sample, than the given one.

        Raises:
            InputError: `fdr` outside [0, 1], or a `top` that is no positive integer.
        """
        from lsi.analysis.mislabeled import check_limits, mislabeled

        if self.task == "regression":
            from lsi.analysis.targets import wrong_targets

            check_limits(None, top)
            frame = wrong_targets(self._table, len(self._manifest["outputs"]))
            return frame if top is None else frame.head(top)
        return mislabeled(self._table, fdr, top)

    @property
    def label_noise(self) -> LabelNoiseSummary:
        """Expected number of wrong labels, the noise matrix, and `wrong_in_top(n)`.

        Raises:
            InputError: The run did not estimate label noise.
        """
        from lsi.analysis.mislabeled import LabelNoiseSummary

        return LabelNoiseSummary.of(self._table, self._manifest, self._manifest["classes"])

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
        return write_scores(path, self._table, _to_json(self._manifest), overwrite)

    def __repr__(self) -> str:
        return "\n  ".join(self._lines())

    def plot(self, kind: str = "distribution", ax: Axes | None = None) -> Axes:
        """Draw the scores with matplotlib (extra `plot`).

        Args:
            kind: `"distribution"`, a histogram of LSI, or `"classes"`, a box plot a class.
            ax: Where to draw; None: a new figure.

        Returns:
            The axes, to change or save: `ax.figure.savefig("lsi.pdf")`.

        Raises:
            InputError: matplotlib is missing, the kind is unknown, or there is nothing of that kind to draw.
        """
        from lsi.report.plots import plot

        return plot(self, kind, ax)

    def _repr_html_(self) -> str:
        from lsi.report.notebook import notebook_html

        return notebook_html(self)

    def _lines(self) -> list[str]:
        values = self.lsi
        lines = [f"Scores of {len(self):,} samples{self._kind()}"]
        if len(self):
            low, middle, high = (_short(value) for value in np.quantile(values, [0.0, 0.5, 1.0]))
            lines.append(f"LSI in nats: lowest {low}, median {middle}, highest {high}")
        lines.append(self._audit.summary() if self._audit else "No audit was run.")
        return lines

    def _kind(self) -> str:
        """Return what the scored samples are, as the end of a phrase."""
        n_outputs = len(self._manifest.get("outputs") or [])
        if self.task == "regression":
            return f", regression of {n_outputs} target{'s' if n_outputs != 1 else ''}"
        if self.task == "multilabel":
            return f" with {n_outputs} labels"
        if self.task != "classification":
            return f", {self.task}"
        n_classes = len(self._manifest["classes"] or check_labels(self._table["label"])[1])
        return f" in {n_classes} classes"

    def _column(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy().copy()

    def _differs(self) -> pd.Series:
        return self._table["loo_prediction"].astype(object) != self._table["label"].astype(object)

    def _sorted(self, k: int, ascending: bool) -> pd.DataFrame:
        count = _check_count(k)
        ordered = self._table.sort_values("lsi", ascending=ascending, kind="stable", ignore_index=True)
        return ordered.head(count)


def load(path: PathLike) -> Scores:
    """Read scores that `Scores.save` or the command line wrote.

    Args:
        path: Folder with the scores.

    Returns:
        The scores, equal to those that were saved. Labels and ids that are neither numbers, booleans, dates
        nor strings come back as their `repr`.

    Raises:
        InputError: There are no scores, they are damaged, or another program or version wrote them.
    """
    table, manifest = read_scores(path)
    described = manifest.get("audit")
    return Scores(table, manifest, None if described is None else Audit.from_dict(described))


def json_label(label: Any) -> bool | int | str:
    """Return a label as manifests hold it: numbers, booleans and strings unchanged, else their `repr`."""
    value: Any = label.item() if isinstance(label, np.generic) else label
    return value if isinstance(value, bool | int | str) else repr(value)


def _tidy(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with a plain index, and object columns of one type in that type."""
    tidy = table.reset_index(drop=True).infer_objects()
    for name in _NATS:
        tidy[name] = tidy[name].astype(np.float64)
    return tidy


def _check_count(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k must be a positive integer, got {k!r}. Pass how many samples to return.")
    return int(k)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(entry) for entry in value]
    if isinstance(value, np.generic):
        return _to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike | datetime.datetime):
        return str(value)
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def _short(value: float) -> str:
    return f"{value:.3g}"
