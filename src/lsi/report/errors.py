"""The worst errors on validation rows, each beside the training samples that caused it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsi.data import Samples
from lsi.report.cards import FaceMaker
from lsi.system.text import plain_text

MOST_ERRORS, MOST_CAUSES = 12, 4
"""Errors on a page, and causes beside each: a row of cards as wide as the page."""


@dataclass(frozen=True, eq=False)
class Validation:
    """What a trained probe gets wrong on validation rows, and why.

    Attributes:
        samples: The validation rows.
        errors: What `lsi.Fitted.errors` returns: the rows that are predicted wrongly, worst first.
        causes: What `lsi.Fitted.explain` returns for the first of them (`query` is a row of `errors`), and
            the `label` of each training sample.
    """

    samples: Samples
    errors: pd.DataFrame
    causes: pd.DataFrame


def validation_summary(
    found: Validation | None, samples: Samples | None, name: Callable[[object], str]
) -> dict[str, Any] | None:
    """Return the worst errors with faces and causes; None where no validation rows were given.

    A cause is a sample without which the loss of the row is lower, by more than the error of that figure.
    """
    if found is None:
        return None
    theirs = FaceMaker(samples)
    own = FaceMaker(found.samples, theirs)
    places = {} if samples is None else {str(each): k for k, each in enumerate(samples.ids)}
    causes = found.causes[(found.causes["rank"] < 0) & (found.causes["relative_error"] < 1)]
    rows = []
    for k, error in enumerate(found.errors.head(MOST_ERRORS).to_dict("records")):
        listed = causes[causes["query"] == k].sort_values("rank", ascending=False).head(MOST_CAUSES)
        rows.append(
            {
                "query": plain_text(found.samples.ids[int(error["position"])]),
                "label": name(error["label"]),
                "prediction": name(error["prediction"]),
                "loss": error["loss"],
                "face": own(int(error["position"])),
                "causes": [_cause(row, theirs, places, name) for row in listed.itertuples()],
            }
        )
    return {"n": len(found.samples), "n_wrong": len(found.errors), "rows": rows}


def _cause(
    row: Any, face: FaceMaker, places: dict[str, int], name: Callable[[object], str]
) -> dict[str, Any]:
    place = places.get(str(row.sample_id))
    return {
        "sample_id": plain_text(row.sample_id),
        "label": name(row.label),
        "loss_change": row.loss_change,
        "relative_error": row.relative_error,
        "changes_prediction": bool(row.changes_prediction),
        "face": {} if place is None else face(place),
    }
