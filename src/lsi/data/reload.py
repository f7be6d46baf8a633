"""The samples of an earlier run, found again from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsi.data.options import SourceOptions
from lsi.data.pairs import load_pairs
from lsi.data.samples import Samples
from lsi.data.sources import load_samples
from lsi.errors import InputError


def reload_samples(source: Mapping[str, Any]) -> Samples:
    """Load the samples that a manifest's ``source`` entry describes; of pairs, the left side."""
    kind = source.get("kind")
    options = SourceOptions.restore(source.get("options") or {})
    if kind in ("named", "hub"):
        return load_samples(str(source.get("name", "")), options)
    if kind == "file":
        return load_samples(Path(source.get("path", "")), options)
    if kind == "pairs":
        return load_pairs(str(source.get("path", "")), options).left
    raise InputError("these scores do not say where their samples came from. Name the data with --dataset.")
