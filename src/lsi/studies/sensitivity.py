r"""How much the ranking depends on settings that were chosen by hand: prior, weight decay, features.

Each variant is a run of its own on the same samples. A sample's *quantile* in a run is its mid-rank over n,
from 0 (lowest LSI) to 1; its *spread* is the difference of its largest and smallest quantile over all runs.
A sample whose spread exceeds a threshold is *unstable*: conclusions from its rank depend on a setting, not
on the data alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lsi.errors import InputError
from lsi.pipeline import score
from lsi.probes import LinearProbe
from lsi.results.audit import spearman, top_k_overlap
from lsi.results.table import json_rows
from lsi.scores import Scores
from lsi.system.progress import Progress
from lsi.validation.settings import AUTO, check_positive

FACTORS = (0.1, 10.0)
"""Factors by which prior precision and weight decay are multiplied where no values are given."""
THRESHOLD = 0.2
"""Spread of quantiles above which a sample counts as unstable."""
TOP_SHARE = 0.1  # of the samples: the highest ones, whose overlap is measured


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Rankings under several settings.

    Attributes:
        base: Scores with the settings as given.
        runs: One row per variant: `setting`, `value`, `spearman` (rank correlation with the base),
            `top_overlap` (share of the base's highest tenth that stays in the highest tenth) and
            `median_ratio` (median of LSI over the base's).
        samples: One row per sample, largest spread first: `sample_id`, `label`, `lsi` (nats, base),
            `quantile` (base), `lowest`, `highest` (of all runs), `spread`, `unstable`, and `cause`, the
            variant that moves the sample furthest.
        threshold: Spread above which a sample counts as unstable.
    """

    base: Scores
    runs: pd.DataFrame
    samples: pd.DataFrame
    threshold: float

    @property
    def n_unstable(self) -> int:
        """Number of unstable samples."""
        return int(self.samples["unstable"].sum())

    def summary(self) -> str:
        """Return the finding in two plain sentences."""
        n, share = len(self.samples), self.n_unstable / len(self.samples)
        text = (
            f"{self.n_unstable:,} of {n:,} samples ({share:.1%}) move by more than {self.threshold:.0%} of "
            f"the ranking under {len(self.runs)} other settings."
        )
        ranked = self.runs.dropna(subset=["spearman"]).sort_values("spearman").to_dict("records")
        if not ranked:
            return text
        worst = ranked[0]
        return (
            f"{text} The ranking changes most with {worst['setting']} {worst['value']}: rank correlation "
            f"{worst['spearman']:.4f}, {worst['top_overlap']:.0%} of the highest tenth stay."
        )

    def to_dict(self, rows: int = 20) -> dict[str, Any]:
        """Return JSON values.

        Args:
            rows: How many samples to include, those of largest spread first.

        Returns:
            Counts, the runs, and these samples.
        """
        return {
            "n_samples": len(self.samples),
            "n_unstable": self.n_unstable,
            "threshold": self.threshold,
            "runs": json_rows(self.runs),
            "samples": json_rows(self.samples.head(rows)),
        }


