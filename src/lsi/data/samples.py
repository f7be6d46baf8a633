"""What every data source gives: samples with a stable identity."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lsi.data.decode import ItemImages
from lsi.data.items import Items
from lsi.data.preparation.plan import TablePreparation
from lsi.errors import InputError
from lsi.system.digests import add_matrix, digest_values
from lsi.validation.features import as_matrix

_UNEVEN, _FEW = 16, 1 << 20
"""A text of Python takes some 50 bytes beside its own, which is 16 of numpy's characters; below a few million
characters either way will do."""


class Images(Protocol):
    """Pictures by position: an array, or something that decodes one when asked."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def __getitem__(self, position: Any, /) -> np.ndarray:
        """Return the pixels of one picture."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as a source gives them, before any check of their values.

    Row ``i`` of every array is the same sample, and `ids` stay the same from run to run. Samples hold
    features, raw items (which `lsi.encode` turns into features), or both. Whether their values can be
    scored (finite, numeric, enough classes) is decided by `lsi.score`.

    Attributes:
        name: Short name of the data, as given by the user where there is one.
        ids: ``(N,)`` stable identities.
        labels: ``(N,)`` labels, as the source spells them.
        features: ``(N, D)`` numbers, or None where the source holds raw items only.
        items: The N raw items, which are read when they are needed, or None.
        images: Pictures for thumbnails: ``(N, H, W)`` or ``(N, H, W, 3)`` pixels, uint8, or None.
        clean_labels: ``(N,)`` labels known to be right, where the source has them as well.
        class_names: Names to show for labels, where they differ from the labels themselves.
        feature_names: ``D`` names, or None.
        description: One sentence on what this is and how it was prepared.
        notes: What the user should be told about the data, one sentence each.
        source: What is needed to find the data again, as JSON values; it goes into the manifest.
        targets: ``(N, T)`` numbers where each sample has several targets or labels; `labels` then holds
            them as text (None where one is missing).
        target_names: The T names of the targets.
        answers: `(N, A)` labels by several annotators, None where one gave none; `labels` then holds the
            first of each sample until there is a consensus.
        task: ``regression`` or ``multilabel`` where the source knows; None elsewhere.
        label_doubt: Why the labels can be no classes, for whoever takes them for classes; or None.
        preparation: What was done to the columns of a table, where that is how its features were made.
        groups: `(N,)` the group of each sample, None where it belongs to none; or None.
        content: Digest of what the features were made of, by which the dataset is known again where features
            are not what it holds; None where they are, and for a selection.

    Raises:
        InputError: If ids or labels are not one-dimensional, or the parts differ in length.
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None = None
    items: Items | None = None
    images: Images | None = None
    clean_labels: np.ndarray | None = None
    class_names: Mapping[Hashable, str] | None = None
    feature_names: tuple[str, ...] | None = None
    description: str = ""
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    targets: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    answers: pd.DataFrame | None = None
    task: str | None = None
    label_doubt: str | None = None
    preparation: TablePreparation | None = None
    groups: np.ndarray | None = None
    content: str | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same samples."""
        for what, values in (("labels (y)", self.labels), ("ids", self.ids)):
            if values.ndim != 1:
                raise InputError(
                    f"{self.name}: {what} must be one-dimensional, got shape {values.shape}. "
                    "Use one entry a sample, for example values.ravel() or values.argmax(axis=1)."
                )
        parts = {
            "ids": self.ids,
            "features (X)": self.features,
            "items": self.items,
            "images": self.images,
            "clean labels": self.clean_labels,
            "targets": self.targets,
            "answers": self.answers,
            "groups": self.groups,
        }
        for what, part in parts.items():
            if part is not None and len(part) != len(self.labels):
                raise InputError(
                    f"{self.name}: {what} and labels (y) describe different numbers of samples: "
                    f"{len(part):,} and {len(self.labels):,}. Give one label for each row."
                )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def select(self, positions: np.ndarray) -> Samples:
        """Return the samples at `positions`, in that order; raw items stay unread.

        Args:
            positions: Integer positions.

        Returns:
            The chosen samples with their ids.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if len(positions) == len(self) and (np.diff(positions) == 1).all():
            return self
        items = None if self.items is None else self.items.select(positions)
        images: Images | None = None
        if isinstance(self.images, np.ndarray):
            images = self.images[positions]
        elif self.images is not None and items is not None:
            images = ItemImages(items)
        return replace(
            self,
            ids=self.ids[positions],
            labels=self.labels[positions],
            features=None if self.features is None else self.features[positions],
            items=items,
            images=images,
            clean_labels=None if self.clean_labels is None else self.clean_labels[positions],
            targets=None if self.targets is None else self.targets[positions],
            answers=None if self.answers is None else self.answers.iloc[positions],
            groups=None if self.groups is None else self.groups[positions],
            content=None,
        )

    def fingerprint(self) -> str:
        """Return a digest of ids, labels and content, by which files about these samples know them again.

        Returns:
            SHA-256 in 64 hexadecimal digits. Reading a dataset again with the same columns gives the same.
        """
        digest = hashlib.sha256(digest_values(np.asarray(self.ids)).encode())
        digest.update(digest_values(np.asarray(self.labels)).encode())
        if self.targets is not None:
            digest.update(digest_values(np.asarray(self.targets)).encode())
        if self.answers is not None:
            digest.update(digest_values(self.answers.to_numpy(dtype=object)).encode())
        if self.content is not None:
            digest.update(self.content.encode())
        elif self.features is not None:
            features = np.asarray(self.features)
            if features.dtype == object:
                digest.update(digest_values(features).encode())
            else:
                add_matrix(digest, features)
        if self.items is not None:
            digest.update(self.items.fingerprint().encode())
        return digest.hexdigest()

    def class_name(self, label: Hashable) -> str:
        """Return the name to show for `label`.

        Args:
            label: A label as the source spells it.

        Returns:
            Its class name, or the label as text where it has none.
        """
        return (self.class_names or {}).get(label, str(label))


def standardise(features: np.ndarray) -> np.ndarray:
    """Return `(N, D)` columns with mean 0 and standard deviation 1; a constant column becomes 0."""
    centred = features - features.mean(axis=0)
    scale = centred.std(axis=0)
    return np.asarray(centred / np.where(scale > 0, scale, 1.0), dtype=np.float64)


def standardised(samples: Samples) -> Samples:
    """Return the samples with features of mean 0 and standard deviation 1."""
    if samples.features is None:
        raise InputError("--standardise is for features, and these are raw items. Drop it.")
    return replace(samples, features=standardise(as_matrix(samples.features)))


def row_texts(values: np.ndarray) -> np.ndarray:
    """Return `(N, T)` rows of numbers as N texts, None where a number is missing.

    Examples:
        >>> row_texts(np.array([[1.0, 0.25], [2.0, np.nan]])).tolist()
        ['1, 0.25', None]
    """
    missing = np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    texts = [", ".join(f"{value:.6g}" for value in row) for row in values.tolist()]
    return np.array([None if gone else text for text, gone in zip(texts, missing, strict=True)], dtype=object)


def group_array(values: np.ndarray) -> np.ndarray:
    """Return the group of each sample as an object array; None where the entry is missing or an empty text.

    Dates and the like become text, which is how tables and pages name a group.
    """
    plain = (
        value if isinstance(value, str | bool | int | float) else str(value) for value in values.tolist()
    )
    missing = pd.isna(values) | (values.astype(object) == "")
    found = np.fromiter(plain, dtype=object, count=len(values))
    found[missing] = None
    return found


def text_array(values: Sequence[str | None]) -> np.ndarray:
    """Return texts as an array: of numpy's text where none is missing and their lengths are alike.

    There each text takes the room of the longest, so that a long one among many would fill the memory.
    """
    lengths = [0 if value is None else len(value) for value in values]
    uneven = len(lengths) * max(lengths, default=0) > _UNEVEN * (sum(lengths) + len(lengths))
    if None in values or (uneven and len(lengths) * max(lengths) > _FEW):
        return np.array(values, dtype=object)
    return np.array(values, dtype=str)
