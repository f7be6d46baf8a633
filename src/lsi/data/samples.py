"""What every data source gives: samples with a stable identity."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lsi.errors import InputError


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as a source gives them, before any check of their values.

    A source promises that row ``i`` of every array is the same sample and that `ids` stay the same
    from run to run. Whether the values can be scored (finite, numeric, enough classes) is decided
    in one place, ``lsi.problem.check_problem``.

    Attributes:
        name: Short name of the data, as given by the user where there is one.
        ids: ``(N,)`` stable identities.
        labels: ``(N,)`` labels, as the source spells them.
        features: ``(N, D)`` numbers, or None where the source holds raw items only.
        images: ``(N, H, W)`` or ``(N, H, W, 3)`` pixels for thumbnails, uint8, or None.
        class_names: Name to show for a label, where it differs from the label itself.
        feature_names: ``D`` names, or None.
        description: One sentence on what this is and how it was prepared.
        source: What is needed to find the data again (JSON values only); goes into the manifest.
    """

    name: str
    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None = None
    images: np.ndarray | None = None
    class_names: Mapping[Hashable, str] | None = None
    feature_names: tuple[str, ...] | None = None
    description: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same samples.

        Raises:
            InputError: If lengths differ or labels and ids are not one-dimensional.
        """
        for what, values in (("labels (y)", self.labels), ("ids", self.ids)):
            if values.ndim != 1:
                raise InputError(
                    f"{self.name}: {what} must be one-dimensional, got shape {values.shape}. "
                    "Use one entry a sample, for example values.ravel() or values.argmax(axis=1)."
                )
        for what, array in (("ids", self.ids), ("features (X)", self.features), ("images", self.images)):
            if array is not None and len(array) != len(self.labels):
                raise InputError(
                    f"{self.name}: {what} and labels (y) describe different numbers of samples: "
                    f"{len(array):,} and {len(self.labels):,}. Give one label for each row."
                )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def class_name(self, label: Hashable) -> str:
        """Return the name to show for `label`.

        Args:
            label: A label as the source spells it.

        Returns:
            Its class name, or the label as text where it has none.
        """
        return (self.class_names or {}).get(label, str(label))
