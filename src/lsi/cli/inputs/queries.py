"""New rows for a trained probe: read and encoded as its own were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.options import EncoderOptions
from lsi.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from lsi.cli.trained import Trained
    from lsi.data import Samples
    from lsi.data.preparation.plan import TablePreparation

SUFFIXES = (".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl", ".ndjson")
"""Files of tables, whose columns of features are those of the trained probe."""


def read_rows(probe: Trained, source: str, encoder: EncoderOptions, quiet: bool) -> Samples:
    """Return samples with features; their labels are None where the file has none."""
    from lsi.cli.console import speaker
    from lsi.cli.progress import progress_bar
    from lsi.data import load_samples
    from lsi.features import encode

    notes = probe.notes
    # A file of labels is that of the probe's own rows.
    options = replace(probe.options, labels=None)
    settings: dict[str, Any] = {"unlabelled": True, "cache_dir": encoder.cache_dir}
    names = notes.get("feature_names")
    if notes.get("preparation"):
        settings["preparation"] = probe.preparation or _preparation(notes["source"])
    elif names and Path(source).suffix.lower() in SUFFIXES:
        settings["feature_columns"] = tuple(names)
    record = notes.get("encoder") or {}
    with progress_bar(quiet) as progress:
        samples = load_samples(source, options, progress=progress, **settings)
        if samples.features is not None:
            if notes.get("preparation") and samples.preparation is None:
                raise InputError(
                    f"the probe was trained on a prepared table, and {samples.name} is none. Give a table "
                    "with the same columns."
                )
            if record:
                raise InputError(
                    f"{samples.name} holds features, but the probe was trained on items encoded by "
                    f"{record['encoder']}. Give such items."
                )
            return samples
        found = encode(
            samples,
            encoder.encoder or record.get("encoder"),
            pooling=encoder.pooling,
            precision=encoder.precision,
            batch_size=encoder.batch_size,
            cache_dir=encoder.cache_dir,
            progress=progress,
            say=speaker(quiet),
        )
    if found.record.get("settings") != record.get("settings"):
        raise InputError(
            "the encoder is not the one of the probe, so that the features would mean something else. Give "
            "--encoder, --pooling and --precision as for `lsi fit`."
        )
    return found.samples


def labels_of(samples: Samples, cure: str) -> np.ndarray:
    """Return what is to be learnt of rows, `(M,)` or `(M, T)`, or refuse rows without."""
    import pandas as pd

    from lsi.data.targets import target_of

    missing = int(pd.isna(samples.labels).sum())
    if missing:
        raise InputError(
            f"{missing:,} of {len(samples):,} rows of {samples.name} have no label. Fill them in, or {cure}."
        )
    return target_of(samples)


def _preparation(source: Mapping[str, Any]) -> TablePreparation:
    """Return how the table of a trained probe was prepared: a function of that table, which is read again."""
    from lsi.data.reload import reload_samples

    cure = "Give `lsi fit --no-prepare` a table of numbers, so that new rows need nothing but their columns."
    try:
        samples = reload_samples(source)
    except InputError as error:
        raise InputError(
            "the probe was trained on a prepared table, which is needed to prepare other rows alike: "
            f"{error} {cure}"
        ) from error
    if samples.fingerprint() != source.get("fingerprint") or samples.preparation is None:
        raise InputError(
            f"{samples.name} has changed since the probe was trained on it, so that other rows cannot be "
            f"prepared alike. Run `lsi fit` again. {cure}"
        )
    return samples.preparation
