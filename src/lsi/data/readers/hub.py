"""``hf:owner/name``: a dataset of the Hugging Face hub; needs the extra ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lsi.data.options import SourceOptions
from lsi.data.readers.table import Table
from lsi.data.readers.table_files import ROWS, TableFile
from lsi.data.readers.tables import samples_of
from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.system.versions import install_hint

PREFIX = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class HubTable(TableFile):
    """A loaded `datasets.Dataset`, whose Arrow files stay memory-mapped and undecoded."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.path = Path(name)
        self._dataset = dataset.with_format("arrow")
        self.schema = dataset.features.arrow_schema
        self.n_rows = len(dataset)

    def batches(self, columns: list[str], start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of rows in order."""
        chosen = self._dataset.select_columns(columns)
        for row in range(start, self.n_rows, ROWS):
            part = chosen[row : min(row + ROWS, self.n_rows)].select(columns).combine_chunks()
            yield row, part.to_batches()[0]


def read_hub(text: str, options: SourceOptions) -> Samples:
    """Load a dataset of the hub."""
    name, _, configuration = text.removeprefix(PREFIX).partition(":")
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"{text!r} is no name of a dataset of the hub, such as hf:owner/name. For data on this machine "
            "give the path itself, without hf:."
        )
    if Path(name).exists():
        raise InputError(
            f"{text!r}: there is a {name!r} in the current folder, which would be read instead of the hub's. "
            "Give its path without hf:, or change to another folder."
        )
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{text} needs the package datasets. Install it: {install_hint('datasets')}."
        ) from error
    split = options.split or "train"
    try:
        loaded = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{text} (split {split}) could not be loaded: {reason} Check its name and the network, or pass "
            "the path of its Parquet files."
        ) from error
    table = Table([HubTable(loaded, name)], Path(), name)
    source = {"kind": "hub", "name": text, "options": options.describe()}
    return samples_of(table, options, source)
