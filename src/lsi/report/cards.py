"""One card for each sample: what it looks like, its labels and its score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsi.data import Samples
from lsi.report.thumbnails import thumbnail
from lsi.results.table import ScoreTable
from lsi.system.text import plain_text

MAX_BARS = 48
"""Most bars of a feature profile; the features of wider data are grouped."""
LONGEST_TEXT = 280
"""Most characters of a text."""
PIXELATED_BELOW = 49
"""Images with a longest side below this are enlarged with sharp pixels."""


class FaceMaker:
    """Makes what samples look like.

    Attributes:
        kind: ``image``, ``text``, ``features`` or ``none``.
    """

    def __init__(self, samples: Samples | None, like: FaceMaker | None = None) -> None:
        """Prepare what all faces share; features are shown beside those of `like`, on the same scale."""
        self._samples = samples
        self.kind = "none"
        if samples is not None and samples.images is not None:
            self.kind = "image"
        elif samples is not None and samples.items is not None:
            # Recordings have nothing to show; a profile of an encoder's features would tell nobody anything.
            self.kind = "text" if samples.items.kind == "text" else "none"
        elif samples is not None and samples.features is not None:
            self.kind = "features"
            whole = samples if like is None or like.kind != "features" else like._samples
            assert whole is not None and whole.features is not None
            self._centre = whole.features.mean(axis=0, dtype=np.float64)
            spread = whole.features.std(axis=0, dtype=np.float64)
            self._spread = np.where(spread > 0, spread, 1.0)

    def __call__(self, position: int) -> dict[str, Any]:
        """Return the picture, the text or the feature profile of the sample at `position`."""
        samples = self._samples
        if self.kind == "text" and samples is not None and samples.items is not None:
            return {"text": plain_text(samples.items.take([position])[0] or "", LONGEST_TEXT)}
        if self.kind == "image" and samples is not None and samples.images is not None:
            image = samples.images[position]
            return {"image": thumbnail(image), "pixelated": max(image.shape[:2]) < PIXELATED_BELOW}
        if self.kind == "features" and samples is not None and samples.features is not None:
            z = (np.asarray(samples.features[position], dtype=np.float64) - self._centre) / self._spread
            return {"profile": [round(value, 2) for value in profile(z)], "striking": self._striking(z)}
        return {}

    def _striking(self, z: np.ndarray) -> list[dict[str, Any]]:
        """Return the three features furthest from their mean."""
        names = self._samples.feature_names if self._samples else None
        furthest = np.argsort(-np.abs(z), kind="stable")[:3]
        return [
            {"name": plain_text(names[k] if names else f"x{k}", 32), "z": round(float(z[k]), 2)}
            for k in furthest
        ]


class CardMaker:
    """Makes cards for rows of a score table.

    Attributes:
        kind: What a card shows: ``image``, ``text``, ``features`` or ``none``.
    """

    def __init__(
        self,
        scores: ScoreTable,
        samples: Samples | None,
        name: Callable[[object], str],
    ) -> None:
        """Prepare what all cards share."""
        self._frame, self._disagrees = scores.to_frame(), scores.disagrees
        self._name = name
        self._face = FaceMaker(samples)
        self.kind = self._face.kind

    def __call__(self, row: int, rank: int) -> dict[str, Any]:
        """Return the card of table row `row`."""
        # Column by column: a row of numbers taken as a whole would turn integers into floats.
        entry = {name: self._frame[name].iloc[row] for name in self._frame}
        planted = bool(entry.get("corrupted", False))
        card: dict[str, Any] = {
            "rank": rank,
            "sample_id": plain_text(entry["sample_id"]),
            "position": entry["position"],
            "label": self._name(entry["label"]),
            "likely": self._name(entry["loo_prediction"]),
            "disagrees": bool(self._disagrees[row]),
            "lsi": entry["lsi"],
            "mean_term": entry["mean_term"],
            "covariance_term": entry["covariance_term"],
            "loo_probability": entry["loo_probability"],
            "planted": planted,
            "original": self._name(entry["original_label"]) if planted else None,
        }
        return card | self.face(row)

    def face(self, row: int) -> dict[str, Any]:
        """Return the picture, the text or the feature profile of table row `row`."""
        return self._face(int(self._frame["position"].iloc[row]))


def profile(z: np.ndarray) -> list[float]:
    """Reduce a row of standardised features to at most `MAX_BARS` bars. Shapes: z `(D,)`."""
    groups = np.array_split(z, min(len(z), MAX_BARS))
    peaks = [group[np.argmax(np.abs(group))] for group in groups]
    return [float(value) for value in np.clip(peaks, -3, 3)]