def sensitivity(
    X: Any,
    y: Any,
    *,
    probe: Any = None,
    prior_precision: float = 1.0,
    prior_precisions: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None,
    features: Mapping[str, Any] | None = None,
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
    **settings: Any,
) -> Sensitivity:
    """Score the same samples under several settings, one changed at a time.

    Args:
        X: `(N, D)` features.
        y: Labels or targets, as in `lsi.score`.
        probe: The probe, as in `lsi.score`; None: ``LinearProbe()``.
        prior_precision: The prior precision, as in `lsi.score`.
        prior_precisions: Other prior precisions. None: a tenth and ten times the given one.
        weight_decays: Other weight decays. None: a tenth and ten times the probe's.
        features: Other features of the same samples in the same order, by name, such as those of another
            encoder.
        threshold: Spread of quantiles, between 0 and 1, above which a sample counts as unstable.
        progress: Called as `progress("sensitivity", done, total)` after each run.
        **settings: Further arguments of `lsi.score`. Only the run with the settings as given is audited.

    Returns:
        Rank correlations of the runs, and the spread of each sample.

    Raises:
        InputError: As `lsi.score`; or there is nothing to vary, or a value cannot be used.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> found = sensitivity(*load_iris(return_X_y=True), audit=False)
        >>> found.runs["value"].tolist()
        [0.1, 10.0, 1e-05, 0.001]
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1, got {threshold!r}.")
    probe = LinearProbe() if probe is None else probe
    prior = check_positive("prior_precision", prior_precision)
    given = {"prior_precision": prior_precisions, "weight_decay": weight_decays}
    base = None
    if getattr(probe, "weight_decay", None) == AUTO:
        base = score(X, y, probe=probe, prior_precision=prior, **settings)
        probe = replace(probe, weight_decay=base.manifest["config"]["probe"]["weight_decay"])
    variants = list(_variants(X, probe, prior, given, features))
    if not variants:
        raise InputError("there is nothing to vary. Give prior_precisions, weight_decays or features.")
    base = base or score(X, y, probe=probe, prior_precision=prior, **settings)
    values, rows = [base.lsi], []
    for done, (setting, value, changed) in enumerate(variants):
        arguments = {"X": X, "probe": probe, "prior_precision": prior, **settings, "audit": False, **changed}
        other = score(y=y, **arguments).lsi
        rows.append({"setting": setting, "value": value, **_agreement(base.lsi, other)})
        values.append(other)
        if progress is not None:
            progress("sensitivity", done + 1, len(variants))
    runs = pd.DataFrame(rows)
    return Sensitivity(base, runs, _samples(base, np.stack(values), runs, threshold), threshold)


def _variants(
    X: Any,
    probe: Any,
    prior: float,
    given: Mapping[str, Sequence[float] | None],
    features: Mapping[str, Any] | None,
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the setting, its value and the changed arguments of each run."""
    values = given["prior_precision"]
    for value in _scaled(prior) if values is None else values:
        yield "prior_precision", value, {"prior_precision": check_positive("prior_precision", value)}
    values = given["weight_decay"]
    for value in _scaled(probe.weight_decay) if values is None else values:
        check_positive("weight_decay", value)
        yield "weight_decay", value, {"probe": replace(probe, weight_decay=value)}
    for name, other in (features or {}).items():
        if np.shape(other)[:1] != np.shape(X)[:1]:
            raise InputError(
                f"the features {name!r} have {len(other)} rows and X has {len(X)}. Give the same samples in "
                "the same order."
            )
        yield "features", name, {"X": other}


def _scaled(value: float) -> list[float]:
    return [float(f"{factor * value:.6g}") for factor in FACTORS] if value > 0 else []


def _agreement(base: np.ndarray, other: np.ndarray) -> dict[str, float]:
    top = max(1, round(TOP_SHARE * len(base)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.median(other / base))
    return {
        "spearman": spearman(base, other),
        "top_overlap": top_k_overlap(base, other, top),
        "median_ratio": ratio,
    }


def _samples(base: Scores, values: np.ndarray, runs: pd.DataFrame, threshold: float) -> pd.DataFrame:
    n = values.shape[1]
    quantiles = (rankdata(values, axis=1) - 0.5) / n
    moved = np.abs(quantiles[1:] - quantiles[0])
    causes = np.array(
        [f"{setting} {value}" for setting, value in zip(runs["setting"], runs["value"], strict=True)]
    )
    table = base.to_frame()
    lowest, highest = quantiles.min(axis=0), quantiles.max(axis=0)
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "lsi": table["lsi"],
            "quantile": quantiles[0],
            "lowest": lowest,
            "highest": highest,
            "spread": highest - lowest,
            "unstable": highest - lowest > threshold,
            "cause": causes[moved.argmax(axis=0)],
        }
    )
    return frame.sort_values("spread", ascending=False, kind="stable", ignore_index=True)
