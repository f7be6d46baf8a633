"""The worst errors on validation rows and their causes, for the page of saved scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsi.cli.inputs.options import EncoderOptions
from lsi.cli.inputs.queries import labels_of, read_rows
from lsi.cli.progress import progress_bar
from lsi.cli.trained import trained
from lsi.report.errors import MOST_CAUSES, MOST_ERRORS, Validation

if TYPE_CHECKING:
    from lsi.validation.problem import Problem


def worst_errors(scores: Path, source: str, encoder: EncoderOptions) -> Validation:
    """Return the errors that the probe of scores makes on other rows, and the causes of the worst."""
    probe = trained(scores, encoder)
    rows = read_rows(probe, source, encoder, False)
    labels = labels_of(rows, "leave these rows out")
    fitted = probe.fitted
    errors = fitted.errors(rows.features, labels)
    worst = errors["position"].to_numpy()[:MOST_ERRORS]
    if not len(worst):
        return Validation(rows, errors, pd.DataFrame(columns=["query", "rank", "relative_error"]))
    assert rows.features is not None
    with progress_bar(False) as progress:
        causes = fitted.explain(rows.features[worst], labels[worst], k=MOST_CAUSES, progress=progress)
    return Validation(rows, errors, causes.assign(label=_labels(fitted.run.problem, causes["sample_id"])))


def _labels(problem: Problem, ids: pd.Series) -> np.ndarray:
    """Return the labels that training samples were trained with."""
    from lsi.tasks.columns import label_texts

    place: dict[Any, int] = {each: k for k, each in enumerate(problem.sample_id.tolist())}
    target = problem.target[[place[each] for each in ids.tolist()]]
    return label_texts(target, problem.outputs) if problem.outputs else problem.classes[target]
