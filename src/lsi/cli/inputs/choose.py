"""Which samples are used: those with a label, of these classes, the first so many."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lsi.cli.inputs.options import DataOptions
from lsi.errors import InputError

if TYPE_CHECKING:
    from lsi.data import Corruption, Samples


def with_labels(samples: Samples, skip: bool) -> Samples:
    """Return the samples that have a label."""
    import numpy as np
    import pandas as pd

    missing = np.flatnonzero(pd.isna(samples.labels))
    if not len(missing):
        return samples
    if not skip:
        first = ", ".join(str(row) for row in missing[:5])
        raise InputError(
            f"{len(missing):,} of {len(samples):,} rows have no label (first: {first}). Fill them in, or "
            "leave these rows out with --skip-broken."
        )
    kept = samples.select(np.setdiff1d(np.arange(len(samples)), missing))
    labels = pd.Series(kept.labels).infer_objects()
    if labels.dtype.kind == "f" and (labels == labels.round()).all():
        labels = labels.astype("int64")  # whole numbers that became floats because some were missing
    note = f"{len(missing):,} rows without a label were left out."
    return replace(kept, labels=labels.to_numpy(), notes=(*kept.notes, note))


def standardised(samples: Samples) -> Samples:
    """Return the samples with features of mean 0 and standard deviation 1."""
    from lsi.data.archives.named import standardise
    from lsi.validation.features import as_matrix

    if samples.features is None:
        raise InputError("--standardise is for features, not for raw items.")
    return replace(samples, features=standardise(as_matrix(samples.features)))


def chosen(
    samples: Samples, truth: Corruption | None, data: DataOptions
) -> tuple[Samples, Corruption | None]:
    """Keep the classes and the first samples that were asked for."""
    import numpy as np

    from lsi.data.corruption.items import match_classes

    positions = np.arange(len(samples))
    if data.active_classes:
        labels = samples.labels if truth is None or truth.labels.ndim > 1 else truth.labels
        wanted = match_classes(labels, data.active_classes, "--active-classes")
        positions = positions[np.isin(labels, wanted)]
    if data.first is not None:
        if data.first < 1:
            raise InputError(f"--first must be at least 1, got {data.first}.")
        positions = positions[: data.first]
    if len(positions) == len(samples):
        return samples, truth
    return samples.select(positions), None if truth is None else truth.select(positions)
