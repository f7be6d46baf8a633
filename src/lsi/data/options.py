"""Settings of a data source: where it is found, and which column is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lsi.data.preparation.plan import TablePreparation
from lsi.system.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a dataset is found and read; a source ignores what it has no use for.

    Attributes:
        data_dir: Folder of archives, searched before anything is downloaded.
        split: ``train`` or ``test``, where the data have both.
        label_column: Column of a table that holds the labels.
        clean_label_column: Column with labels known to be right.
        id_column: Column with stable ids.
        group_column: Column that says to which group a row belongs; it is no feature.
        image_column: Column with images: bytes, paths, or Hugging Face's ``{bytes, path}``.
        text_column: Column with texts.
        audio_column: Column with recordings, as for images.
        feature_columns: Columns that features are made of; empty: every column without another role.
        label_columns: Columns of labels or targets, where a sample has several.
        annotators: Whether `label_columns` hold the labels of several annotators, with gaps, instead.
        prepare: Whether a table's columns are prepared (`prepare_table`), or its numbers taken as they are.
        preparation: How another table was prepared; this one is then prepared alike.
        labels: File with one label in each row, for a file that holds only features.
        unlabelled: Whether a file may lack labels and ids: labels are None then, ids the positions.
        cache_dir: Folder for downloads and unpacked archives; None: the library's cache.
        progress: Called as ``progress(stage, done, total)``.
    """

    data_dir: Path | None = None
    split: str | None = None
    label_column: str | None = None
    clean_label_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    audio_column: str | None = None
    feature_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    annotators: bool = False
    prepare: bool = True
    preparation: TablePreparation | None = None
    labels: Path | None = None
    unlabelled: bool = False
    cache_dir: Path | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Bring paths and lists of columns, which may come as text or from a manifest, into one form."""
        for name in _PATHS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in _LISTS:
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "prepare", self.prepare not in (False, _OFF))

    def describe(self) -> dict[str, Any]:
        """Return what is needed to read the same data again, as JSON values without defaults."""
        found: dict[str, Any] = {}
        for name in _DESCRIBED:
            value = getattr(self, name)
            if name == "prepare":
                found |= {} if value else {name: _OFF}
            elif isinstance(value, Path):
                found[name] = str(value.absolute())
            elif value:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    @staticmethod
    def restore(found: Mapping[str, Any]) -> SourceOptions:
        """Return the options that `describe` wrote as JSON values."""
        return SourceOptions(**{name: found[name] for name in _DESCRIBED if name in found})


_OFF = "no"
"""What stands for `prepare=False` in a manifest and in marks, which hold texts."""
_PATHS = ("data_dir", "labels", "cache_dir")
_HERE = ("unlabelled", "cache_dir", "progress", "preparation")
_LISTS = ("feature_columns", "label_columns")
_DESCRIBED = [field.name for field in fields(SourceOptions) if field.name not in _HERE]
