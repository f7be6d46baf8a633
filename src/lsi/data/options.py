"""What a source may need to know beside its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lsi.system.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a dataset is found and read; a source ignores what does not concern it.

    Attributes:
        data_dir: Folder of archives at hand, looked at before any download.
        split: ``train`` or ``test``, where the data have both.
        label_column: Column of a table that holds the labels.
        clean_label_column: Column with labels known to be right.
        id_column: Column with stable ids.
        image_column: Column with images: bytes, paths, or Hugging Face's ``{bytes, path}``.
        text_column: Column with texts.
        audio_column: Column with recordings, as for images.
        feature_columns: Columns with numbers; empty: every numeric column that is not named otherwise.
        label_columns: Columns with several targets or labels of a sample.
        labels: File with one label a row, beside a file that holds features only.
        cache_dir: Folder for downloads and unpacked archives; None: the library's cache.
        progress: Called as ``progress(stage, done, total)``.
    """

    data_dir: Path | None = None
    split: str | None = None
    label_column: str | None = None
    clean_label_column: str | None = None
    id_column: str | None = None
    image_column: str | None = None
    text_column: str | None = None
    audio_column: str | None = None
    feature_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    labels: Path | None = None
    cache_dir: Path | None = None
    progress: Progress | None = None

    def describe(self) -> dict[str, Any]:
        """Return what is needed to read the same data again, as JSON values; defaults are left out."""
        found: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in ("progress", "cache_dir") or not value:
                continue
            found[name] = (
                list(value) if isinstance(value, tuple) else str(value.absolute()) if isinstance(value, Path)
                else value
            )  # fmt: skip
        return found

    @staticmethod
    def restore(found: Mapping[str, Any]) -> SourceOptions:
        """Return the options that `describe` wrote.

        Args:
            found: JSON values.

        Returns:
            The options.
        """
        known = {field.name for field in fields(SourceOptions)} - {"progress", "cache_dir"}
        values = {name: value for name, value in found.items() if name in known}
        for name in {"data_dir", "labels"} & set(values):
            values[name] = Path(values[name])
        for name in {"feature_columns", "label_columns"} & set(values):
            values[name] = tuple(values[name])
        return SourceOptions(**values)
